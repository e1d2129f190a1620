"""An engine step is a ladder of pure functions; a generation is a generator that yields its steps."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_magic.engine import sampling as ladder
from llm_magic.engine.cache import KVCache, Sequence
from llm_magic.engine.linear import native_kernels
from llm_magic.engine.model import Decoder
from llm_magic.engine.step import Stepper
from llm_magic.engine.vocabulary import Logits
from llm_magic.errors import NumericError
from llm_magic.generation import Sampling

PREFILL_TOKENS = 256  # a prompt goes through the decoder in pieces of this, so that a stop is heard
ALTERNATIVES = 20


@dataclass(frozen=True, slots=True)
class Step:
    """One token in figures: the model's own distribution around it, in nats.

    `top_ids` and `top_logprobs` are the best of the vocabulary, most likely first.
    """

    id: int
    logprob: float
    rank: int
    entropy: float
    top_ids: tuple[int, ...]
    top_logprobs: tuple[float, ...]
    sampled_logprob: float | None = None
    ms: float | None = None


RunTokens = Callable[[Tensor, KVCache], Tensor]


def make_runner(model: Decoder) -> RunTokens:
    """What computes new tokens: ids (B, T) and the cache -> hidden states (B, T, d), valid until the next call.

    Not to be shared between threads. T is 1 if B is not.
    """
    kernels = native_kernels(model.device)
    return model.forward if kernels is None else Stepper(model, kernels).run


@torch.inference_mode()
def prefill(model: Decoder, sequence: Sequence, ids: list[int]) -> Iterator[int]:
    """Compute `ids`, as far as the sequence does not hold them; leaves the last state in `hidden`.

    Yields after each piece how many tokens are done.
    """
    run = make_runner(model)
    while (start := sequence.n_valid) < len(ids):
        end = min(len(ids), start + PREFILL_TOKENS)
        hidden = run(torch.tensor([ids[start:end]], device=model.device), sequence.cache)
        sequence.commit(ids[start:end])
        if end == len(ids):
            sequence.hidden, sequence.n_hidden = hidden[0, -1].clone(), end
        yield end
    assert sequence.n_hidden == len(ids)


def generate(
    model: Decoder, sequence: Sequence, settings: Sampling, stop_ids: frozenset[int], max_tokens: int, sample: int = 0
) -> Iterator[Step]:
    """Steps of one continuation of a prefilled sequence, up to `max_tokens` or the context's end.

    A step that chose one of `stop_ids` is the last. Each token but the last is committed to the
    sequence, so whatever was yielded can be continued, wherever the iteration ended.
    """
    hidden, started, run = sequence.hidden, time.perf_counter(), make_runner(model)
    ids = torch.empty(1, model.config.context_tokens, dtype=torch.long, device=model.device)
    ids[0, : len(sequence.ids)] = torch.tensor(sequence.ids)
    for index in range(1, max_tokens + 1):
        (step,) = _next_steps(model, hidden[None], ids[:, : len(sequence.ids)], settings, [sample])
        yield dataclasses.replace(step, ms=1000 * (time.perf_counter() - started))
        if step.id in stop_ids or index == max_tokens:
            return
        if len(sequence.ids) + 1 >= model.config.context_tokens:
            return
        started = time.perf_counter()
        ids[0, len(sequence.ids)] = step.id
        hidden = advance(sequence, step.id, run)


@torch.inference_mode()
def generate_batch(
    model: Decoder,
    sequence: Sequence,
    settings: Sampling,
    stop_ids: frozenset[int],
    max_tokens: int,
    samples: list[int],
) -> Iterator[list[tuple[int, Step]]]:
    """Steps of several continuations of one prefilled sequence, decoded together, one for each of `samples`.

    Yields for each position the steps of the samples that still run, and then drops those that ended. A
    sample is the single run of the same number (on a CPU, to the last bit).
    """
    n_prompt, running, run = len(sequence.ids), list(samples), make_runner(model)
    cache = sequence.cache.repeat(len(samples), n_prompt)
    hidden = sequence.hidden.expand(len(samples), -1)  # (B, d)
    ids = torch.empty(len(samples), min(n_prompt + max_tokens, model.config.context_tokens), dtype=torch.long)
    ids[:, :n_prompt] = torch.tensor(sequence.ids)
    ids, started = ids.to(model.device), time.perf_counter()
    for position in range(n_prompt, ids.shape[1]):
        steps = _next_steps(model, hidden, ids[:, :position], settings, running)
        ids[:, position] = torch.tensor([step.id for step in steps])
        ms = 1000 * (time.perf_counter() - started)
        yield [(sample, dataclasses.replace(step, ms=ms)) for sample, step in zip(running, steps, strict=True)]
        started = time.perf_counter()
        kept = [row for row, step in enumerate(steps) if step.id not in stop_ids]
        if len(kept) < len(running):
            running, ids = [running[row] for row in kept], ids[kept]
            cache.keep_rows(kept)
        if not running or position + 1 == ids.shape[1]:
            return
        hidden = run(ids[:, position : position + 1], cache)[:, 0]
        cache.commit(1)


@torch.inference_mode()
def advance(sequence: Sequence, token_id: int, run: RunTokens) -> Tensor:
    """Compute one token and commit it: the hidden state (d,) behind it."""
    hidden = run(torch.tensor([[token_id]], device=sequence.cache.device), sequence.cache)
    sequence.commit([token_id])
    return hidden[0, 0]


@torch.inference_mode()
def _next_steps(model: Decoder, hidden: Tensor, seen_ids: Tensor, settings: Sampling, samples: list[int]) -> list[Step]:
    """Choose a token behind each hidden state (M, d); `seen_ids` (M, n) are all before it, `samples` their numbers."""
    logits, position = model.logits(hidden), seen_ids.shape[1]
    chosen = []
    for row, sample in enumerate(samples):
        kept, kept_ids = ladder.filter_logits(logits.all[row], seen_ids[row], settings, logits.best_ids[row])
        chosen.append(ladder.choose(kept, kept_ids, settings.seed, sample, position))
    ids, logprobs = (torch.stack(values) for values in zip(*chosen, strict=True))
    return describe(logits, ids, logprobs)


@torch.inference_mode()
def describe(logits: Logits, ids: Tensor, sampled_logprobs: Tensor | None = None) -> list[Step]:
    """What the model thought of `ids` (M,), one for each row of logits. One transfer to the host."""
    probabilities = logits.all.softmax(-1)  # (M, V)
    top_logits, top_ids = logits.best[:, :ALTERNATIVES], logits.best_ids[:, :ALTERNATIVES]
    # the logarithm of the sum, from the best token's own probability: a second pass over all is not needed
    log_total = (top_logits[:, :1] - probabilities.gather(-1, top_ids[:, :1]).log()).double()  # (M, 1)
    entropy = log_total[:, 0] - torch.linalg.vecdot(probabilities, logits.all)
    own = logits.all.gather(-1, ids[:, None])  # (M, 1)
    # on a CPU the rank is mostly found among the best; elsewhere to ask would be a transfer
    is_among_best = own.device.type == "cpu" and bool((own[:, 0] > logits.best[:, -1]).all())
    rank = ((logits.best if is_among_best else logits.all) > own).sum(-1) + 1
    sampled = torch.full_like(entropy, torch.nan) if sampled_logprobs is None else sampled_logprobs
    figures = torch.stack([ids, (own - log_total)[:, 0], rank, entropy.clamp_min(0), sampled], dim=1)
    table = torch.cat([figures, top_logits - log_total, top_ids], dim=1).tolist()
    n = top_ids.shape[-1]
    return [_read_row(row, n, sampled_logprobs is not None) for row in table]


def _read_row(row: list[float], n_top: int, is_sampled: bool) -> Step:
    token_id, logprob, rank, entropy, sampled_logprob = row[:5]
    if not (math.isfinite(logprob) and math.isfinite(entropy)):
        raise _not_numbers()
    return Step(
        id=int(token_id),
        logprob=logprob,
        rank=int(rank),
        entropy=entropy,
        top_ids=tuple(int(i) for i in row[5 + n_top :]),
        top_logprobs=tuple(row[5 : 5 + n_top]),
        sampled_logprob=sampled_logprob if is_sampled else None,
    )


SCORE_ROWS = 64  # logits of a whole vocabulary are large: so many rows at a time


@torch.inference_mode()
def score(model: Decoder, ids: list[int]) -> Iterator[Step]:
    """A step for each of `ids` but the first, in order: how likely it was behind those before it."""
    cache, run = model.make_cache(), make_runner(model)
    targets = torch.tensor(ids, device=model.device)
    for start in range(0, len(ids), PREFILL_TOKENS):
        end = min(len(ids), start + PREFILL_TOKENS)
        hidden = run(targets[None, start:end], cache)[0]
        cache.commit(end - start)
        for row in range(start, min(end, len(ids) - 1), SCORE_ROWS):
            until = min(row + SCORE_ROWS, end, len(ids) - 1)
            logits = model.logits(hidden[row - start : until - start])
            yield from describe(logits, targets[row + 1 : until + 1])


@torch.inference_mode()
def next_distribution(model: Decoder, hidden: Tensor, k: int) -> tuple[list[int], list[float], float]:
    """The k best ids behind a hidden state (d,), their logprobs, and the entropy of all, in nats."""
    logprobs = model.logits(hidden[None]).all[0].double().log_softmax(-1)
    top, ids = logprobs.topk(min(k, logprobs.shape[-1]))
    entropy = -(logprobs.exp() * logprobs).sum()
    if not math.isfinite(entropy):
        raise _not_numbers()
    return ids.tolist(), top.tolist(), entropy.item()


def _not_numbers() -> NumericError:
    return NumericError("the model's logits are not numbers", "its weights may be damaged; load another copy")
