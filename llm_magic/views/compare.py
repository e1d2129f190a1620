"""Two texts aligned: which of their tokens differ. Words are compared, so that two models' tokens need not agree."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from llm_magic.generation import Comparison, Generation, Token
from llm_magic.views import answer
from llm_magic.views.columns import render_columns
from llm_magic.views.safe import escape_lines, show_controls

_WORD = re.compile(r"\s*\S+|\s+")
_DIFFERS = "font-weight:bold;border-bottom:2px solid rgba(70,130,220,1)"


def find_differences(one: Sequence[Token], other: Sequence[Token]) -> tuple[frozenset[int], frozenset[int]]:
    """The indexes of those tokens of each text that lie in words which the other lacks."""
    texts = ["".join(token.text for token in tokens) for tokens in (one, other)]
    words = [_WORD.findall(text) for text in texts]
    matcher = difflib.SequenceMatcher(None, *words, autojunk=False)
    spans: tuple[list, list] = ([], [])
    starts = [_starts(of_text) for of_text in words]
    for kind, *edges in matcher.get_opcodes():
        if kind != "equal":
            for side, (first, last) in enumerate((edges[:2], edges[2:])):
                spans[side].append((starts[side][first], starts[side][last]))
    return _tokens_in(one, spans[0]), _tokens_in(other, spans[1])


def _starts(words: Sequence[str]) -> list[int]:
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word))
    return starts


def _tokens_in(tokens: Sequence[Token], spans: Sequence[tuple[int, int]]) -> frozenset[int]:
    found, at, waiting = [], 0, list(spans)
    for index, token in enumerate(tokens):
        end = at + len(token.text)
        while waiting and waiting[0][1] <= at:
            waiting.pop(0)
        if waiting and waiting[0][0] < end and at < waiting[0][1]:
            found.append(index)
        at = end
    return frozenset(found)


def describe(value: Comparison) -> str:
    """How much differs."""
    n_words = [len(_WORD.findall(g.text)) for g in value.generations]
    marks = find_differences(*(g.tokens for g in value.generations))
    if not any(marks):
        return "the texts are equal"
    counts, first = [len(differing) for differing in marks], min(frozenset.union(*marks))
    return f"{counts[0]} and {counts[1]} tokens differ, of {n_words[0]} and {n_words[1]} words; from token {first} on"


def _name(generation: Generation, number: int) -> str:
    return f"{'AB'[number]}: {generation.model}, {answer.describe_sampling(generation)}, seed {generation.seed}"


def render_text(value: Comparison) -> str:
    """One below the other; what differs stands between ‹ and ›."""
    lines = []
    marks = find_differences(*(g.tokens for g in value.generations))
    for number, (generation, differing) in enumerate(zip(value.generations, marks, strict=True)):
        pieces = []
        for index, token in enumerate(generation.tokens):
            begins, ends = index - 1 not in differing, index + 1 not in differing
            text = show_controls(token.text)
            is_marked = index in differing
            pieces.append(f"{'‹' if is_marked and begins else ''}{text}{'›' if is_marked and ends else ''}")
        lines += [f"{show_controls(_name(generation, number))}", "".join(pieces), answer.render_status(generation)]
    return "\n".join([*lines, f"[{describe(value)}]"])


def render_html(value: Comparison) -> str:
    """Two columns without script; tinted as answers are, what differs in bold and underlined."""
    marks = find_differences(*(g.tokens for g in value.generations))
    columns = []
    for number, (generation, differing) in enumerate(zip(value.generations, marks, strict=True)):
        before = answer.continued_text(generation.prompt)
        spans = [f'<span style="opacity:0.6">{escape_lines(before)}</span>'] if before else []
        for index, token in enumerate(generation.tokens):
            span = answer.render_token(token)
            spans.append(f'<span style="{_DIFFERS}">{span}</span>' if index in differing and span else span)
        body = f'<div style="{answer.STYLE}">{"".join(spans)}</div>'
        figures = answer.render_lines([" · ".join(answer.status_parts(generation))])
        columns.append((_name(generation, number), body + figures))
    return render_columns(columns) + answer.render_lines([describe(value)])
