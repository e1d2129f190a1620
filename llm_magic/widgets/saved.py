"""A saved answer in a page asks to go on from one of its tokens: a live view takes its place.

The page opens a comm with the text's key, the token's index, and what shall stand there. It hears how to draw the view,
or what is missing for it, and in the end what is left of the view.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magic.errors import LLMError, OptionError
from llm_magic.generation import Generation
from llm_magic.views.bundle import MADE
from llm_magic.widgets.answer import AnswerView


def open_branch(comm, message: Mapping[str, Any]) -> None:
    """A page has opened a comm. This may run on a thread beside the one that runs cells."""
    request = message["content"]["data"]
    try:
        view = _branch(str(request["key"]), int(request["text"]), int(request["index"]), request["token"])
    except LLMError as error:
        comm.send({"kind": "problem", "text": str(error)})
        return
    view.leave_in(_PageOutput(comm))
    comm.on_close(lambda message: view.close())  # the output has gone, or was replaced
    mime = "application/vnd.jupyter.widget-view+json"
    comm.send({"kind": "view", "mime": mime, "data": view.describe_view()[mime]})


def _branch(key: str, text: int, index: int, token: str | int) -> AnswerView:
    value = MADE.get(key)
    texts = [] if value is None else [value] if isinstance(value, Generation) else list(value)
    if not 0 <= text < len(texts):
        fix = "run its cell again (the same seed gives the same answer), and take the token then"
        raise OptionError("this kernel does not hold the answer", fix)
    view = AnswerView(value)
    try:
        view.branch(index, token, text)
    except LLMError:
        view.close()
        raise
    return view


class _PageOutput:
    """The output of a page, which the page itself replaces."""

    def __init__(self, comm):
        self._comm = comm

    def update(self, bundle: Mapping[str, Any], raw: bool) -> None:
        self._comm.send({"kind": "kept", "bundle": dict(bundle)})
