"""Ghost text: switched on and off."""

from __future__ import annotations

from llm_magic.errors import OptionError
from llm_magic.grammar import TAKES_SWITCH, Command, Verb
from llm_magic.notebook import Notebook
from llm_magic.screens import Screen


def complete(notebook: Notebook, command: Command, screen: Screen) -> None:
    """Ghost text from the notebook's model, on, off, or how it is."""
    ghost = notebook.ghost
    if ghost is None:
        raise OptionError("there is no ghost text here", "use JupyterLab, Notebook 7 or a terminal")
    if command.text == "on":
        notebook.model(None, screen.track)  # now, and not at the first pause
        ghost.switch_on()
    elif command.text == "off":
        ghost.switch_off()
    screen.say(f"ghost text is on {ghost.where}" if ghost.is_on else "ghost text is off: %llm complete on")


VERBS = (Verb("complete", TAKES_SWITCH, "ghost text from the model while you type: on, off", complete),)
