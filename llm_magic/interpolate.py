"""`{name}`, `{name.attribute}` and `{name[key]}` in a prompt: put in once, where the name exists; nothing is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llm_magic.errors import OptionError

_HOLE = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)((?:\.[A-Za-z]\w*|\[[^\[\]{}]+\])*)\}(?!\})")
_STEP = re.compile(r"\.([A-Za-z]\w*)|\[([^\[\]{}]+)\]")


def interpolate(text: str, namespace: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The text with its holes filled, and what was put in. Every other brace stays as it is.

    >>> interpolate("{who} and {other}, {x: 1}, {sizes[0]}", {"who": "Ada", "sizes": [3]})
    ('Ada and {other}, {x: 1}, 3', ('who', 'sizes[0]'))
    """
    put_in: list[str] = []

    def fill(match: re.Match[str]) -> str:
        if match[1] not in namespace:
            return match[0]
        value = namespace[match[1]]
        for attribute, key in _STEP.findall(match[2]):
            try:
                value = getattr(value, attribute) if attribute else _look_up(value, _read_key(key))
            except Exception:  # whatever a user's object raises: there is no such value
                return match[0]
        try:
            filled = str(value)
        except Exception as error:
            raise OptionError(
                f"{match[0]} cannot be written as text ({error})", "use --raw to leave it as it is"
            ) from None
        put_in.append(match[1] + match[2])
        return filled

    return _HOLE.sub(fill, text), tuple(dict.fromkeys(put_in))


def hole_names(template: str) -> frozenset[str]:
    """The names of a template's holes.

    >>> sorted(hole_names("{title}: {row[text]}, {x: 1}"))
    ['row', 'title']
    """
    return frozenset(match[1] for match in _HOLE.finditer(template))


def fill_template(template: str, item: Any) -> str:
    """The template with an item in its holes: a mapping by its names, anything else in every hole.

    >>> fill_template("{title}: {text}", {"title": "Ada", "text": "hello"}), fill_template("Is {x} good?", 3)
    ('Ada: hello', 'Is 3 good?')
    """
    names = hole_names(template)
    if not names:
        raise OptionError("the template has no hole for the items", "write {text} where they shall stand")
    values = item if isinstance(item, Mapping) else dict.fromkeys(names, item)
    if missing := names - set(values):
        raise OptionError(f"an item lacks {', '.join(sorted(missing))}", f"it has {', '.join(map(str, values))}")
    text, put_in = interpolate(template, values)
    if unfilled := [match[0] for match in _HOLE.finditer(template) if match[1] + match[2] not in put_in]:
        raise OptionError(f"an item has nothing for {unfilled[0]}", "leave out the hole, or give items that have it")
    return text


def _look_up(value: Any, key: int | str) -> Any:
    if isinstance(value, dict) and key not in value:  # a defaultdict would make it
        raise KeyError(key)
    return value[key]


def _read_key(key: str) -> int | str:
    """A whole number, or a text with or without quotes."""
    if re.fullmatch(r"-?\d+", key):
        return int(key)
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] and key[0] in "'\"" else key
