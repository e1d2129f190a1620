"""What looking inside gives: tensors with the texts that they are about. This file loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_magic.faces import Shown
from llm_magic.frames import import_pandas

if TYPE_CHECKING:
    import pandas
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Lens(Shown):
    """What each layer would say behind each of n positions; layer 0 are the embeddings, the last is the model's word.

    `top_ids`, `top_logprobs`: (L + 1, n, k), the best tokens, most likely first. `kl`: (L + 1, n), KL(output ‖ layer)
    in nats. `ranks`, `logprobs`: (L + 1, n), of the target, or of the model's own choice; rank 1 is best.
    """

    pieces: tuple[str, ...]  # the texts of the tokens at the positions
    positions: tuple[int, ...]
    top_texts: tuple[tuple[str, ...], ...]  # the best token of each layer, behind each position
    targets: tuple[str, ...]  # behind each position, the token whose rank is told
    top_ids: Tensor = field(repr=False)
    top_logprobs: Tensor = field(repr=False)
    kl: Tensor = field(repr=False)
    ranks: Tensor = field(repr=False)
    logprobs: Tensor = field(repr=False)
    model: str = ""

    @property
    def n_layers(self) -> int:
        return len(self.top_texts) - 1

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row for each layer and position."""
        rows = [
            {
                "layer": layer,
                "position": position,
                "token": self.pieces[column],
                "next": self.top_texts[layer][column],
                "probability": self.top_logprobs[layer, column, 0].exp().item(),
                "kl": self.kl[layer, column].item(),
                "target": self.targets[column],
                "rank": int(self.ranks[layer, column]),
                "target_probability": self.logprobs[layer, column].exp().item(),
            }
            for layer in range(self.n_layers + 1)
            for column, position in enumerate(self.positions)
        ]
        return import_pandas().DataFrame(rows)


@dataclass(frozen=True, eq=False)
class Attention(Shown):
    """Where each token of a text took information from: queries (L, H, T, D) and keys (L, K, T, D), of which a head's
    weights are made when they are asked for. Query head h reads key head h K / H (arXiv:2305.13245).
    """

    pieces: tuple[str, ...]
    queries: Tensor = field(repr=False)
    keys: Tensor = field(repr=False)
    model: str = ""
    shown: tuple[int, int] | None = None  # the layer and head that its picture shows large

    @property
    def n_layers(self) -> int:
        return self.queries.shape[0]

    @property
    def n_heads(self) -> int:
        return self.queries.shape[1]

    @property
    def n_kv_heads(self) -> int:
        return self.keys.shape[1]

    def heads(self, layer: int, has_sink: bool = True) -> Tensor:
        """(H, T, T): softmax(q k / sqrt(D)), causal (arXiv:1706.03762). A row is a token that looks, and sums to 1.

        Without the sink, the first token is left out, which many heads look at when they look at nothing.
        """
        queries = self.queries[layer]
        keys = self.keys[layer].repeat_interleave(self.n_heads // self.n_kv_heads, dim=0)  # (H, T, D)
        scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
        is_past = scores.new_ones(scores.shape[-2:]).tril().bool()
        if not has_sink:
            is_past[1:, 0] = False
        return scores.masked_fill(~is_past, float("-inf")).softmax(-1)

    def head(self, layer: int, head: int, has_sink: bool = True) -> Tensor:
        """(T, T), one head's weights."""
        return self.heads(layer, has_sink)[head]

    def measure_shares(self) -> Tensor:
        """(L, H, 3): how much of a head's attention goes to the first token, to the one before, to the token itself,
        as a mean over all tokens but the first two."""
        found = []
        for layer in range(self.n_layers):
            weights = self.heads(layer)[:, 2:]
            before, own = weights.diagonal(1, -2, -1), weights.diagonal(2, -2, -1)
            found += [weights[..., 0].mean(-1), before.mean(-1), own.mean(-1)]
        shape = (self.n_layers, 3, self.n_heads)
        return found[0].new_tensor([share.tolist() for share in found]).view(shape).transpose(1, 2)

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row for each head: the shares of the first token, the one before, and the token itself."""
        rows = [
            {"layer": layer, "head": head, "kv_head": head * self.n_kv_heads // self.n_heads}
            | dict(zip(("first", "previous", "own"), shares, strict=True))
            for layer, heads in enumerate(self.measure_shares().tolist())
            for head, shares in enumerate(heads)
        ]
        return import_pandas().DataFrame(rows)


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A token, and the cosine of its embedding with another's: 1 is the same direction."""

    id: int
    text: str
    cosine: float


@dataclass(frozen=True)
class Neighbors(Shown):
    """The tokens whose embeddings lie nearest to that of one, the nearest first."""

    text: str
    neighbors: tuple[Neighbor, ...]
    model: str

    def __iter__(self) -> Iterator[Neighbor]:
        return iter(self.neighbors)

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row for each neighbor."""
        return import_pandas().DataFrame([{"id": n.id, "text": n.text, "cosine": n.cosine} for n in self.neighbors])
