"""Two texts aligned: the words that differ, whatever the tokens; then the tokens, with their probabilities."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from llm_magic.comparison import Comparison, Pair, match_longest
from llm_magic.generation import Generation, Token
from llm_magic.views import answer
from llm_magic.views.columns import render_columns
from llm_magic.views.heat import tint_style
from llm_magic.views.safe import escape_lines, escape_text, show_controls, show_spaces

SHIFTED_ABOVE = 0.05  # as a difference of probabilities
MAX_TEXT_ROWS, MAX_SHIFT_ROWS, MAX_HTML_ROWS = 12, 4, 200
_NAME_WIDTH = 24
_HEAD = ("", "token A", "p A", "", "", "token B", "p B", "points")
_ALIGNMENTS = ("right", "left", "right", "center", "right", "left", "right", "right")
_WORD = re.compile(r"\s*\S+|\s+")
_DIFFERS = "font-weight:bold;border-bottom:2px solid rgba(70,130,220,1)"
_SHIFTED = "border-bottom:3px dotted rgba(70,130,220,1)"


def find_differences(one: Sequence[Token], other: Sequence[Token]) -> tuple[frozenset[int], frozenset[int]]:
    """The indexes of those tokens of each text that lie in words which the other lacks."""
    words = [_WORD.findall("".join(token.text for token in tokens)) for tokens in (one, other)]
    common = match_longest(*words)
    return (
        _tokens_outside(one, words[0], {i for i, _ in common}),
        _tokens_outside(other, words[1], {i for _, i in common}),
    )


def _tokens_outside(tokens: Sequence[Token], words: Sequence[str], common: Collection[int]) -> frozenset[int]:
    differs = [index not in common for index, word in enumerate(words) for _ in word]  # for each character
    found, at = [], 0
    for index, token in enumerate(tokens):
        end = at + len(token.text)
        if any(differs[at:end]):
            found.append(index)
        at = end
    return frozenset(found)


def has_shifted(pair: Pair) -> bool:
    """Whether the same token stands on both sides, with a probability that differs by more than 5 points."""
    return pair.is_same and pair.difference is not None and abs(pair.difference) > SHIFTED_ABOVE


def describe(value: Comparison) -> str:
    """How many tokens agree, the first that do not, and by how much the others shifted."""
    one, other = value.generations
    parts = ["the texts are equal"] if one.text == other.text else []
    first, same = value.first_difference, [pair for pair in value.pairs if pair.is_same]
    shifts = [abs(pair.difference) for pair in same if pair.difference is not None]
    if first is None and not any(shifts):
        return "".join(parts)
    n_tokens = [f"{n:,}" for n in dict.fromkeys((len(one.tokens), len(other.tokens)))]
    parts.append(f"{len(same):,} of {' and '.join(n_tokens)} tokens agree")
    if first is not None:  # all before it agree, so that it has this index on both sides
        parts.append(f"from token {first:,} on: {_name_at(one, first)} against {_name_at(other, first)}")
    if shifts:
        mean = 100 * sum(shifts) / len(shifts)
        figure = "<0.1" if 0 < mean < 0.05 else f"{mean:.1f}"
        parts.append(f"mean shift of those that agree: {figure} percentage points")
    return " · ".join(parts)


def _name_at(generation: Generation, index: int) -> str:
    """What stands there, be it the end of the turn."""
    if index < len(generation.tokens):
        token = generation.tokens[index]
        return f"{_name_token(token)} {_percent(token)}"
    return f"the end of the turn {_percent(generation.end)}" if generation.end else "nothing more"


def _name_token(token: Token) -> str:
    """A token's text on one short line; its bytes, where they are a part of a character."""
    name = show_spaces(token.text or repr(token.bytes)[2:-1])
    if len(name) <= _NAME_WIDTH and _width(name) <= _NAME_WIDTH:
        return name
    name = name[: _NAME_WIDTH - 1]
    while _width(name) >= _NAME_WIDTH:
        name = name[:-1]
    return name + "…"


def _width(text: str) -> int:
    """In columns of a terminal."""
    marks = sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(c) in "WF" for c in text)


def _percent(token: Token) -> str:
    return "–" if token.probability is None else answer.percent(token.probability)


def _row(pair: Pair) -> tuple[str, ...]:
    """A pair as `_HEAD` names it."""
    one, other = (
        ("", "–", "") if token is None else (f"{index:,}", _name_token(token), _percent(token))
        for token, index in ((pair.one, pair.index_one), (pair.other, pair.index_other))
    )
    points = "" if pair.difference is None else f"{100 * pair.difference:+.1f}"
    return *one, "" if pair.is_same else "≠", *other, "0.0" if points in ("+0.0", "-0.0") else points


def choose_rows(pairs: Sequence[Pair]) -> list[int]:
    """The indexes of the few that tell most: the largest shifts, and what stands around differences."""
    shifts = [i for i, pair in enumerate(pairs) if has_shifted(pair)]
    shifts.sort(key=lambda i: -abs(pairs[i].difference))
    differing = [i for i, pair in enumerate(pairs) if not pair.is_same]
    around = [j for i in differing for j in (i - 1, i, i + 1) if 0 <= j < len(pairs)]
    by_worth = dict.fromkeys([*shifts[:MAX_SHIFT_ROWS], *around, *shifts[MAX_SHIFT_ROWS:]])
    return sorted(islice(by_worth, MAX_TEXT_ROWS))


def _name(generation: Generation, number: int) -> str:
    return f"{'AB'[number]}: {generation.model}, {answer.describe_sampling(generation)}, seed {generation.seed}"


def render_text(value: Comparison) -> str:
    """One below the other, what differs between ‹ and ›; then a table of the pairs that tell most."""
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
    return "\n".join([*lines, *_table_lines(value.pairs), f"[{describe(value)}]"])


def _table_lines(pairs: Sequence[Pair]) -> list[str]:
    chosen = choose_rows(pairs)
    if not chosen:
        return []
    rows = [_HEAD, *(_row(pairs[i]) for i in chosen)]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = zip(row, gaps, _ALIGNMENTS, strict=True)
        lines.append("  ".join(cell + gap if side == "left" else gap + cell for cell, gap, side in cells).rstrip())
    n_left = sum(map(_is_noted, pairs)) - sum(_is_noted(pairs[i]) for i in chosen)
    return [*lines, f"… left out: {n_left:,} that differ or shifted"] if n_left else lines


def _is_noted(pair: Pair) -> bool:
    return not pair.is_same or has_shifted(pair)


def render_html(value: Comparison) -> str:
    """Two columns without script, tinted as answers are, with marks at words that differ and tokens that shifted."""
    marks = find_differences(*(g.tokens for g in value.generations))
    shifted = [pair for pair in value.pairs if has_shifted(pair)]
    counterparts = {pair.index_one: pair.other for pair in shifted}, {pair.index_other: pair.one for pair in shifted}
    columns = []
    for number, generation in enumerate(value.generations):
        before = answer.continued_text(generation.prompt)
        spans = [f'<span style="opacity:0.6">{escape_lines(before)}</span>'] if before else []
        for index, token in enumerate(generation.tokens):
            span = _render_token(token, counterparts[number].get(index))
            spans.append(f'<span style="{_DIFFERS}">{span}</span>' if index in marks[number] and span else span)
        body = f'<div style="{answer.STYLE}">{"".join(spans)}</div>'
        figures = answer.render_lines([" · ".join(answer.status_parts(generation))])
        columns.append((_name(generation, number), body + figures))
    return render_columns(columns) + answer.render_lines([describe(value)]) + _render_details(value.pairs)


def _render_token(token: Token, counterpart: Token | None) -> str:
    """A token as in an answer; where it shifted, underlined in dots, and the title says from where to where."""
    if counterpart is None or not token.text:
        return answer.render_token(token)
    title = f"p {_percent(token)} here, {_percent(counterpart)} there\n{answer.describe_token(token)}"
    style = ";".join(filter(None, (tint_style(token.probability), _SHIFTED)))
    return f'<span title="{escape_text(title)}" style="{style}">{escape_lines(token.text)}</span>'


def _render_details(pairs: Sequence[Pair]) -> str:
    noted = [pair for pair in pairs if _is_noted(pair)]
    if not noted:
        return ""
    n_differ = sum(not pair.is_same for pair in noted)
    counts = {"differ": n_differ, "shifted by more than 5 points (underlined in dots)": len(noted) - n_differ}
    rows = [_render_row("th", _HEAD, {})]
    for pair in noted[:MAX_HTML_ROWS]:
        tints = {i: tint_style(token.probability) for i, token in ((1, pair.one), (5, pair.other)) if token}
        rows.append(_render_row("td", _row(pair), tints))
    n_left = len(noted) - MAX_HTML_ROWS
    left = answer.render_lines([f"left out: {n_left:,}; to_pandas() has all"]) if n_left > 0 else ""
    summary = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n)
    return f"<details><summary>token by token: {summary}</summary><table>{''.join(rows)}</table>{left}</details>"


def _render_row(tag: str, cells: Sequence[str], tints: Mapping[int, str]) -> str:
    """A row of texts as HTML, some of them tinted."""
    styles = [f"text-align:{side};{tints.get(i, '')}".rstrip(";") for i, side in enumerate(_ALIGNMENTS)]
    styled = zip(styles, map(escape_text, cells), strict=True)
    return "<tr>" + "".join(f'<{tag} style="{style}">{cell}</{tag}>' for style, cell in styled) + "</tr>"
