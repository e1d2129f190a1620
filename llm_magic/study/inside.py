"""Looking inside as methods of a model: a trace of its tensors, the logit lens, attention, neighbors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_magic.errors import OptionError
from llm_magic.generation import Generation
from llm_magic.study import trace as tracing
from llm_magic.study.embeddings import find_neighbors
from llm_magic.study.lens import measure_lens, name_targets
from llm_magic.study.trace import Trace
from llm_magic.study.values import Attention, Lens, Neighbor, Neighbors

if TYPE_CHECKING:
    from llm_magic.llm import LLM

LENS_POSITIONS = 32


def read_ids(llm: LLM, text: str | Generation) -> list[int]:
    """The ids of a raw text, or of a generation with its prompt."""
    if isinstance(text, Generation):
        return [*text.prompt.ids, *(token.id for token in text.tokens)]
    if not text:
        raise OptionError("the text is empty", "give one to look into")
    return llm.encode(text)


def trace(
    llm: LLM,
    text: str | Generation,
    parts: Sequence[str] = ("residual",),
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    limit_bytes: int = tracing.LIMIT_BYTES,
) -> Trace:
    """The decoder's own tensors of a text, from one forward pass: `residual`, `attention`, `mlp`, `active`, `queries`,
    `keys`; see `Trace` for their shapes. Raises before anything is computed where they would hold too much."""
    return tracing.trace(llm.decoder, read_ids(llm, text), parts, layers, positions, limit_bytes)


def lens(
    llm: LLM,
    text: str | Generation,
    *,
    positions: Sequence[int] | None = None,
    target: str | None = None,
    k: int = 10,
) -> Lens:
    """What each layer would say behind the positions of a text, the last 32 unless said otherwise.

    `target` is a token whose rank is told through the layers; without, it is the model's own choice at each position.
    """
    ids = read_ids(llm, text)
    wanted = range(max(0, len(ids) - LENS_POSITIONS), len(ids)) if positions is None else positions
    traced = tracing.trace(llm.decoder, ids, positions=wanted)
    target_id = None if target is None else read_target(llm, target)
    figures = measure_lens(llm.decoder, traced, k, target_id)
    top_ids = figures[0]
    return Lens(
        tuple(llm.name_token(ids[position]) for position in traced.positions),
        traced.positions,
        tuple(tuple(map(llm.name_token, row)) for row in top_ids[:, :, 0].tolist()),
        tuple(map(llm.name_token, name_targets(target_id, top_ids))),
        *figures,
        model=llm.name,
    )


def attention(llm: LLM, text: str | Generation, *, layer: int | None = None, head: int | None = None) -> Attention:
    """Where each token of a text took information from; `layer` and `head` choose the one that is shown large."""
    ids = read_ids(llm, text)
    traced = tracing.trace(llm.decoder, ids, ("queries", "keys"))
    config, shown = llm.decoder.config, None
    if layer is not None or head is not None:
        shown = (layer or 0, head or 0)
        for name, index, n in (("layer", shown[0], config.n_layers), ("head", shown[1], config.n_heads)):
            if not 0 <= index < n:
                raise OptionError(f"there is no {name} {index}", f"there are {n}, counted from 0")
    pieces = tuple(map(llm.name_token, ids))
    return Attention(pieces, traced["queries"], traced["keys"], llm.name, shown)


def neighbors(llm: LLM, word: str, k: int = 10) -> Neighbors:
    """The tokens whose embeddings lie nearest to that of a word: as one token, mostly behind a space."""
    options = [ids for text in (word, f" {word}") if len(ids := llm.tokenize(text).ids) == 1]
    if not options:
        raise OptionError(
            f"{word!r} has {len(llm.tokenize(word).ids)} tokens", "give a word that is one: %llm tokens tells"
        )
    token_id = options[-1][0]  # behind a space words mostly stand
    ids, cosines = find_neighbors(llm.decoder, token_id, k)
    found = tuple(Neighbor(i, llm.name_token(i), cosine) for i, cosine in zip(ids, cosines, strict=True))
    return Neighbors(llm.name_token(token_id), found, llm.name)


def read_target(llm: LLM, text: str) -> int:
    """The one token of a text; raises where it has more."""
    ids = llm.tokenize(text).ids
    if len(ids) != 1:
        raise OptionError(f"{text!r} has {len(ids)} tokens", "give a target of one token, mostly with a space in front")
    return ids[0]
