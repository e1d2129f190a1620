"""Generating: ask, text, code, and going on from what was generated."""

from __future__ import annotations

import dataclasses

from llm_magic.errors import OptionError
from llm_magic.generation import Generation, Prompt, replace_sampling
from llm_magic.grammar import (
    GENERATING,
    NO_STREAM,
    SAMPLING_OPTIONS,
    SHOWING,
    TAKES_NOTHING,
    TAKES_PROMPT,
    Command,
    Verb,
)
from llm_magic.interrupts import interrupt_calls
from llm_magic.notebook import Notebook
from llm_magic.screens import Screen


def run_prompt(notebook: Notebook, command: Command, screen: Screen) -> Generation | Prompt:
    """Generate behind the command's text; its verb is the mode."""
    options = command.options
    mode = command.verb.name if command.verb else None
    if not command.text:
        raise OptionError("the prompt is empty", "write what the model shall answer or continue; %llm help tells more")
    llm = notebook.model(options.get("model"), screen.track)
    chat = options.get("chat")
    history = notebook.history(chat, options.get("continue_", False))
    settings = replace_sampling(notebook.defaults, command.sampling)
    is_raw = (mode or ("ask" if llm.is_chat else "text")) == "text"
    system = options.get("system", None if history or is_raw else notebook.system)
    prompt = llm.prompt(command.text, mode=mode, system=system, history=history, **dataclasses.asdict(settings))
    if options.get("dry_run"):
        screen.show(prompt, (*command.notes, "nothing was generated"))
        return prompt
    notes = command.notes
    if n_turns := sum(message.role == "user" for message in history):
        notes += (f"{n_turns} earlier {'turn is' if n_turns == 1 else 'turns are'} in the context",)
    generation = _follow(notebook, screen, command, llm.start(prompt), notes)
    notebook.add_turn(generation, chat)
    return generation


def retry(notebook: Notebook, command: Command, screen: Screen) -> Generation:
    """The latest prompt again, with the next seed, or with the options given."""
    latest = _latest(notebook)
    changes = {"seed": latest.sampling.seed + 1} | command.sampling
    settings = replace_sampling(latest.sampling, changes)
    return _follow(notebook, screen, command, latest.maker.start_again(latest, settings), command.notes)


def continue_(notebook: Notebook, command: Command, screen: Screen) -> Generation:
    """Go on where the latest generation was cut off."""
    latest = _latest(notebook)
    return _follow(notebook, screen, command, latest.maker.start_from(latest, **command.sampling), command.notes)


def _latest(notebook: Notebook) -> Generation:
    if notebook.latest_generation is None:
        raise OptionError("nothing was generated yet", "ask something first: %llm Why is the sky blue?")
    return notebook.latest_generation


def _follow(notebook: Notebook, screen: Screen, command: Command, stream, notes: tuple[str, ...]) -> Generation:
    with interrupt_calls(stream.stop):
        generation = screen.follow(stream, not command.options.get("no_stream"), notes)
        notebook.remember(generation)
        if command.options.get("probs"):
            screen.show_probabilities(generation)
    return generation


AGAIN = (*SAMPLING_OPTIONS, *SHOWING, NO_STREAM)
VERBS = (
    Verb("ask", TAKES_PROMPT, "answer a question", run_prompt, GENERATING),
    Verb("text", TAKES_PROMPT, "continue a raw text, without a chat template", run_prompt, GENERATING),
    Verb("code", TAKES_PROMPT, "write Python code; it is never run for you", run_prompt, GENERATING),
    Verb("retry", TAKES_NOTHING, "the latest prompt again, with the next seed or the options given", retry, AGAIN),
    Verb("continue", TAKES_NOTHING, "go on where the latest answer was cut off", continue_, AGAIN),
)
