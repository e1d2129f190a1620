"""How values are shown: a table from kinds of values to their faces. `views` fills it, which values do not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Face:
    """How a kind of value looks: as plain text, as HTML without script, as data to be drawn anew, and alive."""

    text: Callable[..., str]
    html: Callable[..., str]
    data: Callable[[Any], dict[str, Any]] | None = None  # by their MIME types
    live: Callable[[Any], Any] | None = None  # a widget


FACES: dict[type, Face] = {}


class Shown:
    """A value that IPython shows by its faces."""

    __slots__ = ()

    def __init_subclass__(cls):
        cls._repr_pretty_ = Shown._repr_pretty_  # else a dataclass's own __repr__ would stand nearer

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        face = FACES.get(type(self))
        printer.text(face.text(self) if face and not cycle else repr(self))

    def _repr_html_(self) -> str | None:
        face = FACES.get(type(self))
        return face.html(self) if face else None

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        face = FACES.get(type(self))
        return face.data(self) if face and face.data else {}


class Viewed(Shown):
    """A value that has a live view."""

    __slots__ = ()

    def view(self):
        """A widget of this value: probabilities on hover, redrawn under other settings; a generation branches.

        Needs a notebook. Its `settle()` leaves text in its place.
        """
        return FACES[type(self)].live(self)
