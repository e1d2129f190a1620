"""Neighbors of a token in embedding space: a bar for each."""

from __future__ import annotations

from llm_magic.study.values import Neighbors
from llm_magic.views.answer import render_lines
from llm_magic.views.bars import render_bar_html, render_bar_text
from llm_magic.views.safe import escape_text, show_controls, show_spaces


def render_text(value: Neighbors) -> str:
    """A line for each token."""
    names = [show_spaces(neighbor.text) for neighbor in value]
    width = max(map(len, names), default=0)
    lines = [
        f"  {neighbor.cosine:>6.3f}  {name:<{width}}  {render_bar_text(max(0.0, neighbor.cosine))}".rstrip()
        for name, neighbor in zip(names, value, strict=True)
    ]
    return "\n".join([f"near {show_spaces(value.text)}", *lines, show_controls(f"[{_status(value)}]")])


def render_html(value: Neighbors) -> str:
    """A table without script."""
    rows = "".join(
        f'<tr><td>{neighbor.cosine:.3f}</td><td style="text-align:left"><code>{escape_text(show_spaces(neighbor.text))}'
        f"</code></td><td>{render_bar_html(max(0.0, neighbor.cosine))}</td></tr>"
        for neighbor in value
    )
    return f"<div>near <code>{escape_text(show_spaces(value.text))}</code></div><table>{rows}</table>" + render_lines(
        [_status(value)]
    )


def _status(value: Neighbors) -> str:
    return f"{value.model} · cosine of embeddings"
