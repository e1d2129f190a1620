"""What to put before a model so that it writes what stands at a cursor.

Between two texts, where the model was trained for it: its own tokens mark the beginning, the end and the middle
(Bavarian et al., 2022, arXiv:2207.14255; the order prefix, suffix, middle). Else behind the first text alone.

A cursor often stands inside a token: of "import nump" the last one is "p", behind which a model rarely goes on with
"y". So the last token is taken back, and the best one that begins with its text is put in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_magic.text.tokenizer import Tokenizer

# prefix, suffix, middle, as models' tokenizers spell them
_MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
)
MAX_AFTER_CHARACTERS = 600
N_CANDIDATES = 512


def find_marks(special: Mapping[str, int]) -> tuple[int, int, int] | None:
    """The ids of the tokens that mark the beginning, the end and the middle, if the model has them."""
    for marks in _MARKS:
        if all(mark in special for mark in marks):
            return tuple(special[mark] for mark in marks)
    return None


def infill_ids(tokenizer: Tokenizer, before: str, after: str) -> tuple[list[int], list[int]]:
    """The ids of the text before the cursor, with all marks, and those that come behind it."""
    marks = find_marks(tokenizer.special)
    ids = tokenizer.encode(before)
    if marks is None:
        return [*tokenizer.bos_ids, *ids], []
    prefix, suffix, middle = marks
    return [*tokenizer.bos_ids, prefix, *ids], [suffix, *tokenizer.encode(after[:MAX_AFTER_CHARACTERS]), middle]


def best_completion(tokenizer: Tokenizer, ids: Sequence[int], taken_back: int) -> int:
    """Of ids, the best first, the one that begins with the text of the token that was taken back; or that itself."""
    start = tokenizer.bytes_of(taken_back)
    longer = (i for i in ids if i not in tokenizer.special_ids and tokenizer.bytes_of(i).startswith(start))
    return next(longer, taken_back)
