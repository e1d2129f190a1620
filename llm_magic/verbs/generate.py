"""Generating: ask, text, code, and going on from what was generated."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magic.chats import Place
from llm_magic.choices import Choices
from llm_magic.errors import ContextOverflow, OptionError
from llm_magic.generation import Generation, Prompt, Samples, replace_sampling, suit_form
from llm_magic.given import GIVEN_TOKENS, find, join_given
from llm_magic.grammar import (
    GENERATING,
    INSERT,
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
from llm_magic.pycode import strip_fences
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
    _refuse_together(options)
    place = notebook.find_place(chat, options.get("continue_", False))
    form = _read_form(command)
    settings = replace_sampling(suit_form(notebook.defaults) if form else notebook.defaults, command.sampling)
    is_raw = (mode or ("ask" if llm.is_chat else "text")) == "text"
    given, notes = describe_given(llm, command)
    text, notes = given + command.text, (*command.notes, *notes)

    def make(place: Place) -> Prompt:
        system = options.get("system", None if place.messages or is_raw else notebook.system)
        values = form | dataclasses.asdict(settings)
        return llm.prompt(text, mode=mode, system=system, history=place.messages, **values)

    prompt, place, more = _fit(make, place, options.get("drop_oldest", False))
    notes += more
    if "choices" in options:
        return _weigh(notebook, screen, llm, prompt, command, notes)
    if options.get("dry_run"):
        screen.show(prompt, (*notes, "nothing was generated"))
        return prompt
    notebook.begin_prompt(options.get("model"), chat, place)
    if options.get("samples", 1) != 1:
        if chat is not None or "continue_" in options:
            notes += ("sample 0 goes on in the conversation",)
        return _follow_samples(notebook, screen, command, llm.start_samples(prompt, options["samples"]), notes)
    stream = llm.start(prompt, namespace=command.namespace if mode == "code" else None)
    generation = follow(notebook, screen, command, stream, notes)
    insert_code(screen, command, generation)
    return generation


def _refuse_together(options: Mapping[str, Any]) -> None:
    """Raise for options of which one would do nothing."""
    for one, others in (("choices", ("regex", "schema", "grammar", "samples", "insert")), ("insert", ("samples",))):
        for other in others:
            if one in options and other in options:
                raise OptionError(f"--{one} and --{other} exclude each other", "give one of them")


def insert_code(screen: Screen, command: Command, generation: Generation) -> None:
    """Put code into a cell, where that was asked for, and it is whole. It is not run."""
    where, code = command.options.get("insert"), strip_fences(generation.text)
    if where and generation.finish_reason != "stop":
        screen.say("the code was cut off: it was not put into a cell")
    elif where and code:
        screen.insert(code, where == "replace")


def _read_form(command: Command) -> dict[str, Any]:
    """The form that the options ask for; a schema or grammar may be a variable of the notebook or a file."""
    form = {name: command.options[name] for name in ("regex", "schema", "grammar") if name in command.options}
    for name in form.keys() - {"regex"}:
        word, value = form[name], command.namespace.get(form[name])
        is_text = isinstance(value, str) and len(value.split()) > 1  # one word would be taken for a field
        if is_text or isinstance(value, dict) or hasattr(value, "model_json_schema"):
            form[name] = value
        elif re.fullmatch(r"[^\n{}]+\.(json|lark|gbnf|txt)", word):
            try:
                form[name] = Path(word).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise OptionError(f"{word} cannot be read ({error})", f"give the {name} itself, or a file") from None
    return form


def describe_given(llm: LLM, command: Command) -> tuple[str, tuple[str, ...]]:
    """What `--with` puts before the prompt, and how many tokens it takes."""
    names = command.options.get("given", ())
    if not names:
        return "", ()
    budget_tokens = command.options.get("budget", GIVEN_TOKENS)
    values = {name: find(name, command.namespace) for name in names}
    parts = llm.describe(values, budget_tokens)
    n_tokens = sum(part.tokens for part in parts)
    told = ", ".join(f"{part.name} {part.tokens:,}{' (cut)' if part.is_cut else ''}" for part in parts)
    note = f"given: {told}; {n_tokens:,} of {budget_tokens:,} tokens (--budget)"
    return f"{join_given(parts)}\n\n", (note,)


def _fit(make: Callable[[Place], Prompt], place: Place, may_drop: bool) -> tuple[Prompt, Place, tuple[str, ...]]:
    """The prompt in its conversation; where it is too long, without the oldest turns, if that was asked for."""
    notes, n_dropped = (), 0
    while True:
        try:
            prompt = make(place.without_oldest(n_dropped))
        except ContextOverflow as error:
            if not place.before[n_dropped:]:
                raise
            if not may_drop:
                raise ContextOverflow(
                    error.problem, "--drop-oldest leaves out the oldest turns; or begin another --chat"
                ) from None
        else:
            needed_tokens = min(prompt.sampling.max_tokens, prompt.context_tokens // 4)
            if not may_drop or not place.before[n_dropped:] or prompt.room_tokens >= needed_tokens:
                break
        n_dropped += 1
    place = place.without_oldest(n_dropped)
    if n_dropped:
        notes += (f"the oldest {_count(n_dropped, 'turn')} dropped: the context is full",)
    if n_turns := len(place.before):
        notes += (f"{n_turns} earlier {'turn is' if n_turns == 1 else 'turns are'} in the context",)
    if place.n_replaced:
        n = len(place.after)
        after = f"; {_count(n, 'later turn')} left as {'it was' if n == 1 else 'they were'}" if n else ""
        notes += (f"this cell's earlier {'turn is' if place.n_replaced == 1 else 'turns are'} replaced{after}",)
    return prompt, place, notes


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' if n != 1 else ''}"


def _weigh(
    notebook: Notebook, screen: Screen, llm: LLM, prompt: Prompt, command: Command, notes: tuple[str, ...]
) -> Choices | Prompt:
    """How likely each of the given answers is."""
    choices = list(command.options["choices"])
    if prompt.mode == "text" and not prompt.text[-1:].isspace():
        choices = [f" {choice}" if choice[:1].isalnum() else choice for choice in choices]  # a word behind a word
    if command.options.get("dry_run"):
        screen.show(prompt, (*notes, f"choices: {', '.join(choices)}; nothing was computed"))
        return prompt
    value = llm.choose_behind(prompt, choices)
    notebook.latest_model = command.options.get("model") or notebook.default_model or ""
    notebook.remember(value)
    screen.show(value, notes)
    return value


def retry(notebook: Notebook, command: Command, screen: Screen) -> Generation:
    """The latest prompt again, with the next seed, or with the options given."""
    latest, llm = find_latest(notebook, screen)
    fresh = {"seed": latest.sampling.seed + 1, "max_tokens": latest.prompt.sampling.max_tokens}
    settings = replace_sampling(latest.sampling, fresh | command.sampling)
    stream = llm.start_again(latest, settings, namespace_of(latest, command))
    return follow(notebook, screen, command, stream, command.notes)


def continue_(notebook: Notebook, command: Command, screen: Screen) -> Generation:
    """Go on where the latest generation was cut off."""
    latest, llm = find_latest(notebook, screen)
    changes = {"max_tokens": notebook.defaults.max_tokens} | command.sampling
    stream = llm.start_from(latest, namespace_of(latest, command), **changes)
    return follow(notebook, screen, command, stream, command.notes)


def branch(notebook: Notebook, command: Command, screen: Screen) -> Generation:
    """What the latest generation would have become with another token at an index."""
    latest, llm = find_latest(notebook, screen)
    index, text = command.text.split(maxsplit=1)
    token = _unquote(text)
    standing = latest.tokens[int(index)] if -len(latest.tokens) <= int(index) < len(latest.tokens) else None
    if standing is not None and standing.text.startswith(" ") and token == text:
        token = f" {token}"  # a word in place of a word; quotes keep it as it is
    namespace = namespace_of(latest, command)
    stream = llm.start_branch(latest, int(index), token, namespace, **command.sampling)
    return follow(notebook, screen, command, stream, ())


def namespace_of(generation: Generation, command: Command) -> Mapping[str, Any] | None:
    """What code is checked against; None for what is none."""
    return command.namespace if generation.prompt.mode == "code" else None


def _unquote(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def find_latest(notebook: Notebook, screen: Screen) -> tuple[Generation, LLM]:
    """The latest generation, and its model: loaded again where it was unloaded."""
    latest = notebook.latest_generation
    if latest is None:
        raise OptionError("nothing was generated yet", "ask something first: %llm Why is the sky blue?")
    return latest, notebook.model(notebook.latest_model, screen.track)


def follow(notebook: Notebook, screen: Screen, command: Command, stream: Stream, notes: tuple[str, ...]) -> Generation:
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
    Verb("code", TAKES_PROMPT, "write Python code; it is never run for you", run_prompt, (*GENERATING, INSERT)),
    Verb("retry", TAKES_NOTHING, "the latest prompt again, with the next seed or the options given", retry, AGAIN),
    Verb("continue", TAKES_NOTHING, "go on where the latest answer was cut off", continue_, AGAIN),
    Verb("branch", TAKES_BRANCH, "put another token at an index of the latest answer, and go on", branch, AGAIN),
)
