"""One forward pass of a text, and what was asked for of it: the decoder's own tensors, at chosen places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llm_magic.engine.config import ModelConfig
from llm_magic.engine.model import Decoder, Stage
from llm_magic.errors import ContextOverflow, OptionError, nearest

PARTS = ("residual", "attention", "mlp", "active", "queries", "keys")
LIMIT_BYTES = 2 << 30


@dataclass(frozen=True, eq=False)
class Trace:
    """Tensors in fp32 by their names, a row for each of `layers`; `residual` has one more in front, the embeddings.

    `residual`, `attention`, `mlp`: (L, n, d) at the n `positions`: behind a layer, and what its attention and its MLP
    added. `active`: (L, n, F), the MLP's activations. `queries`: (L, H, n, D) and `keys`: (L, K, T, D), rotated; keys
    of all tokens.
    """

    ids: tuple[int, ...]
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    tensors: dict[str, Tensor] = field(repr=False)

    def __getitem__(self, part: str) -> Tensor:
        if part not in self.tensors:
            raise OptionError(f"{part!r} was not traced", f"it has {', '.join(self.tensors)}")
        return self.tensors[part]

    @property
    def n_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def count_bytes(config: ModelConfig, n_tokens: int, n_positions: int, n_layers: int, parts: Sequence[str]) -> int:
    """What a trace of these parts holds."""
    width = config.d_model
    floats = {
        "residual": (n_layers + 1) * n_positions * width,
        "attention": n_layers * n_positions * width,
        "mlp": n_layers * n_positions * width,
        "active": n_layers * n_positions * config.d_ff,
        "queries": n_layers * n_positions * config.n_heads * config.head_dim,
        "keys": n_layers * n_tokens * config.n_kv_heads * config.head_dim,
    }
    return 4 * sum(floats[part] for part in parts)


@torch.inference_mode()
def trace(
    model: Decoder,
    ids: Sequence[int],
    parts: Sequence[str] = ("residual",),
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> Trace:
    """Run a text through the decoder and keep what is asked for; all layers and positions unless said otherwise.

    Raises before anything is computed where it would hold more than `limit_bytes`.
    """
    c = model.config
    for part in parts:
        if part not in PARTS:
            raise OptionError(f"there is no part {part!r} to trace", f"the nearest are {nearest(part, PARTS)}")
    if not 0 < len(ids) <= c.context_tokens:
        n, most = len(ids), c.context_tokens
        raise ContextOverflow(f"the text has {n:,} tokens and the context holds {most:,}", "shorten it")
    kept_layers = _check("layer", range(c.n_layers) if layers is None else layers, c.n_layers)
    kept_positions = _check("position", range(len(ids)) if positions is None else positions, len(ids))
    n_bytes = count_bytes(c, len(ids), len(kept_positions), len(kept_layers), parts)
    if n_bytes > limit_bytes:
        raise OptionError(
            f"the trace would hold {n_bytes / 1e6:,.0f} MB, more than {limit_bytes / 1e6:,.0f} MB",
            "ask for fewer parts, layers or positions",
        )
    rows = torch.tensor(kept_positions, device=model.device)
    taken: dict[str, list[Tensor]] = {part: [] for part in parts}
    stages = model.run_layers(torch.tensor([list(ids)], device=model.device), model.make_cache())
    for layer, stage in enumerate(stages, start=-1):
        if layer in kept_layers or (layer == -1 and "residual" in parts):
            _take(taken, stage, rows, is_embedding=layer == -1)
    return Trace(tuple(ids), kept_layers, kept_positions, {part: torch.stack(taken[part]) for part in parts})


def _take(taken: dict[str, list[Tensor]], stage: Stage, rows: Tensor, is_embedding: bool) -> None:
    for part, kept in taken.items():
        if is_embedding and part != "residual":
            continue
        value = getattr(stage, part)
        if part == "keys":
            kept.append(value[0].clone())
        else:
            kept.append((value[0][:, rows] if part == "queries" else value[rows]).clone())


def _check(kind: str, wanted: Sequence[int], n: int) -> tuple[int, ...]:
    """Indexes in their order, counted from the end where they are negative."""
    found = sorted({index + n if index < 0 else index for index in wanted})
    if not found or not 0 <= found[0] <= found[-1] < n:
        raise OptionError(f"there is no {kind} {list(wanted)[:5]}", f"there are {n}, counted from 0")
    return tuple(found)
