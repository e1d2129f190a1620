"""Several generations at once: their next tokens in one call, each row with its own prompt and length.

A row that ends makes room for the next one that waits.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from llm_magic.engine.cache import KVCache, Sequence
from llm_magic.engine.generate import Order, Seen, Step, choose_steps, make_runner
from llm_magic.engine.model import Decoder
from llm_magic.generation import Sampling


@dataclass(slots=True, eq=False)
class Row:
    """One generation of a batch, behind a prefilled sequence. Who reads its steps may end it with `is_done`."""

    sequence: Sequence
    settings: Sampling
    sample: int = 0
    n_made: int = 0
    allowed: bytes | None = None  # of its next token, as in `Order`
    is_done: bool = False


@torch.inference_mode()
def generate_batch(
    model: Decoder, waiting: Iterator[Row], max_rows: int, stop_ids: frozenset[int]
) -> Iterator[list[tuple[Row, Step]]]:
    """Steps of many continuations, up to `max_rows` of them together; `waiting` is asked for a row when there is room.

    Yields, position by position, the rows that run and their steps. A row is the single run with the same settings
    and sample (on a CPU, to the last bit).
    """
    running = list(itertools.islice(waiting, max_rows))
    if not running:
        return
    run, cache = make_runner(model), model.make_cache(batch=len(running))
    seen = [_admit(model, cache, index, row) for index, row in enumerate(running)]
    hidden = torch.stack([row.sequence.hidden for row in running])  # (M, d)
    started = time.perf_counter()
    while running:
        orders = [Order(row.settings, allowed=row.allowed) for row in running]
        steps = choose_steps(model, hidden, seen, orders, [row.sample for row in running])
        ms = 1000 * (time.perf_counter() - started)
        yield [
            (row, dataclasses.replace(step, ms=ms, settings=row.settings))
            for row, step in zip(running, steps, strict=True)
        ]
        started = time.perf_counter()
        for row, step, ids in zip(running, steps, seen, strict=True):
            ids.append(step.id)
            row.n_made += 1
            is_full = row.n_made == row.settings.max_tokens or len(ids) == model.config.context_tokens
            row.is_done = row.is_done or is_full or step.id in stop_ids
        admitted = _refill(model, cache, running, seen, waiting)
        kept = [index for index, row in enumerate(running) if not row.is_done]
        if len(kept) < len(running):
            running, seen = [running[index] for index in kept], [seen[index] for index in kept]
            cache.keep_rows(kept)
        if len(admitted) < len(running):
            hidden = run(torch.stack([ids.latest for ids in seen]), cache)[:, 0].clone()
            cache.commit([row not in admitted for row in running])
        elif running:
            hidden = torch.empty(len(running), model.config.d_model, device=model.device)
        for index, row in enumerate(running):
            if row in admitted:  # its first token comes from its prompt's last state
                hidden[index] = row.sequence.hidden


def _refill(model: Decoder, cache: KVCache, running: list[Row], seen: list[Seen], waiting: Iterator[Row]) -> set[Row]:
    """Put waiting rows in the place of those that are done."""
    admitted = set()
    for index, row in enumerate(running):
        if row.is_done and (fresh := next(waiting, None)) is not None:
            running[index], seen[index] = fresh, _admit(model, cache, index, fresh)
            admitted.add(fresh)
    return admitted


def _admit(model: Decoder, cache: KVCache, index: int, row: Row) -> Seen:
    cache.put_row(index, row.sequence.cache, len(row.sequence.ids))
    return Seen(row.sequence.ids, model.config.context_tokens, model.device)
