"""One suggestion: the text that the model would go on with, as it grows, and where it had better end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from llm_magic.ghost.context import is_end_of_line, join_cells
from llm_magic.ghost.request import Request
from llm_magic.llm import LLM


def suggest(llm: LLM, request: Request, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[str]:
    """The suggestion so far, each time it has grown; ends when it is no longer wanted."""
    if not request.before.strip() or not (llm.has_infill or is_end_of_line(request.after)):
        return
    before = join_cells(request.cells, request.before, request.context_tokens)
    if not is_wanted():
        return
    settings = {"temperature": 0.0, "repetition_penalty": 1.0, "max_tokens": request.max_tokens}
    stream, repeated = llm.start_infill(before, request.after, **settings)
    shown, text = "", ""
    with contextlib.closing(stream):
        for token in stream:
            is_forced = token.sampled_logprob is None
            if not is_wanted() or (not is_forced and token.probability < request.least_probability):
                break
            text += token.text
            if not text.startswith(repeated[: len(text)]):  # it stands in the middle of a character
                break
            whole = text[len(repeated) :]
            grown = cut_lines(whole, request.max_lines)
            if len(grown) > len(shown):
                yield grown
            shown = grown
            if len(grown) < len(whole):
                break


def cut_lines(text: str, n_lines: int) -> str:
    """The text up to its n-th line that is not blank.

    >>> cut_lines("\\n    return x\\n\\nprint()", 1)
    '\\n    return x'
    """
    end = 0
    for line in text.splitlines(keepends=True):
        end += len(line)
        n_lines -= bool(line.strip())
        if n_lines == 0:
            return text[:end].removesuffix("\n")
    return text
