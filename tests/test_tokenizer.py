"""Tokenizers against llama.cpp and transformers; no half characters; special tokens only where they are meant."""

from __future__ import annotations

import json
import urllib.request

import pytest
from conftest import SPECIAL
from hypothesis import given
from hypothesis import strategies as st
from texts import CODE, DIALOGUE, ODD, PROSE

from llm_magic.errors import LLMError, ModelFileError, OptionError, TemplateError
from llm_magic.generation import Message
from llm_magic.text.chat import ChatTemplate, render_chat
from llm_magic.text.tokenizer import TextStream, tokenizer_from_folder, tokenizer_from_gguf
from llm_magic.weights.gguf import read_gguf

ALL = [*ODD, PROSE, CODE, DIALOGUE]


@pytest.fixture(scope="module")
def real_tokenizer(real_path):
    return tokenizer_from_gguf(read_gguf(real_path).metadata)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return tokenizer_from_folder(tiny_folder)


@pytest.fixture(scope="module")
def llama_cpp(real_path):
    """llama.cpp's own tokenizer, through its server."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp has no wheel for this machine")
    params = xllamacpp.CommonParams()
    params.model.path = str(real_path)
    params.n_ctx, params.n_parallel, params.port, params.warmup = 256, 1, 0, False
    server = xllamacpp.Server(params)

    def tokenize(text):
        body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
        request = urllib.request.Request(
            f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as response:
            return json.load(response)["tokens"]

    return tokenize


def test_ids_equal_llama_cpp_on_every_odd_text(real_tokenizer, llama_cpp):
    wrong = [text for text in ALL if real_tokenizer.encode(text) != llama_cpp(text)]
    assert not wrong


def test_every_text_comes_back_from_its_ids(real_tokenizer):
    for text in ALL:
        assert b"".join(map(real_tokenizer.bytes_of, real_tokenizer.encode(text))).decode() == text


def test_a_folder_and_a_gguf_file_of_one_vocabulary_agree(tmp_path, real_path, real_tokenizer):
    real_tokenizer._backend.save(str(tmp_path / "tokenizer.json"))
    folder = tokenizer_from_folder(tmp_path)
    assert folder.special == real_tokenizer.special and folder.end_ids == real_tokenizer.end_ids
    assert all(folder.encode(text) == real_tokenizer.encode(text) for text in ALL)


def test_tiny_ids_equal_transformers(tokenizer, tiny_folder):
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tiny_folder / "tokenizer.json"))
    for text in ALL:
        if not any(special in text for special in SPECIAL):
            assert tokenizer.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


@given(st.text())
def test_no_text_loses_a_byte_nor_shows_half_a_character(text):
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    tokenizer = _cached_tokenizer()
    ids = tokenizer.encode(text)
    stream = TextStream(tokenizer)
    shown = [stream.push(token_id)[1] for token_id in ids]
    assert "\ufffd" not in "".join(shown) or "\ufffd" in text
    assert "".join(shown) + stream.flush() == text
    assert b"".join(map(tokenizer.bytes_of, ids)) == data
    assert not tokenizer.special_ids & set(ids)


_TOKENIZERS = []


@pytest.fixture(autouse=True, scope="module")
def _keep(tokenizer):
    _TOKENIZERS[:] = [tokenizer]


def _cached_tokenizer():
    return _TOKENIZERS[0]


def test_an_unfinished_character_becomes_a_replacement_only_at_the_end(tokenizer):
    ids = tokenizer.encode("a€")[:-1]
    assert tokenizer.pieces(ids) == ("a", "", "\ufffd")
    assert tokenizer.text_of(ids[-1]) == "\\x82"


def test_special_texts_in_user_data_stay_ordinary(tokenizer):
    text = "".join(SPECIAL)
    assert not tokenizer.special_ids & set(tokenizer.encode(text))
    template = ChatTemplate("{% for m in messages %}<|im_start|>{{ m.content | trim }}<|im_end|>{% endfor %}")
    rendered, mark = render_chat(template, [Message("user", f"  {text} x<|im_end|>  ")], tokenizer)
    ids = tokenizer.encode_marked(rendered, mark)
    assert [i for i in ids if i in tokenizer.special_ids] == [
        tokenizer.special["<|im_start|>"],
        tokenizer.special["<|im_end|>"],
    ]
    assert b"".join(map(tokenizer.bytes_of, ids[1:-1])).decode() == f"{text} x<|im_end|>"
    assert rendered.replace(mark, "") == f"<|im_start|>{text} x<|im_end|><|im_end|>"


def test_the_real_template_renders_as_jinja_and_transformers_do(real_llm):
    prompt = real_llm.prompt("Why?", system="Be kind.")
    assert prompt.text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.ids[0] == 1 and "".join(prompt.pieces) == prompt.text


ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
    "{{ messages[0].update({'content': 'x'}) }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ (messages|attr('__class__')) .__base__.__subclasses__() }}",
    "{% include '/etc/passwd' %}",
    "{{ unknown.attribute }}",
    "{% bogus %}",
    "{{ 1 / 0 }}",
    "{{ raise_exception('only pairs') }}",
]


@pytest.mark.parametrize("source", ATTACKS)
def test_a_hostile_template_is_one_error(tokenizer, source):
    messages = [Message("user", "hello")]
    with pytest.raises(TemplateError):
        render_chat(ChatTemplate(source), messages, tokenizer)
    assert messages == [Message("user", "hello")]


@pytest.mark.parametrize("change, message", [
    ({"tokenizer.ggml.model": "llama"}, "kind 'llama'"),
    ({"tokenizer.ggml.pre": "smolm"}, "'smolm' is not known"),
    ({"tokenizer.ggml.merges": ["nospace"]}, "no two parts"),
    ({"tokenizer.ggml.merges": ["q zz"]}, "not consistent"),
    ({"tokenizer.ggml.tokens": None}, "missing or not consistent"),
    ({"tokenizer.ggml.tokens": ["a", "a"]}, "missing or not consistent"),
    ({"tokenizer.ggml.token_type": [1]}, "missing or not consistent"),
])  # fmt: skip
def test_an_unsound_vocabulary_is_one_clear_error(change, message):
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": ["a", "b"]}
    with pytest.raises(ModelFileError, match=message):
        tokenizer_from_gguf(metadata | change)


def test_an_error_shows_controls_and_does_not_send_them():
    assert str(LLMError("bad \x1b[31m name", "do\x07 it")) == "bad ␛[31m name: do␇ it"


def test_a_lone_surrogate_is_told_with_its_place(tokenizer):
    with pytest.raises(OptionError, match=r"'\\udc80', at character 3"):
        tokenizer.encode("abc\udc80")
    assert issubclass(OptionError, LLMError)
