"""What is asked of the model at a cursor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """`cells` are those above, `before` and `after` the text of the cursor's own."""

    before: str
    after: str = ""
    cells: tuple[str, ...] = ()
    max_tokens: int = 24
    max_lines: int = 1
    context_tokens: int = 500
    least_probability: float = 0.1  # of a token, or the suggestion ends before it
