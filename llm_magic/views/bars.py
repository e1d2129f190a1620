"""A probability as a bar, in plain text and in HTML without script."""

from __future__ import annotations

TEXT_WIDTH, HTML_WIDTH_PX = 30, 200


def render_bar_text(probability: float) -> str:
    """
    >>> render_bar_text(0.1)
    '███'
    """
    return "█" * round(TEXT_WIDTH * probability)


def render_bar_html(probability: float) -> str:
    """At least a line, so that a row has one."""
    width_px = max(1, round(HTML_WIDTH_PX * probability))
    return f'<div style="background:rgba(70,130,220,0.7);width:{width_px}px;height:0.8em"></div>'
