"""What is kept between sessions: the history of prompts and answers, and saved prompts."""

from __future__ import annotations

from typing import Any

from llm_magic import templates
from llm_magic.errors import OptionError
from llm_magic.generation import Generation
from llm_magic.grammar import (
    CLEAR,
    COUNT_RECORDS,
    FIND,
    NO_STREAM,
    OUT,
    QUIET,
    SHOWING,
    TAKES_NUMBER,
    TAKES_SAVED,
    UI,
    Command,
    Verb,
)
from llm_magic.history import Record
from llm_magic.notebook import Notebook
from llm_magic.records import Records, find_difference, open_history
from llm_magic.screens import Screen
from llm_magic.verbs.generate import find_latest, follow

NOT_SAVED = ("out", "quiet", "template", "dry_run")  # of a prompt's options: what belongs to one call


def history(notebook: Notebook, command: Command, screen: Screen) -> Records | Record | None:
    """What was asked and answered: the latest, those with some words, or one record whole."""
    archive = open_history()
    if command.options.get("clear"):
        n = archive.clear()
        screen.say(f"{n} record{' is' if n == 1 else 's are'} deleted")
        return None
    if command.text:
        record = archive.get(int(command.text))
        head = f"{record.number}  {record.at}  {record.model}  {record.finish_reason}"
        screen.say(f"{head}\n\n{record.prompt}{record.answer}")
        return record
    term = command.options.get("find", "")
    value = Records(tuple(archive.find(term, command.options.get("k", 20))), term)
    notes = tuple(filter(None, [archive.take_notice()]))
    screen.show(value, notes if notebook.keeps_history else (*notes, "%config LLMMagics.history is off"))
    return value


def replay(notebook: Notebook, command: Command, screen: Screen) -> Generation:
    """The latest generation, or a record of the history, once more; says where it differs."""
    if not command.text:
        latest, llm = find_latest(notebook, screen)
        value = follow(notebook, screen, command, llm.start_replay(latest), command.notes)
        then_ids, then_texts = [t.id for t in latest.tokens], [t.text for t in latest.tokens]
        is_whole, is_steered = latest.finish_reason != "interrupted", False
    else:
        record = open_history().get(int(command.text))
        llm = notebook.model(notebook.find_model(record.model), screen.track)
        if record.sha256 and llm.info.sha256 and record.sha256 != llm.info.sha256:
            screen.say(f"record {record.number} was made with another file of {record.model}")
        prompt = llm.read_prompt(record)
        notebook.begin_prompt(notebook.find_model(record.model), None)
        value = follow(notebook, screen, command, llm.start(prompt, record.extra.get("sample", 0)), command.notes)
        then_ids, then_texts = record.token_ids, llm.read_pieces(record.token_ids)
        is_whole, is_steered = record.finish_reason != "interrupted", record.extra.get("is_steered", False)
    was_stopped = value.finish_reason == "interrupted"
    index = find_difference(then_ids, [token.id for token in value.tokens], is_whole, not was_stopped)
    line = _say_difference(index, then_texts, [token.text for token in value.tokens])
    screen.say(f"{line} (its settings or tokens were changed on the way)" if is_steered and index is not None else line)
    return value


def _say_difference(index: int | None, then: list[str], now: list[str]) -> str:
    if index is None:
        n = min(len(then), len(now))
        return f"all {n} tokens are as they were" if len(now) >= len(then) else f"the first {n} are as they were"
    texts = [repr(texts[index]) if index < len(texts) else "the end" for texts in (then, now)]
    return f"token {index} differs: {texts[0]} then, {texts[1]} now"


def template(notebook: Notebook, command: Command, screen: Screen) -> Any:
    """Save the last prompt with its options and holes; without a name, list what is saved."""
    if not command.text:
        names = templates.names()
        screen.say(f"saved prompts: {', '.join(names)}; %llm -t NAME uses one" if names else "no prompt is saved")
        return names
    latest, put_in = notebook.latest_command, notebook.latest_put_in
    if latest is None:
        raise OptionError("nothing was asked yet", "ask something first: %llm What is the weather in {city}?")
    options = {name: value for name, value in latest.options.items() if name not in NOT_SAVED}
    made = templates.Template(command.text, latest.verb.name if latest.verb else "", latest.text, options, put_in)
    templates.save(made)
    holes = f"; it asks for {', '.join(put_in)}" if put_in else ""
    screen.say(f"saved as {command.text}: %llm -t {command.text}{holes}")
    return made


VERBS = (
    Verb(
        "history",
        TAKES_NUMBER,
        "what was asked and answered on this machine: -q TEXT, or one by its number",
        history,
        (FIND, COUNT_RECORDS, CLEAR, OUT, QUIET),
        "It is kept in a file of yours, without secrets as far as they can be told; %config LLMMagics.history = False.",
    ),
    Verb(
        "replay",
        TAKES_NUMBER,
        "the latest answer, or a record of the history, once more: names the first token that differs",
        replay,
        (*SHOWING, NO_STREAM, UI),
    ),
    Verb("template", TAKES_SAVED, "save the last prompt, its options and {holes}; -t NAME uses it", template, (OUT,)),
)
