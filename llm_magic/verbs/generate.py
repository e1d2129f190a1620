"""Generating: ask, text, code, and going on from what was generated."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from llm_magic.errors import OptionError
from llm_magic.generation import Generation, Prompt, Samples, replace_sampling
from llm_magic.grammar import (
    GENERATING,
    NO_STREAM,
    SAMPLING_OPTIONS,
    SHOWING,
    TAKES_BRANCH,
    TAKES_NOTHING,
    TAKES_PROMPT,
    UI,
    Command,
    Verb,
)
from llm_magic.interrupts import interrupt_calls
from llm_magic.notebook import Notebook
from llm_magic.screens import Screen

if TYPE_CHECKING:
    from llm_magic.backends.stream import Batch, Stream
    from llm_magic.llm import LLM


def run_prompt(notebook: Notebook, command: Command, screen: Screen) -> Generation | Samples | Prompt:
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
    notebook.begin_prompt(options.get("model"), chat)
    if options.get("samples", 1) != 1:
        return _follow_samples(notebook, screen, command, llm.start_samples(prompt, options["samples"]), notes)
    return _follow(notebook, screen, command, llm.start(prompt), notes)


def retry(notebook: Notebook, command: Command, screen: Screen) -> Generation:
    """The latest prompt again, with the next seed, or with the options given."""
    latest, llm = _latest(notebook, screen)
    fresh = {"seed": latest.sampling.seed + 1, "max_tokens": latest.prompt.sampling.max_tokens}
    settings = replace_sampling(latest.sampling, fresh | command.sampling)
    return _follow(notebook, screen, command, llm.start_again(latest, settings), command.notes)


def continue_(notebook: Notebook, command: Command, screen: Screen) -> Generation:
    """Go on where the latest generation was cut off."""
    latest, llm = _latest(notebook, screen)
    changes = {"max_tokens": notebook.defaults.max_tokens} | command.sampling
    return _follow(notebook, screen, command, llm.start_from(latest, **changes), command.notes)


def replay(notebook: Notebook, command: Command, screen: Screen) -> Generation:
    """The latest generation once more, token by token as it was."""
    latest, llm = _latest(notebook, screen)
    return _follow(notebook, screen, command, llm.start_replay(latest), command.notes)


def branch(notebook: Notebook, command: Command, screen: Screen) -> Generation:
    """What the latest generation would have become with another token at an index."""
    latest, llm = _latest(notebook, screen)
    index, text = command.text.split(maxsplit=1)
    token = _unquote(text)
    standing = latest.tokens[int(index)] if -len(latest.tokens) <= int(index) < len(latest.tokens) else None
    if standing is not None and standing.text.startswith(" ") and token == text:
        token = f" {token}"  # a word in place of a word; quotes keep it as it is
    return _follow(notebook, screen, command, llm.start_branch(latest, int(index), token, **command.sampling), ())


def _unquote(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _latest(notebook: Notebook, screen: Screen) -> tuple[Generation, LLM]:
    """The latest generation, and its model: loaded again where it was unloaded."""
    latest = notebook.latest_generation
    if latest is None:
        raise OptionError("nothing was generated yet", "ask something first: %llm Why is the sky blue?")
    return latest, notebook.model(notebook.latest_model, screen.track)


def _follow(notebook: Notebook, screen: Screen, command: Command, stream: Stream, notes: tuple[str, ...]) -> Generation:
    """Show a generation while it is made; whatever ends it, what came by then is the latest result."""
    generation = None
    notebook.running.append(stream)
    try:
        with interrupt_calls(stream.stop):
            is_streamed = not command.options.get("no_stream")
            generation = screen.follow(stream, is_streamed, notes, command.options.get("ui", False))
            if command.options.get("probs"):
                screen.show_probabilities(generation)
            return generation
    finally:
        notebook.running.remove(stream)
        notebook.was_interrupted = stream.is_stopped
        notebook.remember(generation or stream.generation)


def _follow_samples(
    notebook: Notebook, screen: Screen, command: Command, batch: Batch, notes: tuple[str, ...]
) -> Samples:
    """Show several generations while they are made; they are the latest result, the first is what one goes on from."""
    samples = None
    notebook.running += batch.streams
    try:
        with interrupt_calls(batch.stop):
            is_streamed = not command.options.get("no_stream")
            samples = screen.follow_samples(batch, is_streamed, notes, command.options.get("ui", False))
            if command.options.get("probs"):
                for generation in samples:
                    screen.show_probabilities(generation)
            return samples
    finally:
        for stream in batch.streams:
            notebook.running.remove(stream)
        notebook.was_interrupted = batch.is_stopped
        samples = samples or Samples(batch.generations)
        notebook.remember(samples[0])
        notebook.remember(samples)


AGAIN = (*SAMPLING_OPTIONS, *SHOWING, NO_STREAM, UI)
VERBS = (
    Verb("ask", TAKES_PROMPT, "answer a question", run_prompt, GENERATING),
    Verb("text", TAKES_PROMPT, "continue a raw text, without a chat template", run_prompt, GENERATING),
    Verb("code", TAKES_PROMPT, "write Python code; it is never run for you", run_prompt, GENERATING),
    Verb("retry", TAKES_NOTHING, "the latest prompt again, with the next seed or the options given", retry, AGAIN),
    Verb("continue", TAKES_NOTHING, "go on where the latest answer was cut off", continue_, AGAIN),
    Verb("replay", TAKES_NOTHING, "the latest answer once more, as it was", replay, (*SHOWING, NO_STREAM, UI)),
    Verb("branch", TAKES_BRANCH, "put another token at an index of the latest answer, and go on", branch, AGAIN),
)
