"""What looking inside gives: tensors with the texts that they are about. This file loads no torch."""

from __future__ import annotations

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
