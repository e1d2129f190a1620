"""Seeing and steering: the live view, the sampling panel, two generations side by side."""

from __future__ import annotations

from typing import Any

from llm_magic.errors import OptionError
from llm_magic.generation import Comparison, Generation, Samples, Score
from llm_magic.given import find
from llm_magic.grammar import OUT, QUIET, TAKES_NAME, TAKES_NOTHING, TAKES_TWO_NAMES, Command, Verb
from llm_magic.notebook import Notebook
from llm_magic.records import open_history
from llm_magic.screens import Screen


def view(notebook: Notebook, command: Command, screen: Screen) -> Any:
    """The latest result, or a variable's, alive."""
    value = _find(command, command.text) if command.text else notebook.latest
    if value is None:
        raise OptionError("nothing was generated yet", "ask something first: %llm Why is the sky blue?")
    if not isinstance(value, Generation | Samples | Score):
        raise OptionError(f"a {type(value).__name__} has no live view", "generations, samples and scores have one")
    widget = screen.make_view(value)
    screen.show_widget(widget)
    return widget


def panel(notebook: Notebook, command: Command, screen: Screen) -> Any:
    """The sampling controls, bound to the notebook's defaults."""
    widget = screen.make_panel(notebook.controls)
    screen.show_widget(widget)
    return widget


def diff(notebook: Notebook, command: Command, screen: Screen) -> Comparison:
    """Two generations side by side."""
    names = command.text.split()
    values = tuple(_find_generation(notebook, command, screen, name) for name in names)
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, Generation):
            raise OptionError(f"{name} is a {type(value).__name__}", "give variables that hold generations")
    comparison = Comparison(values)
    screen.show(comparison)
    return comparison


def _find_generation(notebook: Notebook, command: Command, screen: Screen, name: str) -> Any:
    """A variable's, a cell's (`Out[4]`), or a record's of the history by its number."""
    if name.isdigit():
        record = open_history().get(int(name))
        return notebook.model(notebook.find_model(record.model), screen.track).restore(record)
    return find(name, command.namespace) if "[" in name else _find(command, name)


def _find(command: Command, name: str) -> Any:
    if name not in command.namespace:
        fix = f"keep an answer first: {name} = %llm …, or as a prompt: %llm -- {command.verb.name} {command.text}"
        raise OptionError(f"there is no variable {name}", fix)
    return command.namespace[name]


VERBS = (
    Verb("view", TAKES_NAME, "the latest answer, or a variable's, alive: hover, what if, branches", view, (OUT,)),
    Verb("panel", TAKES_NOTHING, "the sampling controls, bound to the notebook's defaults", panel, (OUT,)),
    Verb("diff", TAKES_TWO_NAMES, "two answers side by side, with what differs", diff, (OUT, QUIET)),
)
