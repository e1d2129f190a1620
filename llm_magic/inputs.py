"""Lines with a prompt reach the magic as they were typed.

IPython takes a line that ends in `?` for a request for help, and its tokenizer loses its way at a
quote or bracket that is not closed. So `%llm …` lines are turned into calls before it looks at them.
"""

from __future__ import annotations

import re

# `%llm PROMPT`, `x = %llm PROMPT` or `%time %llm PROMPT`, at any indentation; `%llm?` stays a request for help
_TARGET = r"[^\W\d][^=!%?#]*=(?!=)[ \t]*"
_OUTER = r"%\w+[ \t]+(?=%llm)"
_PROMPT = re.compile(rf"(?P<indent>\s*)(?P<start>(?:{_TARGET})?)(?P<outer>(?:{_OUTER})?)%llm[ \t]+(?P<rest>\S.*)")
_SPECIAL = re.compile(rf"\s*[!%?]|\s*{_TARGET}[!%]")
_TRIPLE = re.compile(r"'''|\"\"\"|#|'|\"|\\.")


def call_prompts(lines: list[str]) -> list[str]:
    """A cell's lines with each prompt line as a call of the magic; what stands in strings is left alone.

    >>> call_prompts(["x = %llm what's (up?\\n"])
    ['x = get_ipython().run_line_magic(\\'llm\\', "what\\'s (up?")\\n']
    """
    result: list[str] = []
    open_quote = ""
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        match = None if open_quote else _PROMPT.match(line)
        if match is None:
            if open_quote or not _SPECIAL.match(line):
                open_quote = _scan_quotes(line, open_quote)
            result.append(line)
            continue
        rest, n_lines = match["rest"].rstrip("\n"), 1
        while rest.endswith("\\") and position < len(lines):  # as IPython does: the line goes on
            rest = rest[:-1] + " " + lines[position].strip()
            position, n_lines = position + 1, n_lines + 1
        name, rest = "llm", rest.strip()
        if match["outer"]:
            name, rest = match["outer"].strip()[1:], _call("llm", rest)
        result.append(f"{match['indent']}{match['start']}{_call(name, rest)}\n")
        result.extend(["\n"] * (n_lines - 1))  # so that later lines keep their numbers
    return result


def _call(magic: str, line: str) -> str:
    return f"get_ipython().run_line_magic({magic!r}, {line!r})"


def _scan_quotes(line: str, open_quote: str) -> str:
    """Which triple quote is open behind a line, if one is."""
    single = ""
    for match in _TRIPLE.finditer(line):
        mark = match[0]
        if mark[0] == "\\":
            continue
        if open_quote:
            open_quote = "" if mark == open_quote else open_quote
        elif single:
            single = "" if mark[0] == single else single
        elif mark == "#":
            break
        elif len(mark) == 3:
            open_quote = mark
        else:
            single = mark
    return open_quote
