"""The two ways for a model's or a user's text to a screen: nothing in it acts, nothing in it hides."""

from __future__ import annotations

import html
import re

# controls, line and paragraph separators, marks that change the reading direction, invisible marks,
# surrogates; not the joiners that emoji and Indic scripts are made of
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def show_controls(text: str) -> str:
    """Text with each control or hidden character made visible; newline and tab stay.

    >>> show_controls("a\\x1b[31mb\\u202ec\\n")
    'a␛[31mb<U+202E>c\\n'
    """
    return _HIDDEN.sub(lambda match: _name(match[0]), text)


def _name(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"<U+{code:04X}>"


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
