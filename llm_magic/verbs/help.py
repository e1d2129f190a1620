"""Help, and starting afresh."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from llm_magic.errors import OptionError, nearest
from llm_magic.generation import Sampling
from llm_magic.grammar import (
    GENERATING,
    QUIET,
    TAKES_BRANCH,
    TAKES_MODEL,
    TAKES_NAME,
    TAKES_NOTHING,
    TAKES_NUMBER,
    TAKES_PROMPT,
    TAKES_SAVED,
    TAKES_SUBJECT,
    TAKES_SWITCH,
    TAKES_TEXT,
    TAKES_TWO_NAMES,
    TAKES_VERB,
    Command,
    Option,
    Verb,
)
from llm_magic.notebook import Notebook
from llm_magic.screens import Screen

_ARGUMENTS = {
    TAKES_PROMPT: "PROMPT",
    TAKES_TEXT: "TEXT",
    TAKES_MODEL: "[NAME]",
    TAKES_VERB: "[VERB]",
    TAKES_NOTHING: "",
    TAKES_NAME: "[NAME]",
    TAKES_TWO_NAMES: "A B",
    TAKES_BRANCH: "I TOKEN",
    TAKES_SWITCH: "[on|off]",
    TAKES_SUBJECT: "[NAME|In[n]]",
    TAKES_SAVED: "[NAME]",
    TAKES_NUMBER: "[N]",
}


def describe_verb(verb: Verb) -> str:
    """A verb's help: how it is written, what it does, its options."""
    line = f"%llm {verb.name} {'[options] ' if verb.options else ''}{_ARGUMENTS[verb.takes]}".rstrip()
    note = [f"    {verb.note}"] if verb.note else []
    return "\n".join([line, f"    {verb.help}", *note, *_describe_options(verb.options)])


def describe_all(verbs: Mapping[str, Verb]) -> str:
    """The help of the magic as a whole."""
    lines = [
        "%llm [verb] [options] PROMPT        on a line, or %%llm with the prompt in the cell's body",
        "x = %llm PROMPT                     the result as a value; the latest one is in _llm",
        "",
        "verbs (the first word counts as one only if the rest fits it; `%llm -- PROMPT` ends verbs and options):",
    ]
    names = [(f"{verb.name} {_ARGUMENTS[verb.takes]}".strip(), verb.help) for verb in verbs.values()]
    lines += [f"  {name:<18} {text}" for name, text in names]
    lines += ["", "options of a prompt:", *_describe_options(GENERATING), ""]
    lines += [
        "{name}, {name.attribute} and {name[key]} put variables of the notebook into the prompt.",
        "An interrupt keeps what is there; `%llm continue` goes on from it.",
        "Defaults: %config LLMMagics, for example %config LLMMagics.temperature = 0.7",
        f"Sampling without options: {describe_defaults()}",
    ]
    return "\n".join(lines)


def describe_defaults(sampling: Sampling = Sampling()) -> str:
    """The settings in the words of the options."""
    fields = dataclasses.asdict(sampling).items()
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in fields if name != "stop")


def _describe_options(options: tuple[Option, ...]) -> list[str]:
    return [f"  {', '.join(o.flags) + ' ' + o.metavar:<26} {o.help}" for o in options]


def reset(notebook: Notebook, command: Command, screen: Screen) -> None:
    """Forget conversations and results; models stay loaded."""
    notebook.reset()
    screen.say("conversations, results and cached prefixes are forgotten; models stay loaded")


RESET = Verb("reset", TAKES_NOTHING, "forget conversations and results; models stay loaded", reset, (QUIET,))


def make_help(verbs: Mapping[str, Verb]) -> Verb:
    """The verb that tells of all the others, and of itself."""

    def help_(notebook: Notebook, command: Command, screen: Screen) -> None:
        name = command.text
        if name and name not in verbs:
            raise OptionError(f"there is no verb {name!r}", f"the nearest are {nearest(name, verbs)}")
        screen.say(describe_verb(verbs[name]) if name else describe_all(verbs))

    return Verb("help", TAKES_VERB, "this help, or that of one verb", help_)
