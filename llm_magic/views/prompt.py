"""A prompt or a text, cut into its tokens."""

from __future__ import annotations

from llm_magic.generation import Prompt
from llm_magic.views.answer import render_lines
from llm_magic.views.safe import escape_lines, escape_text, show_spaces

SHOWN_TOKENS = 5_000  # of a long text only so many are drawn; the counts are of all
_SHADES = ("rgba(70,130,220,0.18)", "rgba(240,130,20,0.18)")


def render_text(value: Prompt) -> str:
    """The pieces between bars, a line for each of the text's, then the counts."""
    cut = "".join(f"{show_spaces(piece)}│" + "\n" * piece.count("\n") for piece in value.pieces[:SHOWN_TOKENS])
    cut += "…" if len(value.pieces) > SHOWN_TOKENS else ""
    return f"│{cut}".rstrip("\n") + f"\n[{_status(value)}]"


def render_html(value: Prompt) -> str:
    """Pieces in two alternating shades, each with its id in the title."""
    spans = []
    for index, (token_id, piece) in enumerate(zip(value.ids[:SHOWN_TOKENS], value.pieces, strict=False)):
        text = escape_lines(piece).replace("<br>", "↵<br>") or "·"
        title = escape_text(f"{show_spaces(piece)}  id {token_id}, token {index}")
        spans.append(f'<span title="{title}" style="background:{_SHADES[index % 2]}">{text}</span>')
    spans += ["…"] if len(value.pieces) > SHOWN_TOKENS else []
    return f'<div style="white-space:pre-wrap;line-height:1.6">{"".join(spans)}</div>{render_lines([_status(value)])}'


def _status(value: Prompt) -> str:
    room = f"room for {max(0, value.room_tokens):,} in a context of {value.context_tokens:,}"
    return f"{value.model} · {value.mode} · {len(value.ids):,} tokens, {room}"
