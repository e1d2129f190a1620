"""Given continuations behind many prompts: how likely each of their tokens is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from llm_magic.engine.cache import Sequence as CachedSequence
from llm_magic.engine.cache import usable_tokens
from llm_magic.engine.generate import RunTokens, make_runner, not_numbers, prefill
from llm_magic.engine.model import Decoder

TOGETHER = 16  # prompts whose last states go through the vocabulary's matrix together


@torch.inference_mode()
def score_continuations(
    model: Decoder,
    sequence: CachedSequence,
    prompts: Iterable[list[int]],
    continuations: Sequence[list[int]],
    together: int = TOGETHER,
) -> Iterator[list[list[float]]]:
    """For each prompt, in order: the logprob of each token of each continuation behind it, in nats.

    What a prompt has in common with the one before is not computed again: the sequence goes back to there. Results
    come `together` prompts at a time.
    """
    run = make_runner(model)
    firsts = torch.tensor([ids[0] for ids in continuations], device=model.device)
    states: list[Tensor] = []
    rests: list[list[list[float]]] = []

    def take() -> Iterator[list[list[float]]]:
        logprobs = _logprobs(model, torch.stack(states))[:, firsts].tolist() if states else []
        for of_first, of_rest in zip(logprobs, rests, strict=True):
            yield [[first, *rest] for first, rest in zip(of_first, of_rest, strict=True)]
        states.clear()
        rests.clear()

    for ids in prompts:
        states.append(_go_to(model, run, sequence, ids))
        rests.append([_score_rest(model, run, sequence, continuation) for continuation in continuations])
        if len(states) == together:
            yield from take()
    yield from take()


def _go_to(model: Decoder, run: RunTokens, sequence: CachedSequence, ids: list[int]) -> Tensor:
    """Let the sequence hold exactly `ids`: the state (d,) behind the last of them."""
    sequence.rewind(usable_tokens(sequence, ids))
    for _ in prefill(model, sequence, ids, run):
        pass
    return sequence.hidden


def _score_rest(model: Decoder, run: RunTokens, sequence: CachedSequence, continuation: list[int]) -> list[float]:
    """The logprobs of a continuation's tokens behind its first; nothing is committed, so the sequence stays."""
    if len(continuation) == 1:
        return []
    ids = torch.tensor(continuation, device=model.device)
    logprobs = _logprobs(model, run(ids[None, :-1], sequence.cache)[0])
    return logprobs.gather(-1, ids[1:, None])[:, 0].tolist()


def _logprobs(model: Decoder, hidden: Tensor) -> Tensor:
    """(M, d) -> (M, V)"""
    logits = model.logits(hidden)
    if not logits.best[:, 0].isfinite().all():
        raise not_numbers()
    return logits.all - logits.all.logsumexp(-1, keepdim=True)
