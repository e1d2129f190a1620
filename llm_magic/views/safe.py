"""The two ways for a model's or a user's text to a screen: nothing in it acts, nothing in it hides."""

from __future__ import annotations

import html

from llm_magic.visible import show_controls


def show_spaces(text: str) -> str:
    """A token's text on one line: spaces, newlines and tabs visible too.

    >>> show_spaces(" the\\n")
    '␣the↵'
    """
    return show_controls(text).replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def escape_text(text: str) -> str:
    """Text for HTML, as content or in a quoted attribute; newlines are written as references.

    >>> escape_text("<b>&\\n")
    '&lt;b&gt;&amp;&#10;'
    """
    return html.escape(show_controls(text)).replace("\n", "&#10;")


def escape_lines(text: str) -> str:
    """Text for HTML content, with its line breaks.

    >>> escape_lines("a\\nb")
    'a<br>b'
    """
    return "<br>".join(map(escape_text, text.split("\n")))
