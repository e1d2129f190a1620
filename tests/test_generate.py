"""Generation on a tiny random model: determinism, prefixes, stopping, interrupts, and figures against transformers."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import random
import sys
import threading
import weakref

import numpy as np
import pytest
import torch
from conftest import cold, fresh, make_hf_model, save_hf_model

import llm_magic
from llm_magic.engine import cache as cache_module
from llm_magic.engine import generate as engine
from llm_magic.engine.cache import PrefixCache, Sequence
from llm_magic.engine.generate import Step
from llm_magic.errors import ContextOverflow, GenerationInterrupted, NumericError, OptionError
from llm_magic.generation import Tail

TEXT = "In the inner theatre the painter entered, the other in the winter. " * 5


@pytest.fixture(scope="module")
def theirs():
    return make_hf_model()


def test_figures_of_a_greedy_generation_equal_transformers(tiny_llm, theirs):
    g = tiny_llm("the rain", mode="text", temperature=0, repetition_penalty=1.0, max_tokens=12)
    ids = [*g.prompt.ids, *(t.id for t in g.tokens)]
    with torch.inference_mode():
        logprobs = theirs(torch.tensor([ids])).logits[0].log_softmax(-1)
    for position, token in enumerate(g.tokens, len(g.prompt.ids) - 1):
        row = logprobs[position]
        assert token.id == row.argmax() and token.rank == 1
        assert token.logprob == pytest.approx(row[token.id].item(), abs=1e-4)  # transformers, fp32
        assert token.entropy == pytest.approx(torch.distributions.Categorical(logits=row).entropy().item(), abs=1e-4)
        top = row.topk(20)
        assert [a.id for a in token.alternatives] == top.indices.tolist()
        assert [a.logprob for a in token.alternatives] == pytest.approx(top.values.tolist(), abs=1e-4)


def test_a_score_equals_transformers(tiny_llm, theirs):
    score = tiny_llm.score(TEXT)
    ids = torch.tensor([[t.id for t in score.tokens]])
    with torch.inference_mode():
        logits = theirs(ids).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    assert score.tokens[0].logprob is None and score.text == TEXT
    assert [-t.logprob for t in score.tokens[1:]] == pytest.approx(loss.tolist(), abs=1e-4)  # transformers, fp32
    assert score.perplexity == pytest.approx(loss.mean().exp().item(), rel=1e-4)


def test_a_score_behind_a_context_is_that_part_of_the_whole(tiny_llm):
    llm = fresh(tiny_llm)
    context, text = TEXT[:100], TEXT[100:300]
    ids = [llm.tokenize(part).ids for part in (context, text)]
    assert ids[0] + ids[1] == llm.tokenize(context + text).ids  # the cut is between two tokens
    whole = llm.score(context + text)
    part = llm.score(text, context=context)
    assert part.tokens == whole.tokens[len(ids[0]) :] and part.text == text
    computed = []
    llm._backend.prefix_cache.take = lambda before, take=llm._backend.prefix_cache.take: (
        computed.append(taken := take(before)) or taken
    )
    assert llm.score("other text", context=context).tokens[0].logprob < 0
    assert computed[0][1] >= len(ids[0]) - 1  # of the context, at most the last token is computed again


def test_next_is_the_whole_distribution_in_short(tiny_llm, theirs):
    distribution = tiny_llm.next("the rain", k=7)
    with torch.inference_mode():
        ids = torch.tensor([tiny_llm.tokenize("the rain").ids])
        logprobs = theirs(ids).logits[0, -1].log_softmax(-1)
    assert [a.logprob for a in distribution.top] == pytest.approx(logprobs.topk(7).values.tolist(), abs=1e-4)
    assert distribution.rest + sum(a.probability for a in distribution) == pytest.approx(1)


def test_the_same_call_twice_is_identical_to_the_last_bit(tiny_llm):
    llm = fresh(tiny_llm)
    first = llm(TEXT, mode="text", temperature=1.0, seed=3, max_tokens=20)
    second = llm(TEXT, mode="text", temperature=1.0, seed=3, max_tokens=20)
    assert second.cached_tokens == len(second.prompt.ids)
    assert first == second and first.replay() == first


def test_another_seed_gives_another_text(tiny_llm):
    texts = {
        tiny_llm("a", mode="text", temperature=2.0, top_k=0, top_p=1.0, seed=s, max_tokens=8).text for s in range(5)
    }
    assert len(texts) == 5


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_a_longer_prompt_reuses_an_earlier_one(tiny_llm, n):
    llm = fresh(tiny_llm)
    llm(TEXT[:n], mode="text", max_tokens=1)
    longer = llm(TEXT[:n] + " xyz" * 30, mode="text", max_tokens=5)
    n_common = len(llm.tokenize(TEXT[:n]).ids)
    assert longer.cached_tokens in (n_common, n_common - 1)  # the last token may be cut otherwise
    assert longer == cold(tiny_llm, TEXT[:n] + " xyz" * 30, mode="text", max_tokens=5)


def test_an_answer_is_a_prefix_for_what_follows_it(tiny_llm):
    llm = fresh(tiny_llm)
    g = llm("the rain", mode="text", temperature=0, max_tokens=30)
    n_prompt = len(g.prompt.ids)
    longer = g.continue_(max_tokens=5)
    assert longer.cached_tokens == n_prompt + len(g.tokens) - 1
    assert longer.tokens[: len(g.tokens)] == g.tokens


def test_a_continued_generation_equals_one_that_was_not_cut(tiny_llm):
    whole = cold(tiny_llm, "the rain", mode="text", temperature=1.0, max_tokens=24)
    part = cold(tiny_llm, "the rain", mode="text", temperature=1.0, max_tokens=10)
    assert part.finish_reason == "length"
    joined = part.continue_(max_tokens=14)
    assert [(t.id, t.logprob) for t in joined.tokens] == [(t.id, t.logprob) for t in whole.tokens]


def test_a_continued_generation_is_counted_and_replayed_as_one(tiny_llm):
    part = cold(tiny_llm, "the rain", mode="text", temperature=1.0, max_tokens=10)
    joined = part.continue_(max_tokens=14)
    assert joined.sampling.max_tokens == 24 and joined.replay() == joined
    assert joined.decode_ms == pytest.approx(sum(t.ms for t in (*joined.tokens, joined.end) if t))
    bolder = part.continue_(max_tokens=8, temperature=2.0)
    assert bolder.replay() == bolder and bolder.tokens[9].sampling.temperature == 1.0
    with pytest.raises(OptionError, match="stop texts changed"):
        part.continue_(max_tokens=3, stop="zzz").replay()


@pytest.fixture
def script(tiny_llm, monkeypatch):
    """Make the model say a given text, byte by byte, whatever it thinks."""

    def play(text):
        tokenizer, n_prompt = tiny_llm._backend.tokenizer, len(tiny_llm.tokenize("the rain").ids)
        id_of = {tokenizer.bytes_of(i): i for i in range(tokenizer.vocabulary_tokens)}
        ids = [id_of[bytes([byte])] for byte in text.encode()]

        def generate(model, sequence, plan, stop_ids, first_index=0, sample=0):
            for token_id in ids[len(sequence.ids) - n_prompt :]:
                yield Step(token_id, -1.0, 1, 1.0, (token_id,), (-1.0,), (0.0,), 0.0, Tail(-1.0, b""), -1.0, 1.0)
                sequence.commit([token_id])

        monkeypatch.setattr("llm_magic.engine.generate.generate", generate)
        return len(ids)

    return play


@pytest.mark.parametrize("stop", [(), ("zzz",)])
def test_a_cut_inside_a_character_is_healed_by_going_on(tiny_llm, script, stop):
    n_tokens = script(text := "a€ 🐉 é")
    for n in range(1, n_tokens):
        part = tiny_llm("the rain", mode="text", max_tokens=n, stop=stop)
        assert part.text == text.encode()[:n].decode(errors="replace") and len(part.tokens) == n
        joined = part.continue_(max_tokens=n_tokens - n)
        assert joined.text == text and b"".join(t.bytes for t in joined.tokens) == text.encode()


def test_a_stop_text_over_the_seam_is_found(tiny_llm, script):
    script(" 7, 8, 9, 10")
    for n in range(1, 9):
        part = tiny_llm("the rain", mode="text", max_tokens=n, stop=", 9, ")
        joined = part.continue_(max_tokens=10) if part.finish_reason == "length" else part
        assert (joined.text, joined.finish_reason) == (" 7, 8", "stop")


def test_a_stream_that_is_left_says_interrupted(tiny_llm):
    stream = tiny_llm.stream("the rain", mode="text", temperature=1.0, max_tokens=50)
    for _ in stream:
        break
    assert stream.generation.finish_reason == "interrupted"


def test_a_stop_text_among_given_tokens_is_not_shown(tiny_llm):
    g = tiny_llm("the rain", mode="text", temperature=1.0, max_tokens=12)
    stop = g.tokens[4].text
    before = g.text[: g.text.index(stop)]
    joined = g.continue_(stop=stop, max_tokens=5)
    assert (joined.text, joined.finish_reason) == (before, "stop")


@pytest.mark.parametrize("part", ["q_proj", "k_proj", "v_proj", "o_proj"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"temperature": 1.0, "top_k": 0}])
def test_a_damaged_weight_is_an_error_and_no_text(tmp_path, part, value, options):
    model = make_hf_model()
    with torch.no_grad():
        getattr(model.model.layers[0].self_attn, part).weight[3, 7] = value
    llm = llm_magic.load(save_hf_model(model, tmp_path / "damaged"))
    if value == 1e30:  # wrong, but a number: whatever comes of it, it is no crash
        llm("the rain", mode="text", max_tokens=3, **options)
        return
    with pytest.raises(NumericError):
        llm("the rain", mode="text", max_tokens=3, **options)


def test_a_generation_is_saved_and_copied_without_its_model(tiny_llm):
    g = tiny_llm("the rain", mode="text", max_tokens=3)
    saved = pickle.loads(pickle.dumps(g))
    assert saved == g and saved.maker is None
    assert copy.deepcopy(g).maker in (None, tiny_llm) and dataclasses.asdict(g)["maker"] is tiny_llm
    with pytest.raises(OptionError, match="no model at hand"):
        saved.replay()


def test_numbers_of_numpy_and_turns_as_dicts_are_taken(tiny_llm):
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    g = tiny_llm("c", history=history, max_tokens=np.int64(3), temperature=np.float32(0.5))
    assert len(g.tokens) <= 3 and [m.content for m in g.prompt.messages] == ["a", "b", "c"]
    with pytest.raises(OptionError, match="a turn of the history"):
        tiny_llm("c", history=["a"])


def test_an_ended_generation_cannot_be_continued(tiny_llm):
    g = tiny_llm("the rain", mode="text", stop="e", temperature=1.0, max_tokens=200)
    assert g.finish_reason == "stop"
    with pytest.raises(OptionError, match="has ended"):
        g.continue_()


def test_the_context_is_never_exceeded(tiny_llm):
    room = 512
    prompt = "a" * (room - 5)
    g = tiny_llm(prompt, mode="text", temperature=1.0, max_tokens=100)
    assert g.context_used <= room and g.finish_reason in ("length", "stop")
    for text in ("a" * room, "a" * (room * 100)):
        with pytest.raises(ContextOverflow, match="512"):
            tiny_llm(text, mode="text")


def test_ten_megabytes_are_refused_at_once(tiny_llm):
    with pytest.raises(ContextOverflow, match="at least"):
        tiny_llm("word " * 2_000_000, mode="text")


@pytest.mark.parametrize("bad, message", [("", "empty"), ("a\ud800b", "lone surrogate.*character 1")])
def test_a_text_that_cannot_be_read_is_an_option_error(tiny_llm, bad, message):
    for call in (tiny_llm, lambda text: tiny_llm(text, mode="text"), tiny_llm.score):
        with pytest.raises(OptionError, match=message):
            call(bad)


def test_nul_and_escape_are_tokens_like_any(tiny_llm):
    text = "a\0b\x1b[31m\u202e"
    assert tiny_llm.score(text).text == text


def test_nan_weights_are_one_clear_error(tmp_path):
    model = make_hf_model()
    with torch.no_grad():
        model.lm_head.weight[5, 3] = torch.nan
    llm = llm_magic.load(save_hf_model(model, tmp_path / "nan"))
    with pytest.raises(NumericError, match="not numbers"):
        llm("abc", mode="text")


def test_a_generation_may_be_collected_while_the_prefix_cache_is_searched(tiny_llm, monkeypatch):
    decoder = tiny_llm._backend.decoder
    cache = PrefixCache(decoder.make_cache, limit_bytes=1 << 30)

    def make(ids):
        sequence = Sequence(decoder.make_cache(), [])
        list(engine.prefill(decoder, sequence, ids))
        return sequence

    cache.put(make([1, 2, 3]))
    collected, count = make([4, 5, 6]), cache_module.usable_tokens

    def collect_meanwhile(sequence, ids):  # what the garbage collector does, at a moment of its own choice
        if not cache._arrived and len(cache._sequences) == 1:
            cache.put(collected)
        return count(sequence, ids)

    monkeypatch.setattr(cache_module, "usable_tokens", collect_meanwhile)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(cache.take([1, 2, 3])), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive() and taken[0][1] == 3
    assert cache.take([4, 5, 6])[1] == 3


def test_a_prefix_cache_stays_within_its_bytes(tiny_llm):
    decoder = tiny_llm._backend.decoder
    one = decoder.make_cache().n_bytes
    cache = PrefixCache(decoder.make_cache, limit_bytes=3 * one)
    for i in range(10):
        sequence = Sequence(decoder.make_cache(), [])
        sequence.cache.commit(10)
        sequence.ids.extend([i] * 10)
        cache.put(sequence)
        assert cache.n_bytes <= 3 * one
    assert cache.take([9] * 10 + [1])[1] > 0 and cache.take([0] * 10 + [1])[1] == 0


def test_two_generations_at_once_do_not_mix(tiny_llm):
    llm = fresh(tiny_llm)
    options = {"mode": "text", "temperature": 1.0, "max_tokens": 15}
    expected = [cold(tiny_llm, p, **options) for p in ("the rain", "in the night")]
    streams = [llm.stream(p, **options) for p in ("the rain", "in the night")]
    for _ in range(15):
        for stream in streams:
            next(stream, None)
    assert [s.generation.tokens for s in streams] == [g.tokens for g in expected]


def test_threads_share_a_model(tiny_llm):
    llm, found = fresh(tiny_llm), {}
    prompts = [f"the rain {i}" for i in range(8)]

    def work(prompt):
        found[prompt] = llm(prompt, mode="text", temperature=1.0, max_tokens=10).text

    threads = [threading.Thread(target=work, args=(p,)) for p in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {p: cold(tiny_llm, p, mode="text", temperature=1.0, max_tokens=10).text for p in prompts}


def interrupt_after(n_lines: int):
    """Raise KeyboardInterrupt at the n-th line that the package's engine or backend runs from now on."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(("llm_magic.engine", "llm_magic.backends")):
            return None
        if event == "line":
            count += 1
            if count == n_lines:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)


def test_an_interrupt_at_any_line_keeps_the_text_and_the_cache(tiny_llm):
    options = {"mode": "text", "temperature": 1.0, "max_tokens": 12}
    expected = cold(tiny_llm, "the rain", **options)
    llm, rng, hits = fresh(tiny_llm), random.Random(0), 0
    for _ in range(120):
        llm.forget() if rng.random() < 0.3 else None
        interrupt_after(rng.randrange(1, 2500))
        try:
            g = llm("the rain", **options)
        except GenerationInterrupted as interrupted:
            g, hits = interrupted.generation, hits + 1
            assert g.finish_reason == "interrupted"
        except KeyboardInterrupt:  # before the generation began
            continue
        finally:
            sys.settrace(None)
        assert g.tokens == expected.tokens[: len(g.tokens)]
    assert hits > 40
    after = llm("the rain", **options)
    assert [t.id for t in after.tokens] == [t.id for t in expected.tokens]
    assert [t.logprob for t in after.tokens] == pytest.approx([t.logprob for t in expected.tokens], abs=1e-5)


def test_stop_ends_a_stream_between_tokens(tiny_llm):
    stream = tiny_llm.stream("the rain", mode="text", temperature=1.0, max_tokens=50)
    for i, _ in enumerate(stream):
        if i == 4:
            stream.stop()
    g = stream.generation
    assert len(g.tokens) == 5 and g.finish_reason == "interrupted"
    assert g.continue_(max_tokens=3).tokens[:5] == g.tokens


def test_a_model_in_memory_is_shared_and_freed_with_its_last_user(tiny_folder, tmp_path):
    folder = save_hf_model(make_hf_model(), tmp_path / "shared")
    first, second = llm_magic.load(folder), llm_magic.load(folder)
    assert first._backend is second._backend
    gone = weakref.ref(first._backend)
    first.unload()
    assert second("a", mode="text", max_tokens=2).text is not None
    second.unload()
    gc.collect()
    assert gone() is None


def test_an_unloaded_model_says_so(tiny_folder):
    llm = llm_magic.load(tiny_folder)
    g = llm("a", mode="text", max_tokens=2)
    llm.unload()
    with pytest.raises(OptionError, match="was unloaded"):
        g.replay()
    assert g.text is not None and "unloaded" in repr(llm)


def test_a_base_model_has_no_ask(tmp_path):
    folder = save_hf_model(make_hf_model(), tmp_path / "base")
    (folder / "tokenizer_config.json").write_text("{}")
    llm = llm_magic.load(folder)
    assert not llm.is_chat and llm("a", max_tokens=2).prompt.mode == "text"
    with pytest.raises(OptionError, match="base model"):
        llm("a", mode="ask")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda llm: llm("a", mode="aks"), "ask"),
        (lambda llm: llm("a", temprature=1), "temperature"),
        (lambda llm: llm("a", top_p=2), "top_p is 2"),
        (lambda llm: llm.next("a", k=0), "k is 0"),
        (lambda llm: llm("a", mode="text", system="be kind"), "raw text"),
    ],
)
def test_a_wrong_argument_names_what_is_right(tiny_llm, call, message):
    with pytest.raises(OptionError, match=message):
        call(tiny_llm)


def test_a_generation_is_data(tiny_llm):
    g = tiny_llm("the rain", mode="text", temperature=1.0, max_tokens=6)
    frame = g.to_pandas()
    assert list(frame["id"]) == [t.id for t in g.tokens]
    assert "".join(frame["text"]) == g.text == b"".join(t.bytes for t in g.tokens).decode(errors="replace")
    assert len(tiny_llm.next("a").to_pandas()) == 10 and len(tiny_llm.score("abc").to_pandas()) == 3
    with pytest.raises(AttributeError):
        g.finish_reason = "x"
