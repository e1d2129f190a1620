"""Looking at a text: its tokens, what could come next, how likely each token was."""

from __future__ import annotations

from llm_magic.choices import Ranking
from llm_magic.errors import OptionError
from llm_magic.generation import Distribution, Prompt, Score
from llm_magic.grammar import COUNT, MODEL, OUT, PROBS, QUESTION, QUIET, RAW, TAKES_TEXT, Command, Verb
from llm_magic.notebook import Notebook
from llm_magic.screens import Screen


def tokens(notebook: Notebook, command: Command, screen: Screen) -> Prompt:
    """How a text is cut into tokens."""
    value = notebook.model(command.options.get("model"), screen.track).tokenize(_text(notebook, command))
    screen.show(value, command.notes)
    return value


def next_(notebook: Notebook, command: Command, screen: Screen) -> Distribution:
    """The most likely tokens behind a text."""
    llm = notebook.model(command.options.get("model"), screen.track)
    value = llm.next(_text(notebook, command), command.options.get("k", 10))
    notebook.remember(value)
    screen.show(value, command.notes)
    return value


def score(notebook: Notebook, command: Command, screen: Screen) -> Score | Ranking:
    """The probability of each token of a text; with a question, its lines as answers, ranked."""
    if "question" in command.options:
        return _rank(notebook, command, screen)
    value = notebook.model(command.options.get("model"), screen.track).score(_text(notebook, command))
    notebook.remember(value)
    screen.show(value, command.notes)
    if command.options.get("probs"):
        screen.show_probabilities(value)
    return value


def _rank(notebook: Notebook, command: Command, screen: Screen) -> Ranking:
    answers = [line.strip() for line in command.text.splitlines() if line.strip()]
    if not answers:
        raise OptionError("there are no answers to rank", "write each on a line of the cell")
    value = notebook.model(command.options.get("model"), screen.track).rank(command.options["question"], answers)
    notebook.remember(value)
    screen.show(value, command.notes)
    return value


def _text(notebook: Notebook, command: Command) -> str:
    if command.text:
        return command.text
    if notebook.latest_generation is not None:
        return notebook.latest_generation.text
    raise OptionError("there is no text", f"write one: %llm {command.verb.name} The capital of France is")


LOOKING = (MODEL, OUT, QUIET, RAW)
VERBS = (
    Verb("tokens", TAKES_TEXT, "how a text is cut into tokens", tokens, LOOKING),
    Verb("next", TAKES_TEXT, "the most likely tokens behind a text", next_, (*LOOKING, COUNT)),
    Verb("score", TAKES_TEXT, "the probability of each token of a text", score, (*LOOKING, PROBS, QUESTION)),
)
