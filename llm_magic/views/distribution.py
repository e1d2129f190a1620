"""What could come next: a bar for each of the best tokens, and what is left to all others."""

from __future__ import annotations

from llm_magic.generation import Distribution
from llm_magic.views.answer import percent, render_lines
from llm_magic.views.bars import render_bar_html, render_bar_text
from llm_magic.views.safe import escape_text, show_controls, show_spaces


def render_text(value: Distribution) -> str:
    """A line for each token, as plain text."""
    names = [show_spaces(alternative.text) for alternative in value.top]
    width = max(map(len, names), default=0)
    lines = [show_controls(value.text) + " …"]
    for name, alternative in zip(names, value.top, strict=True):
        bar = render_bar_text(alternative.probability)
        lines.append(f"  {percent(alternative.probability):>8}  {name:<{width}}  {bar}".rstrip())
    lines.append(f"  {percent(value.rest):>8}  {_others(value)}")
    return "\n".join([*lines, f"[{_status(value)}]"])


def render_html(value: Distribution) -> str:
    """A table without script."""
    rows = []
    for alternative in value.top:
        rows.append(
            f'<tr><td style="text-align:right">{percent(alternative.probability)}</td>'
            f'<td style="text-align:left"><code>{escape_text(show_spaces(alternative.text))}</code></td>'
            f'<td style="text-align:left">{render_bar_html(alternative.probability)}</td></tr>'
        )
    rows.append(f"<tr><td>{percent(value.rest)}</td><td>{_others(value)}</td><td></td></tr>")
    return (
        f'<div style="white-space:pre-wrap">{escape_text(value.text)} …</div><table>{"".join(rows)}</table>'
        f"{render_lines([_status(value)])}"
    )


def _others(value: Distribution) -> str:
    return f"all {value.vocabulary_tokens - len(value.top):,} others"


def _status(value: Distribution) -> str:
    return f"{value.model} · entropy {value.entropy:.2f} nats"
