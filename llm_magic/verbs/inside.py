"""Looking inside: what each layer would say, and where each token looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_magic.errors import OptionError
from llm_magic.generation import Generation
from llm_magic.grammar import COUNT, HEAD, LAYER, MODEL, OUT, QUIET, RAW, TAKES_TEXT, TARGET, Command, Verb
from llm_magic.notebook import Notebook
from llm_magic.screens import Screen

if TYPE_CHECKING:
    from llm_magic.study.values import Attention, Lens, Neighbors


def lens(notebook: Notebook, command: Command, screen: Screen) -> Lens:
    """What each layer would say behind a text, or behind the latest generation."""
    llm = notebook.model(command.options.get("model"), screen.track)
    value = llm.lens(_subject(notebook, command), target=command.options.get("target"))
    screen.show(value, command.notes)
    return value


def attention(notebook: Notebook, command: Command, screen: Screen) -> Attention:
    """Where each token of a text, or of the latest generation, took information from."""
    llm, options = notebook.model(command.options.get("model"), screen.track), command.options
    value = llm.attention(_subject(notebook, command), layer=options.get("layer"), head=options.get("head"))
    screen.show(value, command.notes)
    return value


def neighbors(notebook: Notebook, command: Command, screen: Screen) -> Neighbors:
    """The tokens whose embeddings lie nearest to that of a word."""
    word = command.text.strip()
    if not word:
        raise OptionError("neighbors lacks its word", "write %llm neighbors king")
    value = notebook.model(command.options.get("model"), screen.track).neighbors(word, command.options.get("k", 10))
    screen.show(value, command.notes)
    return value


def _subject(notebook: Notebook, command: Command) -> str | Generation:
    if command.text:
        return command.text
    if notebook.latest_generation is not None:
        return notebook.latest_generation
    raise OptionError("there is no text", f"write one: %llm {command.verb.name} The capital of France is")


VERBS = (
    Verb(
        "neighbors",
        TAKES_TEXT,
        "the tokens whose embeddings lie nearest to that of a word",
        neighbors,
        (MODEL, COUNT, OUT, QUIET, RAW),
    ),
    Verb(
        "attention",
        TAKES_TEXT,
        "where each token of a text, or of the latest answer, took information from",
        attention,
        (MODEL, LAYER, HEAD, OUT, QUIET, RAW),
    ),
    Verb(
        "lens",
        TAKES_TEXT,
        "what each layer would say next, behind a text or the latest answer",
        lens,
        (MODEL, TARGET, OUT, QUIET, RAW),
    ),
)
