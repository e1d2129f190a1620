"""Ready-made tasks: explain and mend code and errors, summarise, translate."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from llm_magic import tasks
from llm_magic.errors import OptionError
from llm_magic.generation import Generation, Prompt, replace_sampling
from llm_magic.given import failing_source, find
from llm_magic.grammar import (
    COMMON,
    DRY_RUN,
    INSERT,
    NAME,
    RAW,
    TAKES_SUBJECT,
    TAKES_TEXT,
    TO,
    Command,
    Verb,
)
from llm_magic.notebook import Notebook
from llm_magic.screens import Screen
from llm_magic.verbs.generate import follow, insert_code

if TYPE_CHECKING:
    from llm_magic.llm import LLM


def explain(notebook: Notebook, command: Command, screen: Screen) -> Generation | Prompt:
    """What the last error means, or what a cell, variable or text says."""
    llm = notebook.model(command.options.get("model"), screen.track)
    subject, notes = _read_subject(command, llm)
    return _run(notebook, _note(command, notes), screen, llm, llm.ask_explanation(subject), "ask")


def fix(notebook: Notebook, command: Command, screen: Screen) -> Generation | Prompt:
    """The code that failed last, or a cell's, with its mistake corrected."""
    llm = notebook.model(command.options.get("model"), screen.track)
    subject, notes = _read_subject(command, llm)
    failure = None
    if isinstance(subject, BaseException):
        code = failing_source(subject)
        if code is None or "get_ipython().run_" in code:  # as IPython rewrote it
            code = notebook.error_cell
        failure = llm.describe({"Err": subject})[0].text
        if code is None:
            raise OptionError("the last error came from no cell", "name the cell: %llm fix In[3]")
    else:
        code = subject
    return _run(notebook, _note(command, notes), screen, llm, tasks.ask_correction(code, failure), "code")


def summarize(notebook: Notebook, command: Command, screen: Screen) -> Generation | Prompt:
    """A text in a few sentences; a long one in passes."""
    llm = notebook.model(command.options.get("model"), screen.track)
    text, notes = _read_text(notebook, command, llm)
    command = _note(command, notes)
    answer_tokens = command.options.get("max_tokens", notebook.defaults.max_tokens)
    shorter = llm.condense(text, screen.track, answer_tokens)
    return _run(notebook, command, screen, llm, tasks.ask_summary(shorter), "ask")


def translate(notebook: Notebook, command: Command, screen: Screen) -> Generation | Prompt | tasks.Parts:
    """A text in another language; a long one in parts."""
    if "to" not in command.options:
        raise OptionError("translate lacks its language", "write %llm translate --to French TEXT")
    llm = notebook.model(command.options.get("model"), screen.track)
    (text, notes), language = _read_text(notebook, command, llm), command.options["to"]
    command = _note(command, notes)
    if not text.strip() or not language.strip():
        raise OptionError(f"the {'language' if text.strip() else 'text'} is empty", "give both")
    if len(tasks.split_text(text, tasks.TRANSLATION_PART_TOKENS, llm.count_tokens)) > 1 and not _is_dry(command):
        settings = replace_sampling(notebook.defaults, command.sampling)
        value = llm.translate(text, language, track=screen.track, **dataclasses.asdict(settings))
        notebook.begin_prompt(command.options.get("model"), None)
        notebook.remember(value)
        screen.show(value, command.notes)
        return value
    return _run(notebook, command, screen, llm, tasks.ask_translation(text, language), "ask")


def _note(command: Command, notes: tuple[str, ...]) -> Command:
    return dataclasses.replace(command, notes=(*command.notes, *notes))


def _is_dry(command: Command) -> bool:
    return command.options.get("dry_run", False)


def _run(notebook: Notebook, command: Command, screen: Screen, llm: LLM, text: str, mode: str) -> Generation | Prompt:
    """Generate behind a ready-made prompt."""
    options = command.options
    settings = replace_sampling(notebook.defaults, command.sampling)
    system = options.get("system", notebook.system if mode == "ask" else None)
    prompt = llm.prompt(text, mode=mode, system=system, **dataclasses.asdict(settings))
    if _is_dry(command):
        screen.show(prompt, (*command.notes, "nothing was generated"))
        return prompt
    notebook.begin_prompt(options.get("model"), None)
    stream = llm.start(prompt, namespace=command.namespace if mode == "code" else None)
    generation = follow(notebook, screen, command, stream, command.notes)
    insert_code(screen, command, generation)
    return generation


def _read_subject(command: Command, llm: LLM) -> tuple[str | BaseException, tuple[str, ...]]:
    """The last error, a cell's code, a variable as text, or the text itself; and what is to be said of it."""
    name = command.text.strip()
    if name:
        return _read_value(command, llm, name)
    if (error := command.namespace.get("Err")) is None:
        raise OptionError("no cell has failed yet", f"name one: %llm {command.verb.name} In[3]")
    return error, ()


def _read_value(command: Command, llm: LLM, name: str) -> tuple[Any, tuple[str, ...]]:
    """What a name means: a cell, an error, a variable as text; else the text as it stands, which is said."""
    start = name.split("[")[0].split(".")[0]
    if start not in command.namespace or not NAME.fullmatch(name):
        is_name = name.isidentifier()
        return name, ((f"read as a text: there is no variable {name}",) if is_name else ())
    value = find(name, command.namespace)
    if isinstance(value, str | BaseException):
        return value, ()
    (given,) = llm.describe({name: value})
    return given.text, (f"{name}: {given.tokens:,} tokens{' (cut)' if given.is_cut else ''}",)


def _read_text(notebook: Notebook, command: Command, llm: LLM) -> tuple[str, tuple[str, ...]]:
    text = command.text.strip()
    if text:
        value, notes = _read_value(command, llm, text) if len(text.split()) == 1 else (text, ())
        return str(value), notes
    if notebook.latest_generation is not None:
        return notebook.latest_generation.text, ()
    raise OptionError("there is no text", f"write one, or name a variable: %llm {command.verb.name} report")


_SMALL = "The default model is too small to do this well: take its text for a draft, or load a better one, such as"
VERBS = (
    Verb(
        "explain",
        TAKES_SUBJECT,
        "explain the last error, a cell, a variable, or the cell's text",
        explain,
        (*COMMON, DRY_RUN, RAW),
        f"{_SMALL} Qwen2.5-Coder-1.5B-Instruct.",
    ),
    Verb(
        "fix",
        TAKES_SUBJECT,
        "correct the code that failed last, or a cell's; it is never run for you",
        fix,
        (*COMMON, INSERT, DRY_RUN, RAW),
        f"{_SMALL} Qwen2.5-Coder-1.5B-Instruct.",
    ),
    Verb(
        "summarize",
        TAKES_TEXT,
        "a text, variable or cell in a few sentences; a long one in passes",
        summarize,
        (*COMMON, DRY_RUN, RAW),
        f"{_SMALL} SmolLM2-1.7B-Instruct.",
    ),
    Verb(
        "translate",
        TAKES_TEXT,
        "a text, variable or cell in another language: --to French",
        translate,
        (*COMMON, TO, DRY_RUN, RAW),
        "The default model knows little but English: load one that knows both, such as Qwen2.5-1.5B-Instruct.",
    ),
)
