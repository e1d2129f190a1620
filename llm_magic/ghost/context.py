"""What stands before the cursor and around it, cut to a budget in such a way that the model's cache stays warm.

Each key changes the end of the text alone, so what is left of its beginning must not move with each key: whole cells
are dropped, and of a long cell whole blocks of lines.
"""

from __future__ import annotations

from collections.abc import Sequence

CHARACTERS_A_TOKEN = 3  # of code, at least: a budget of tokens is kept without counting them
BLOCK_LINES = 32
_CLOSERS = frozenset(" \t)]}\"':,;")


def join_cells(cells: Sequence[str], before: str, budget_tokens: int) -> str:
    """The text before the cursor: as much of the cells above as the budget holds, then the cell's own.

    >>> join_cells(["import os", "x = 1"], "x +", budget_tokens=100)
    'import os\\n\\nx = 1\\n\\nx +'
    >>> join_cells(["import os", "x = 1"], "x +", budget_tokens=5)
    'x = 1\\n\\nx +'
    """
    budget = CHARACTERS_A_TOKEN * budget_tokens
    lines = before.splitlines(keepends=True)
    while len(before) > budget and len(lines) > BLOCK_LINES:
        lines = lines[BLOCK_LINES:]
        before = "".join(lines)
    before = before[-budget:]
    # what the cell itself will still take is not given to those above: they would be dropped one by one as it grows
    left = budget * 3 // 4 - (len(before) if len(before) > budget // 4 else 0)
    kept: list[str] = []
    for cell in reversed(cells):
        left -= len(cell)
        if left < 0:
            break
        kept.insert(0, cell)
    return "\n\n".join([*(cell.strip("\n") for cell in kept if cell.strip()), before])


def is_end_of_line(after: str) -> bool:
    """Whether nothing but closing brackets and quotes stands between the cursor and the end of its line."""
    return _CLOSERS.issuperset(after.split("\n", 1)[0])
