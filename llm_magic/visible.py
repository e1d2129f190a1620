"""Text with each control or hidden character made visible: the one way of foreign text to a screen."""

from __future__ import annotations

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
