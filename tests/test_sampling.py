"""Each sampling control against transformers' logits processors; the noise against plain integers."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.engine import sampling as ladder
from llm_magic.errors import OptionError
from llm_magic.generation import Sampling

V = 500


def random_logits(seed=0, n=V):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)) * 3


def theirs(processor, logits, seen=None):
    return processor(None if seen is None else seen[None], logits[None].clone())[0]


def same_survivors(ours, expected):
    return torch.equal(ours > -torch.inf, expected > -torch.inf)


@pytest.mark.parametrize("seed", range(5))
def test_repetition_penalty_equals_transformers(seed):
    logits, seen = random_logits(seed), torch.tensor([3, 7, 7, 499, 3])
    expected = theirs(transformers.RepetitionPenaltyLogitsProcessor(1.3), logits, seen)
    assert torch.equal(ladder.penalise_repetition(logits, seen, 1.3), expected)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 2.0])
def test_temperature_equals_transformers(temperature):
    logits = random_logits()
    assert torch.equal(
        ladder.temper(logits, temperature), theirs(transformers.TemperatureLogitsWarper(temperature), logits)
    )


@pytest.mark.parametrize("k", [1, 5, 499, 500, 1000])
def test_top_k_equals_transformers(k):
    logits = random_logits()
    settings = Sampling(temperature=1.0, top_k=k, top_p=1.0, repetition_penalty=1.0)
    kept, ids = ladder.filter_logits(logits, settings)
    ours = torch.full((V,), -torch.inf).scatter(0, ids, kept)
    assert torch.equal(ours, theirs(transformers.TopKLogitsWarper(k), logits))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_top_p_equals_transformers(p, seed):
    logits = random_logits(seed)
    assert same_survivors(ladder.keep_top_p(logits, p), theirs(transformers.TopPLogitsWarper(p), logits))


@pytest.mark.parametrize("p", [0.001, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("seed", range(5))
def test_min_p_equals_transformers(p, seed):
    logits = random_logits(seed)
    assert same_survivors(ladder.keep_min_p(logits, p), theirs(transformers.MinPLogitsWarper(p), logits))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 0, "top_p": 0.9},
        {"temperature": 0.5, "top_k": 40, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.2},
        {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "min_p": 0.1},
    ],
)
def test_the_whole_ladder_equals_transformers_in_the_same_order(settings):
    settings = Sampling(**settings)
    logits, seen = random_logits(1), torch.tensor([1, 2, 3])
    expected = theirs(transformers.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty), logits, seen)
    expected = theirs(transformers.TemperatureLogitsWarper(settings.temperature), expected)
    if settings.top_k:
        expected = theirs(transformers.TopKLogitsWarper(settings.top_k), expected)
    if settings.top_p < 1:
        expected = theirs(transformers.TopPLogitsWarper(settings.top_p), expected)
    if settings.min_p:
        expected = theirs(transformers.MinPLogitsWarper(settings.min_p), expected)
    kept, ids = ladder.filter_logits(ladder.penalise(logits, seen, settings), settings)
    ours = torch.full((V,), -torch.inf).scatter(0, ids, kept)
    torch.testing.assert_close(ours.softmax(0), expected.softmax(0))


@pytest.mark.parametrize("penalty", [1.0, 1.3, 3.0, 0.7])
@pytest.mark.parametrize("temperature", [0, 0.8])
def test_the_best_at_hand_spare_no_candidate(penalty, temperature):
    for seed in range(20):
        logits = random_logits(seed) - seed / 4
        best_ids, seen = logits.topk(60).indices, random_logits(seed + 100).topk(100).indices
        settings = Sampling(temperature=temperature, top_k=40, repetition_penalty=penalty)
        penalised = ladder.penalise(logits, seen, settings)
        quick = ladder.filter_logits(penalised, settings, best_ids, logits[best_ids[-1]])
        for ours, expected in zip(quick, ladder.filter_logits(penalised, settings), strict=True):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("spread", [0.5, 3.0, 10.0])  # flat: then the nucleus is large, and all are sorted
def test_a_nucleus_among_the_best_is_that_of_all(p, spread):
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * spread
    settings = Sampling(temperature=1.0, top_k=0, top_p=p, min_p=0.01, repetition_penalty=1.0)
    kept, ids = ladder.filter_logits(logits, settings)
    masked = ladder.keep_min_p(ladder.keep_top_p(logits, p), 0.01)
    assert sorted(ids.tolist()) == (masked > -torch.inf).nonzero()[:, 0].tolist()
    assert torch.equal(kept, logits[ids])


def test_temperature_zero_leaves_the_best_after_penalties():
    logits = torch.tensor([1.0, 3.0, 2.9])
    settings = Sampling(temperature=0, repetition_penalty=2.0)
    _, ids = ladder.filter_logits(ladder.penalise(logits, torch.tensor([1]), settings), settings)
    assert ids.tolist() == [2]


def mix(word):
    """SplitMix64's finaliser, as published."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
    return word ^ (word >> 31)


@given(st.integers(0, 2**63 - 1), st.integers(0, 1000), st.integers(0, 10**6), st.integers(0, 2**18))
def test_noise_is_the_published_hash(seed, sample, position, token):
    key = 0
    for word in (seed, sample, position):
        key = mix((key + word + 0x9E3779B97F4A7C15) % 2**64)
    uniform = ((mix((key + token) % 2**64) >> 11) + 0.5) / 2**53
    noise = ladder.gumbel_noise(torch.tensor([token]), seed, sample, position).item()
    assert noise == pytest.approx(-math.log(-math.log(uniform)), rel=1e-12)


def test_a_token_is_chosen_as_often_as_its_probability_says():
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
    ids, n = torch.arange(4), 4000
    counts = torch.zeros(4)
    for seed in range(n):
        chosen, logprob = ladder.choose(logits, ids, seed, 0, 7)
        counts[chosen] += 1
        assert logprob == pytest.approx(logits[chosen].item(), abs=1e-6)
    chi_square = ((counts - n * logits.exp()) ** 2 / (n * logits.exp())).sum()
    assert chi_square < 16.3  # 99.9 % point of chi square with 3 degrees of freedom


def test_seed_sample_and_position_each_change_the_noise():
    ids = torch.arange(100)
    first = ladder.gumbel_noise(ids, 1, 2, 3)
    assert torch.equal(first, ladder.gumbel_noise(ids, 1, 2, 3))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3), (3, 2, 1)):
        assert not torch.equal(first, ladder.gumbel_noise(ids, *other))


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1}, {"temperature": math.nan}, {"temperature": 1e-45}, {"temperature": math.inf},
        {"top_k": -1}, {"top_k": 1.5}, {"top_p": 0}, {"top_p": 1.4}, {"min_p": 1}, {"min_p": -0.1},
        {"max_tokens": 0}, {"max_tokens": True}, {"stop": ""}, {"stop": ("a", "")}, {"stop": (3,)},
        {"seed": -1}, {"seed": 2**63}, {"repetition_penalty": 0}, {"temperature": "hot"},
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_named_with_its_value(bad):
    ((name, value),) = bad.items()
    with pytest.raises(OptionError, match=name):
        Sampling(**bad)


def test_a_top_k_beyond_the_vocabulary_keeps_all():
    kept, _ = ladder.filter_logits(random_logits(), Sampling(top_k=10**6, top_p=1.0))
    assert len(kept) == V
