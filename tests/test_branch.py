"""Other ways a text could have gone: branches, settings that change on the way, and what was left to chance."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import cold, fresh

from llm_magic.engine.native.machine import machine
from llm_magic.engine.vocabulary import count_tails
from llm_magic.errors import OptionError
from llm_magic.generation import TAIL_BINS, TAIL_SPAN


def wild(llm, **changes):
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_tokens": 20} | changes
    return cold(llm, "the rain", mode="text", **settings)


def test_changed_settings_hold_for_the_tokens_to_come_and_are_replayed(tiny_llm):
    stream = tiny_llm.stream("the rain", mode="text", temperature=0, max_tokens=30)
    for index, _ in enumerate(stream):
        if index == 4:
            stream.steer(temperature=3.0, top_k=0, top_p=1.0, max_tokens=25)
    g = stream.generation
    temperatures = [t.sampling.temperature for t in g.tokens]
    changed_at = temperatures.index(3)
    assert 5 <= changed_at <= 8  # bytes of an unfinished character are held back, and so heard of later
    assert temperatures == [0] * changed_at + [3] * (len(g.tokens) - changed_at)
    assert all((t.sampled_logprob == 0) == (t.sampling.temperature == 0) for t in g.tokens)
    assert g.finish_reason == "stop" or len(g.tokens) == 25
    assert g.replay() == g


def test_a_branch_keeps_what_stood_before_and_goes_on_behind_the_other_token(tiny_llm):
    g = wild(tiny_llm)
    other = g.tokens[8].alternatives[3]
    branch = g.branch(8, other.text)
    assert branch.tokens[:8] == g.tokens[:8] and branch.tokens[8].id == other.id
    assert branch.tokens[8].sampled_logprob is None
    assert branch.tokens[8].logprob == pytest.approx(other.logprob, abs=1e-6)
    assert branch.cached_tokens == len(g.prompt.ids) + 7  # the last one before gives the distribution at 8
    ids = [*g.prompt.ids, *(t.id for t in branch.tokens)]
    backend = fresh(tiny_llm)._backend
    with torch.inference_mode():  # PyTorch's path through the decoder, all at once
        hidden = backend.decoder.forward(torch.tensor([ids]), backend.decoder.make_cache())[0]
        logprobs = backend.decoder.logits(hidden).all.log_softmax(-1)
    for position, token in enumerate(branch.tokens[8:], len(g.prompt.ids) + 7):
        assert token.logprob == pytest.approx(logprobs[position, token.id].item(), abs=1e-3)
    assert branch.replay() == branch


def test_any_text_or_id_can_stand_at_a_branch(tiny_llm):
    g = wild(tiny_llm)
    typed = g.branch(3, "abc", max_tokens=5)
    assert typed.text.startswith("".join(t.text for t in g.tokens[:3]) + "abc") and len(typed.tokens) >= 4
    assert g.branch(-1, g.tokens[-1].id, max_tokens=4).tokens[: len(g.tokens)] == g.tokens[:-1] + (
        g.branch(-1, g.tokens[-1].id, max_tokens=4).tokens[len(g.tokens) - 1],
    )
    assert g.branch(0, "x", max_tokens=1).text.startswith("x")
    behind = g.branch(len(g.tokens), "x", max_tokens=3)  # also where the model has ended its text
    assert behind.tokens[: len(g.tokens)] == g.tokens and behind.tokens[len(g.tokens)].text == "x"
    for index, token in ((21, "a"), (-21, "a"), (0, ""), (0, 10**6), (0, -1)):
        with pytest.raises(OptionError):
            g.branch(index, token)


def test_a_branch_to_the_end_of_the_turn_ends_there(tiny_llm):
    end_id = min(tiny_llm._backend.tokenizer.end_ids)
    g = wild(tiny_llm).branch(4, end_id)
    assert (g.finish_reason, len(g.tokens), g.end.id) == ("stop", 4, end_id)


def test_a_replay_ends_where_the_text_did(tiny_llm):
    stream = tiny_llm.stream("the rain", mode="text", temperature=1.0, max_tokens=30, seed=5)
    for index, _ in enumerate(stream):
        if index == 9:
            stream.steer(max_tokens=5)
    lowered = stream.generation
    assert len(lowered.tokens) >= 10 and lowered.replay() == lowered
    stream = tiny_llm.stream("the rain", mode="text", temperature=1.0, max_tokens=30, seed=5)
    next(stream)
    stream.stop()
    assert len(list(stream)) <= 1  # what was held back of a character
    assert stream.generation.replay() == stream.generation
    ended = wild(tiny_llm).branch(4, min(tiny_llm._backend.tokenizer.end_ids))
    assert ended.finish_reason == "stop" and ended.replay() == ended


def test_branches_of_branches_may_be_as_long_as_the_first(tiny_llm):
    g = wild(tiny_llm, max_tokens=10)
    branch = g.branch(8, "x").branch(2, "y")
    assert branch.sampling.max_tokens == 2 + 1 + 10


def test_the_distribution_behind_a_token_is_what_it_was_sampled_from(tiny_llm):
    g = wild(tiny_llm, temperature=0.9, top_k=40, top_p=0.9)
    for index in (0, 5, len(g.tokens) - 1):
        token, found = g.tokens[index], g.distribution(index, k=300)
        mine = next(a for a in found.top if a.id == token.id)
        assert mine.logprob == pytest.approx(token.sampled_logprob, abs=1e-5)
        assert sum(a.probability for a in found) == pytest.approx(1) and found.kept_tokens == len(found.top)
    assert g.distribution(5, temperature=0).top[0].probability == 1
    assert g.distribution(5, top_k=0, top_p=1.0).kept_tokens == tiny_llm.info.vocabulary_tokens


@pytest.mark.parametrize("penalty", [1.0, 1.4, 0.8])
def test_the_tail_and_the_listed_tokens_together_are_the_whole_distribution(tiny_llm, penalty):
    g = wild(tiny_llm, repetition_penalty=penalty)
    for token in g.tokens:
        listed = token.alternatives
        assert len(listed) + sum(n for n, _ in token.tail.bins) == tiny_llm.info.vocabulary_tokens
        mass = sum(math.exp(a.logprob + a.penalty) for a in listed)
        mass += sum(n * math.exp(mean) for n, mean in token.tail.bins)
        # the mean of a bin stands for its tokens: a little low, since exp is convex
        assert token.sampled_logprob == pytest.approx(token.logprob + token.penalty - math.log(mass), abs=0.01)


def test_kernels_count_a_tail_as_pytorch_does():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 10_001, generator=generator) * 6
    logits[0, :50], logits[1, 7] = -torch.inf, 1e20
    highest = torch.tensor([9.0, 12.0, 40.0])
    ours, theirs = count_tails(logits, highest, machine()), count_tails(logits, highest, None)
    assert torch.equal(ours[..., 0], theirs[..., 0]) and ours[0, :, 0].sum() == 9951
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-2)
    edges = TAIL_SPAN * (torch.arange(TAIL_BINS + 1) / TAIL_BINS) ** 2
    gaps = (highest[2] - logits[2]).clamp(min=0)
    expected = torch.histc(torch.bucketize(gaps, edges[1:-1], right=True).float(), TAIL_BINS, 0, TAIL_BINS - 1)
    assert (ours[2, :, 0] - expected).abs().sum() <= 2  # a logit on an edge may fall to either side


def test_what_is_no_number_is_not_counted_and_writes_nowhere():
    logits = torch.tensor([[math.nan, math.inf, -math.inf, 1.0] * 5000])
    counts = count_tails(logits, torch.tensor([0.0]), machine())[0, :, 0]
    assert counts.sum() in (5000, 10_000)  # plus infinity lies above all, in the first bin or none
