"""Several generations at once, on a tiny random model: each is the one it would be alone."""

from __future__ import annotations

import pytest
from conftest import cold, fresh

from llm_magic.backends.stream import Stream
from llm_magic.errors import GenerationInterrupted, OptionError
from llm_magic.llm import LLM, finish


def test_samples_equal_the_single_runs_of_their_numbers(tiny_llm):
    options = {"mode": "text", "temperature": 1.0, "max_tokens": 16, "seed": 3}
    llm = fresh(tiny_llm)
    samples = llm.samples("the rain", 5, **options)
    prompt = llm.prompt("the rain", **options)
    for i, sample in enumerate(samples):
        alone = finish(llm.start(prompt, sample=i))
        assert sample.sample == i and sample.text == alone.text and sample.finish_reason == alone.finish_reason
        assert [t.id for t in sample.tokens] == [t.id for t in alone.tokens]
        assert [t.logprob for t in sample.tokens] == [t.logprob for t in alone.tokens]  # to the last bit
    assert len({sample.text for sample in samples}) == 5


def test_samples_that_end_make_room_and_the_others_go_on(tiny_llm):
    options = {"mode": "text", "temperature": 1.5, "top_k": 0, "top_p": 1.0, "max_tokens": 60, "stop": ("e", "a")}
    samples = fresh(tiny_llm).samples("the rain", 8, **options)
    assert {"stop", "length"} >= {s.finish_reason for s in samples} and len({len(s.tokens) for s in samples}) > 1
    assert not any("e" in s.text or "a" in s.text for s in samples)
    with pytest.raises(OptionError, match="samples is 0"):
        tiny_llm.samples("a", 0)


ITEMS = ["rain", "a very long river that is cold", "sun", {"x": "moon"}, "x", "the sea and the sky", 7, "fog", "ice"]


def test_a_map_gives_each_item_what_it_gets_alone(tiny_llm):
    options = {"mode": "text", "temperature": 1.0, "top_p": 1.0, "stop": ("e",), "max_tokens": 20}
    found = fresh(tiny_llm).map("all about {x}: ", ITEMS, track=None, **options)
    texts = [f"all about {item['x'] if isinstance(item, dict) else item}: " for item in ITEMS]
    assert found == [cold(tiny_llm, text, **options) for text in texts]
    assert len({len(g.tokens) for g in found}) > 1


def test_rows_that_end_make_room_for_those_that_wait(tiny_llm):
    backend, options = fresh(tiny_llm)._backend, {"temperature": 1.0, "top_p": 1.0, "stop": ("e",), "max_tokens": 20}
    llm = LLM(backend)
    prompts = [llm.prompt(f"all about {i}", mode="text", **options) for i in range(12)]
    streams = [Stream(lambda stream: iter(()), prompt, prompt.sampling, 0) for prompt in prompts]
    most_running, n_left = 0, 0
    for _ in backend.run_batch(streams, max_rows=3):
        running = [s for s in streams if s.tokens and s.finish_reason == "interrupted"]
        most_running = max(most_running, len(running))
        n_left += bool(running) and streams[-1].tokens == []
    assert most_running <= 4 and n_left  # one that has just ended may still be counted
    alone = [cold(tiny_llm, f"all about {i}", mode="text", **options) for i in range(12)]
    assert [s.generation.tokens for s in streams] == [g.tokens for g in alone]
    assert [s.generation.finish_reason for s in streams] == [g.finish_reason for g in alone]


def test_a_map_says_what_it_lacks(tiny_llm):
    with pytest.raises(OptionError, match="no hole"):
        tiny_llm.map("Is it good?", ["a"])
    with pytest.raises(OptionError, match="an item lacks text"):
        tiny_llm.map("Is {text} good?", [{"title": "a"}])
    assert tiny_llm.map("Is {text} good?", []) == []


def test_an_interrupted_map_keeps_what_came(tiny_llm, monkeypatch):
    llm, calls = fresh(tiny_llm), []
    original = llm._backend._write

    def write(*arguments):
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(llm._backend, "_write", write)
    with pytest.raises(GenerationInterrupted) as caught:
        llm.map("all about {x}: ", range(20), mode="text", max_tokens=8, track=None)
    kept = caught.value.generation
    assert len(kept) == 20 and sum(len(g.tokens) for g in kept if g) == 29 and kept[-1] is None


def test_a_stopped_stream_ends_no_other_of_its_batch(tiny_llm):
    backend = fresh(tiny_llm)._backend
    prompts = [LLM(backend).prompt(f"all about {i}", mode="text", max_tokens=3) for i in range(4)]
    streams = [Stream(lambda stream: iter(()), prompt, prompt.sampling, 0) for prompt in prompts]
    streams[1].stop()
    for _ in backend.run_batch(streams):
        pass
    assert sum(len(s.tokens) for s in streams) == 9
    assert [s.finish_reason for s in streams] == ["length", "interrupted", "length", "length"]
    assert not streams[1].tokens
