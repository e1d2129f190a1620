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
    return _run(notebook, command, screen, llm, llm.ask_explanation(_read_subject(command, is_error_first=True)), "ask")


def fix(notebook: Notebook, command: Command, screen: Screen) -> Generation | Prompt:
    """The code that failed last, or a cell's, with its mistake corrected."""
    llm = notebook.model(command.options.get("model"), screen.track)
    subject = _read_subject(command, is_error_first=True)
    failure = None
    if isinstance(subject, BaseException):
        code = failing_source(subject)
        failure = llm.describe({"Err": subject})[0].text
        if code is None:
            raise OptionError("the last error came from no cell", "name the cell: %llm fix In[3]")
    else:
        code = subject
    return _run(notebook, command, screen, llm, tasks.ask_correction(code, failure), "code")


def summarize(notebook: Notebook, command: Command, screen: Screen) -> Generation | Prompt:
    """A text in a few sentences; a long one in passes."""
    llm = notebook.model(command.options.get("model"), screen.track)
    text = _read_text(notebook, command)
    answer_tokens = command.options.get("max_tokens", notebook.defaults.max_tokens)
    shorter = llm.condense(text, screen.track, answer_tokens)
    return _run(notebook, command, screen, llm, tasks.ask_summary(shorter), "ask")


def translate(notebook: Notebook, command: Command, screen: Screen) -> Generation | Prompt | tasks.Parts:
    """A text in another language; a long one in parts."""
    if "to" not in command.options:
        raise OptionError("translate lacks its language", "write %llm translate --to French TEXT")
    llm = notebook.model(command.options.get("model"), screen.track)
    text, language = _read_text(notebook, command), command.options["to"]
    if len(tasks.split_text(text, tasks.TRANSLATION_PART_TOKENS, llm.count_tokens)) > 1 and not _is_dry(command):
        settings = replace_sampling(notebook.defaults, command.sampling)
        value = llm.translate(text, language, track=screen.track, **dataclasses.asdict(settings))
        notebook.begin_prompt(command.options.get("model"), None)
        notebook.remember(value)
        screen.show(value, command.notes)
        return value
    return _run(notebook, command, screen, llm, tasks.ask_translation(text, language), "ask")


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


def _read_subject(command: Command, is_error_first: bool) -> str | BaseException:
    """The last error, a cell's code, a variable's text, or the text itself."""
    name = command.text.strip()
    if not name:
        error = command.namespace.get("Err")
        if error is None:
            raise OptionError("no cell has failed yet", f"name one: %llm {command.verb.name} In[3]")
        return error
    return _read_value(command, name)


def _read_value(command: Command, name: str) -> Any:
    """What a name means: a cell, an error, a variable's text; else the text as it stands."""
    start = name.split("[")[0].split(".")[0]
    if not NAME.fullmatch(name) or start not in command.namespace:
        return name
    value = find(name, command.namespace)
    return value if isinstance(value, str | BaseException) else str(value)


def _read_text(notebook: Notebook, command: Command) -> str:
    text = command.text.strip()
    if text:
        is_name = len(text.split()) == 1
        value = _read_value(command, text) if is_name else text
        return str(value)
    if notebook.latest_generation is not None:
        return notebook.latest_generation.text
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
