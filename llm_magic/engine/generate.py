"""An engine step is a ladder of pure functions; a generation is a generator that yields its steps."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
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
from llm_magic.engine.vocabulary import Logits, count_tails
from llm_magic.errors import NumericError
from llm_magic.generation import Sampling, Tail

PREFILL_TOKENS = 256  # a prompt goes through the decoder in pieces of this, so that a stop is heard
ALTERNATIVES = 20


@dataclass(frozen=True, slots=True)
class Step:
    """One token in figures: the model's own distribution around it, in nats.

    `top_ids` and `top_logprobs` are the best of the vocabulary, most likely first; `penalty` and `top_penalties` are
    what penalties added to their logits, minus infinity for what was not allowed. `sampled_logprob` is None where the
    token was not sampled, `constrained_logprob` where all tokens were allowed.
    """

    id: int
    logprob: float
    rank: int
    entropy: float
    top_ids: tuple[int, ...]
    top_logprobs: tuple[float, ...]
    top_penalties: tuple[float, ...]
    penalty: float
    tail: Tail
    sampled_logprob: float | None = None
    ms: float | None = None
    settings: Sampling | None = None
    constrained_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """How the next token is chosen: the settings, its id where it is not to be chosen, and what is allowed: one bit
    for each id, the lowest first, where not all are."""

    settings: Sampling
    forced_id: int | None = None
    allowed: bytes | None = None


Plan = Callable[[int], Order]  # of the token at an index of the text
RunTokens = Callable[[Tensor, KVCache], Tensor]


def make_runner(model: Decoder) -> RunTokens:
    """What computes new tokens: ids (B, T) and the cache -> hidden states (B, T, d), valid until the next call.

    Not to be shared between threads. T is 1 if B is not.
    """
    kernels = native_kernels(model.device)
    return model.forward if kernels is None else Stepper(model, kernels).run


@torch.inference_mode()
def prefill(model: Decoder, sequence: Sequence, ids: list[int], run: RunTokens | None = None) -> Iterator[int]:
    """Compute `ids`, as far as the sequence does not hold them; leaves the last state in `hidden`.

    Yields after each piece how many tokens are done.
    """
    run = run or make_runner(model)
    while (start := sequence.n_valid) < len(ids):
        end = min(len(ids), start + PREFILL_TOKENS)
        hidden = run(torch.tensor([ids[start:end]], device=model.device), sequence.cache)
        sequence.commit(ids[start:end])
        if end == len(ids):
            sequence.hidden, sequence.n_hidden = hidden[0, -1].clone(), end
        yield end
    assert sequence.n_hidden == len(ids)


def generate(
    model: Decoder,
    sequence: Sequence,
    plan: Plan,
    stop_ids: frozenset[int],
    first_index: int = 0,
    sample: int = 0,
) -> Iterator[Step]:
    """Steps of one continuation of a prefilled sequence, up to the context's end.

    The plan is asked before each step, so that settings may change on the way; `first_index` is that of the first
    token. A step that chose one of `stop_ids` is the last. Each token but the last is committed to the sequence, so
    whatever was yielded can be continued, wherever the iteration ended.
    """
    hidden, started, run = sequence.hidden, time.perf_counter(), make_runner(model)
    seen = Seen(sequence.ids, model.config.context_tokens, model.device)
    for index in itertools.count(first_index):
        order = plan(index)
        (step,) = choose_steps(model, hidden[None], [seen], [order], [sample])
        yield dataclasses.replace(step, ms=1000 * (time.perf_counter() - started), settings=order.settings)
        if step.id in stop_ids:
            return
        if len(sequence.ids) + 1 >= model.config.context_tokens:
            return
        started = time.perf_counter()
        seen.append(step.id)
        hidden = advance(sequence, step.id, run)


class Seen:
    """The ids before the next token, in memory for a whole context."""

    def __init__(self, ids: list[int], context_tokens: int, device: torch.device):
        self._all = torch.empty(context_tokens, dtype=torch.long, device=device)
        self._all[: len(ids)] = torch.tensor(ids)
        self._length = len(ids)

    def __len__(self) -> int:
        return self._length

    def append(self, token_id: int) -> None:
        self._all[self._length] = token_id
        self._length += 1

    @property
    def ids(self) -> Tensor:
        """(n,)"""
        return self._all[: self._length]

    @property
    def latest(self) -> Tensor:
        """(1,)"""
        return self._all[self._length - 1 : self._length]


@torch.inference_mode()
def advance(sequence: Sequence, token_id: int, run: RunTokens) -> Tensor:
    """Compute one token and commit it: the hidden state (d,) behind it."""
    hidden = run(torch.tensor([[token_id]], device=sequence.cache.device), sequence.cache)
    sequence.commit([token_id])
    return hidden[0, 0]


@torch.inference_mode()
def choose_steps(
    model: Decoder, hidden: Tensor, seen: list[Seen], orders: list[Order], samples: list[int]
) -> list[Step]:
    """Choose a token behind each hidden state (M, d), each with what its row has seen, its order and its number."""
    logits = model.logits(hidden)
    if not logits.best[:, 0].isfinite().all():
        raise not_numbers()
    chosen, penalised, constrained = [], [], []
    for row, (before, order, sample) in enumerate(zip(seen, orders, samples, strict=True)):
        own = logits.all[row]
        adjusted = ladder.penalise(own, before.ids, order.settings)
        if order.allowed is not None:
            mask = ladder.read_mask(order.allowed, len(own)).to(hidden.device)
            is_same, own = adjusted is own, ladder.mask_logits(own, mask)
            adjusted = own if is_same else ladder.mask_logits(adjusted, mask)
        penalised.append(adjusted)
        if order.forced_id is not None:
            chosen.append((torch.tensor(order.forced_id, device=hidden.device), torch.tensor(math.nan)))
        else:
            kept = ladder.filter_logits(adjusted, order.settings, logits.best_ids[row], logits.best[row, -1])
            chosen.append(ladder.choose(*kept, order.settings.seed, sample, len(before)))
        is_free = order.allowed is None
        constrained.append(None if is_free else (own[chosen[-1][0]] - own.logsumexp(-1)).item())
    ids, logprobs = (torch.stack(values).to(hidden.device) for values in zip(*chosen, strict=True))
    steps = describe(logits, ids, torch.stack(penalised) if len(penalised) > 1 else penalised[0][None], logprobs)
    return [
        step if logprob is None else dataclasses.replace(step, constrained_logprob=logprob)
        for step, logprob in zip(steps, constrained, strict=True)
    ]


@torch.inference_mode()
def describe(
    logits: Logits, ids: Tensor, penalised: Tensor | None = None, sampled_logprobs: Tensor | None = None
) -> list[Step]:
    """What the model thought of `ids` (M,), one for each row of logits; `penalised` (M, V) are these behind the
    penalties. Both may be overwritten. NaN among `sampled_logprobs` stands for a token that was not sampled."""
    penalised = logits.all if penalised is None else penalised
    n_top = min(ALTERNATIVES, logits.best.shape[1])
    top, top_ids = logits.best[:, :n_top], logits.best_ids[:, :n_top]
    listed = torch.cat([ids[:, None], top_ids], dim=1)  # (M, 1 + n)
    own = logits.all.gather(-1, listed)
    penalties = penalised.gather(-1, listed) - own
    sampled = torch.full_like(own[:, :1], math.nan) if sampled_logprobs is None else sampled_logprobs[:, None]
    # ids are whole numbers below 2^24, so fp32 holds them. One transfer to the host
    table = torch.cat([sampled, logits.summarise(ids), listed, own, penalties], dim=1).tolist()
    penalised.scatter_(-1, top_ids, -torch.inf)
    tails = count_tails(penalised, top[:, -1], logits.kernels).cpu()
    row_bytes = tails[0].nbytes
    tail_data = [ctypes.string_at(tails.data_ptr() + i * row_bytes, row_bytes) for i in range(len(tails))]
    return [_read_row(row, data) for row, data in zip(table, tail_data, strict=True)]


def _read_row(row: list[float], tail_data: bytes) -> Step:
    sampled_logprob, highest, total, weighted, n_above = row[:5]
    if not (math.isfinite(weighted) and math.isfinite(highest)):
        raise not_numbers()
    n = (len(row) - 5) // 3  # the token itself, then the best
    ids, logits, penalties = row[5 : 5 + n], row[5 + n : 5 + 2 * n], row[5 + 2 * n :]
    log_total = highest + math.log(total)
    return Step(
        id=int(ids[0]),
        logprob=logits[0] - log_total,
        rank=int(n_above) + 1,
        entropy=max(0.0, math.log(total) - weighted / total),
        top_ids=tuple(map(int, ids[1:])),
        top_logprobs=tuple([logit - log_total for logit in logits[1:]]),
        top_penalties=tuple(penalties[1:]),
        penalty=penalties[0],
        tail=Tail(logits[-1] - log_total, tail_data),
        sampled_logprob=None if math.isnan(sampled_logprob) else sampled_logprob,
    )


SCORE_TOKENS = 64  # logits of a whole vocabulary are large: so many rows at a time


@torch.inference_mode()
def score(model: Decoder, sequence: Sequence, ids: list[int]) -> Iterator[Step]:
    """A step for each of `ids`, in order: how likely it was behind the prefilled sequence and those before it.

    Where the sequence is empty, nothing stands before the first of them, and it gets none. The sequence goes on
    by all of them.
    """
    run, targets = make_runner(model), torch.tensor(ids, device=model.device)
    state = sequence.hidden[None] if sequence.ids else torch.empty(0, model.config.d_model, device=model.device)
    n_skipped = 0 if sequence.ids else 1
    for start in range(0, len(ids), SCORE_TOKENS):
        end = min(len(ids), start + SCORE_TOKENS)
        hidden = run(targets[None, start:end], sequence.cache)[0]
        sequence.commit(ids[start:end])
        states = torch.cat([state, hidden])  # that of the last one belongs to the next piece
        state = states[-1:].clone()
        if len(states) > 1:
            yield from describe(model.logits(states[:-1]), targets[max(start, n_skipped) : end])
    sequence.hidden, sequence.n_hidden = state[0], len(sequence.ids)


@torch.inference_mode()
def next_distribution(model: Decoder, hidden: Tensor, k: int) -> tuple[list[int], list[float], float]:
    """The k best ids behind a hidden state (d,), their logprobs, and the entropy of all, in nats."""
    logprobs = model.logits(hidden[None]).all[0].double().log_softmax(-1)
    top, ids = logprobs.topk(min(k, logprobs.shape[-1]))
    entropy = torch.special.entr(logprobs.exp()).sum()
    if not math.isfinite(entropy):
        raise not_numbers()
    return ids.tolist(), top.tolist(), entropy.item()


@torch.inference_mode()
def kept_distribution(
    model: Decoder, sequence: Sequence, settings: Sampling, allowed: bytes | None = None
) -> tuple[list[int], list[float], float]:
    """What penalties, temperature and filters leave of the `allowed` tokens behind a prefilled sequence: ids and
    logprobs, most likely first, and the entropy in nats."""
    logits, seen = model.logits(sequence.hidden[None]), torch.tensor(sequence.ids, device=model.device)
    penalised = ladder.penalise(logits.all[0], seen, settings)
    if allowed is not None:
        penalised = ladder.mask_logits(penalised, ladder.read_mask(allowed, len(penalised)).to(model.device))
    kept, ids = ladder.filter_logits(penalised, settings)
    logprobs, order = kept.double().log_softmax(-1).sort(descending=True, stable=True)
    n_kept = int(logprobs.isfinite().sum())
    logprobs, order = logprobs[:n_kept], order[:n_kept]
    entropy = torch.special.entr(logprobs.exp()).sum()
    if not n_kept or not math.isfinite(entropy):
        raise not_numbers()
    return ids[order].tolist(), logprobs.tolist(), entropy.item()


def not_numbers() -> NumericError:
    """What is raised where logits are NaN or infinite."""
    return NumericError("the model's logits are not numbers", "its weights may be damaged; load another copy")
