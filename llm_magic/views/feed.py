"""Tokens to messages for a page: a record of 32-bit words each; texts of ids and settings are sent once."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_magic.generation import TAIL_BINS, Sampling, Token
from llm_magic.views.safe import show_controls

LISTED = 20
# id, logprob, sampled logprob, penalty, rank, entropy, number of its settings, how many are listed, highest of the tail
_HEAD = struct.Struct("<i3fifiif")
_LISTED = struct.Struct(f"<{LISTED}i{2 * LISTED}f")
RECORD_BYTES = _HEAD.size + 8 * TAIL_BINS + _LISTED.size
_NO_TAIL = bytes(8 * TAIL_BINS)


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one text, from the one at `first` on."""

    key: int
    first: int
    tokens: Sequence[Token]


class Feed:
    """What a page knows already, so that only news are sent."""

    def __init__(self):
        self._words: dict[int, str] = {}
        self._settings: list[Sampling] = []

    def news(self, parts: Sequence[Part]) -> tuple[dict[str, Any], bytes]:
        """Header and records of more tokens."""
        n_words, n_settings = len(self._words), len(self._settings)
        records = b"".join(self._encode(token) for part in parts for token in part.tokens)
        return self._header(parts, n_words, n_settings), records

    def snapshot(self, parts: Sequence[Part]) -> tuple[dict[str, Any], bytes]:
        """The same with all that was ever sent, for a page that knows nothing."""
        records = b"".join(self._encode(token) for part in parts for token in part.tokens)
        return self._header(parts, 0, 0), records

    def _header(self, parts: Sequence[Part], n_words: int, n_settings: int) -> dict[str, Any]:
        return {
            "parts": [
                {"node": p.key, "first": p.first, "texts": [show_controls(token.text) for token in p.tokens]}
                for p in parts
            ],
            "words": list(self._words.items())[n_words:],
            "settings": list(map(dataclasses.asdict, self._settings[n_settings:])),
            "first_setting": n_settings,
        }

    def _encode(self, token: Token) -> bytes:
        listed, words = token.alternatives[:LISTED], self._words
        for other in listed:
            if other.id not in words:
                words[other.id] = show_controls(other.text)
        head = _HEAD.pack(
            token.id,
            _number(token.logprob),
            _number(token.sampled_logprob),
            token.penalty,
            token.rank or 0,
            token.entropy or 0.0,
            -1 if token.sampling is None else self._setting_number(token.sampling),
            len(listed),
            token.tail.highest if token.tail else 0.0,
        )
        filled = (0,) * (LISTED - len(listed))
        columns = _LISTED.pack(
            *[other.id for other in listed], *filled, *[other.logprob for other in listed], *filled,
            *[other.penalty for other in listed], *filled,
        )  # fmt: skip
        return head + (token.tail.data if token.tail else _NO_TAIL) + columns

    def _setting_number(self, sampling: Sampling) -> int:
        settings = self._settings
        if settings and settings[-1] is sampling:  # nearly always
            return len(settings) - 1
        if sampling not in settings:
            settings.append(sampling)
        return settings.index(sampling)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
