"""Two generations aligned token by token, with the difference in probability."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from llm_magic.errors import OptionError
from llm_magic.faces import Shown
from llm_magic.frames import import_pandas

if TYPE_CHECKING:
    import pandas

    from llm_magic.generation import Generation, Token

_MAX_BITS = 2**28  # of the table that alignment keeps: 32 MiB

Span = tuple[int, int, int, int]  # first and behind the last token of one, and of the other


@dataclass(frozen=True, slots=True)
class Pair:
    """A place of the alignment: a token of one generation, of the other, or of both; with its index there."""

    one: Token | None
    other: Token | None
    index_one: int | None
    index_other: int | None

    @property
    def is_same(self) -> bool:
        """Whether the same text stands on both sides, to the byte."""
        if self.one is None or self.other is None:
            return False
        return _key(self.one) == _key(self.other)

    @property
    def difference(self) -> float | None:
        """The probability of the other minus that of the one; None where one is missing or has none."""
        if not self._has_both:
            return None
        return self.other.probability - self.one.probability

    @property
    def logprob_difference(self) -> float | None:
        """The same of the logprobs, in nats."""
        if not self._has_both:
            return None
        one, other = self.one.logprob, self.other.logprob
        return 0.0 if one == other else other - one  # minus infinity less itself is not a number

    @property
    def _has_both(self) -> bool:
        return all(token is not None and token.logprob is not None for token in (self.one, self.other))


@dataclass(frozen=True)
class Comparison(Shown):
    """Two generations side by side, of one model or two, with what differs: in words, and token by token."""

    generations: tuple[Generation, Generation]

    def __post_init__(self):
        for value in self.generations:
            if not (hasattr(value, "tokens") and hasattr(value, "sampling")):
                raise OptionError(f"a {type(value).__name__} cannot be compared", "give two generations")

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """All tokens of both sides in their order, each once, aligned.

        From both ends, as far as the texts agree, a token stands beside the one that covers the same bytes; where
        two tokenizers cut the same text at different places, the tokens between stand alone. In the middle
        the longest common subsequence of tokens is aligned; between its tokens, again what covers the same
        bytes, and then one by one what stood instead.
        """
        one, other = (generation.tokens for generation in self.generations)
        return tuple(
            Pair(None if i is None else one[i], None if j is None else other[j], i, j)
            for first, behind, other_first, other_behind in _align(one, other)
            for i, j in zip_longest(range(first, behind), range(other_first, other_behind))
        )

    @cached_property
    def first_difference(self) -> int | None:
        """The index in `pairs` of the first that is not the same on both sides: in the tokens, too."""
        return next((index for index, pair in enumerate(self.pairs) if not pair.is_same), None)

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row for each pair."""
        names = ("text", "logprob", "probability", "rank")
        rows = []
        for pair in self.pairs:
            row: dict[str, Any] = {
                f"{name}_{side}": getattr(token, name, None)
                for name in names
                for side, token in (("one", pair.one), ("other", pair.other))
            }
            rows.append(row | {"difference": pair.difference})
        columns = [f"{name}_{side}" for name in names[:3] for side in ("one", "other")]
        return import_pandas().DataFrame(rows, columns=[*columns, "difference", "rank_one", "rank_other"])

    def __getstate__(self) -> dict[str, Any]:
        """What is saved of a comparison: the generations, from which all else follows."""
        return {"generations": self.generations}


def match_longest(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[tuple[int, int]]:
    """The longest common subsequence, as pairs of indexes; its time does not depend on what repeats.

    Exchanging the two exchanges the indexes, and nothing else.

    >>> match_longest("kitten", "sitting")
    [(1, 1), (2, 2), (3, 3), (5, 5)]
    """
    if other < one:  # of several that are as long, the same is found from both sides
        return [(i, j) for j, i in match_longest(other, one)]
    shorter = min(len(one), len(other))
    first = next((i for i in range(shorter) if one[i] != other[i]), shorter)
    last = next((i for i in range(shorter - first) if one[-1 - i] != other[-1 - i]), shorter - first)
    middle = _match(one[first : len(one) - last], other[first : len(other) - last])
    return [
        *((i, i) for i in range(first)),
        *((first + i, first + j) for i, j in middle),
        *((len(one) - i, len(other) - i) for i in range(last, 0, -1)),
    ]


def _match(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[tuple[int, int]]:
    if not one or not other:
        return []
    if len(one) * len(other) > _MAX_BITS and len(other) > 1:  # in halves: Hirschberg, 10.1145/360825.360861
        middle = len(other) // 2
        ahead, behind = _lengths(one, other[:middle]), _lengths(one[::-1], other[middle:][::-1])[::-1]
        cut = max(range(len(one) + 1), key=lambda i: ahead[i] + behind[i])
        beyond = _match(one[cut:], other[middle:])
        return _match(one[:cut], other[:middle]) + [(cut + i, middle + j) for i, j in beyond]
    rows, i, j, found = list(_rows(one, other)), len(one), len(other), []
    while i and j:
        if rows[j - 1] >> (i - 1) & 1:
            i -= 1
        elif j > 1 and not rows[j - 2] >> (i - 1) & 1:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found.append((i, j))
    return found[::-1]


def _rows(one: Sequence[Hashable], other: Sequence[Hashable]) -> Iterator[int]:
    """A row of the table of lengths for each item of the other: bit i is 0 where item i of one makes it longer.

    Hyyrö: Bit-parallel LCS-length computation revisited (AWOCA 2004).
    """
    places: dict[Hashable, int] = {}
    for i, item in enumerate(one):
        places[item] = places.get(item, 0) | 1 << i
    row = full = (1 << len(one)) - 1
    for item in other:
        hits = row & places.get(item, 0)
        row = (row + hits | row - hits) & full
        yield row


def _lengths(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[int]:
    """How long the common subsequence of the other is with the first 0, 1, 2 … items of one."""
    (row,) = deque(_rows(one, other), maxlen=1)
    return list(accumulate((bit == "0" for bit in reversed(f"{row:0{len(one)}b}")), initial=0))


def _key(token: Token) -> tuple[bytes, str]:
    return token.bytes, token.text


def _align(one: Sequence[Token], other: Sequence[Token]) -> list[Span]:
    """Spans in order that hold all tokens; those of a span belong together one by one."""
    data, other_data = [token.bytes for token in one], [token.bytes for token in other]
    head, (i, i_end, j, j_end), tail = _split(data, other_data, (0, len(one), 0, len(other)))
    matches = match_longest([*map(_key, one[i:i_end])], [*map(_key, other[j:j_end])])
    spans, places = head, [(i + a, j + b) for a, b in matches]
    for at, other_at in [*places, (i_end, j_end)]:
        before, rest, after = _split(data, other_data, (i, at, j, other_at))
        spans += [*before, rest, *after]
        if at < i_end:
            spans.append((at, at + 1, other_at, other_at + 1))
        i, j = at + 1, other_at + 1
    return spans + tail


def _split(one: list[bytes], other: list[bytes], span: Span) -> tuple[list[Span], Span, list[Span]]:
    """What agrees at a span's beginning, what differs, and what agrees at its end."""
    i, i_end, j, j_end = span
    ahead = [(i + a, j + b) for a, b in _joints(one[i:i_end], other[j:j_end])]
    i, j = ahead[-1]
    backward = _joints(*([data[::-1] for data in reversed(part)] for part in (one[i:i_end], other[j:j_end])))
    behind = [(i_end - a, j_end - b) for a, b in reversed(backward)]
    return _cells(ahead), (i, behind[0][0], j, behind[0][1]), _cells(behind)


def _joints(one: list[bytes], other: list[bytes]) -> list[tuple[int, int]]:
    """Where both sides have a token's edge at the same byte, as far as the bytes agree: as counts of tokens."""
    i = j = 0
    joints = [(0, 0)]
    rest = other_rest = b""  # of the tokens taken; what has no counterpart yet is on one side only
    while i < len(one) or j < len(other):
        is_joint = not rest and not other_rest
        if is_joint and one[i : i + 1] == other[j : j + 1]:
            i, j = i + 1, j + 1
        elif is_joint and other[j : j + 1] == [b""]:  # covers nothing: alone, as one's below
            j += 1
        elif not rest and i < len(one):
            rest, i = one[i], i + 1
        elif not other_rest and j < len(other):
            other_rest, j = other[j], j + 1
        else:
            break
        size = min(len(rest), len(other_rest))
        if rest[:size] != other_rest[:size]:
            break
        rest, other_rest = rest[size:], other_rest[size:]
        if not rest and not other_rest:
            joints.append((i, j))
    return joints


def _cells(joints: Sequence[tuple[int, int]]) -> list[Span]:
    """A span for each stretch between joints; of a text cut differently, one for each side."""
    spans: list[Span] = []
    for (i, j), (i_end, j_end) in pairwise(joints):
        if (i_end - i, j_end - j) == (1, 1):
            spans.append((i, i_end, j, j_end))
        else:
            spans += [(i, i_end, j, j), (i_end, i_end, j, j_end)]
    return spans
