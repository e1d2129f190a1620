"""The same code without our kernels: on a GPU where there is one, and on a CPU as a stand-in."""

from __future__ import annotations

import pytest
import torch
from conftest import make_hf_model

import llm_magic
from llm_magic.backends.local import LocalBackend
from llm_magic.llm import LLM
from llm_magic.progress import show_progress
from llm_magic.weights.load import load_model

DEVICES = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


@pytest.fixture(scope="module", params=DEVICES)
def llm(request, tiny_folder):
    if not DEVICES[request.param]:
        pytest.skip(f"this machine has no {request.param} device")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_magic.engine.linear.machine", lambda: None)
        yield LLM(LocalBackend(show_progress("loading", load_model(tiny_folder, "tiny", request.param))))


TEXT = "the rain in the winter"


def test_scores_equal_transformers(llm):
    score, theirs = llm.score(TEXT), make_hf_model()
    ids = torch.tensor([[t.id for t in score.tokens]])
    with torch.inference_mode():
        logprobs = theirs(ids).logits[0, :-1].log_softmax(-1)
    expected = logprobs.gather(-1, ids[0, 1:, None])[:, 0]
    found = torch.tensor([t.logprob for t in score.tokens[1:]])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)  # fp32; a GPU sums in another order
    ranks = (logprobs > expected[:, None]).sum(-1) + 1
    assert [t.rank for t in score.tokens[1:]] == ranks.tolist()
    entropies = torch.distributions.Categorical(logits=logprobs).entropy()
    assert [t.entropy for t in score.tokens[1:]] == pytest.approx(entropies.tolist(), abs=1e-3)


def test_generations_batches_and_prefixes_agree(llm):
    options = {"mode": "text", "temperature": 1.0, "max_tokens": 12}
    alone = [llm(f"{TEXT} {i}", **options) for i in range(3)]
    together = llm.map(TEXT + " {i}", range(3), track=None, **options)
    assert [g.text for g in together] == [g.text for g in alone]
    for one, other in zip(alone, together, strict=True):
        assert [t.logprob for t in one.tokens] == pytest.approx([t.logprob for t in other.tokens], abs=1e-4)
    again = llm(f"{TEXT} 0", **options)
    assert again.cached_tokens == len(again.prompt.ids) and again == alone[0]


def test_a_cache_that_is_switched_off_keeps_nothing(tiny_folder):
    llm = llm_magic.load(tiny_folder, prefix_cache_bytes=0)
    first, second = (llm(TEXT, mode="text", max_tokens=5) for _ in range(2))
    assert second.cached_tokens == 0 and first == second
