"""What a line means: verbs, options, prompt, interpolation, completion."""

from __future__ import annotations

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.completion import complete
from llm_magic.errors import OptionError
from llm_magic.grammar import read_command
from llm_magic.interpolate import interpolate
from llm_magic.verbs import VERBS


def read(line, body=None):
    command = read_command(line, body, VERBS)
    return command.verb.name if command.verb else None, dict(command.options), command.text


@pytest.mark.parametrize("line, expected", [
    ("Why is the sky blue?", (None, {}, "Why is the sky blue?")),
    ("what's up?", (None, {}, "what's up?")),
    ('say "hi (there', (None, {}, 'say "hi (there')),
    ("-T 0.5 -n 20 hello -T 9", (None, {"temperature": 0.5, "max_tokens": 20}, "hello -T 9")),
    ("--temperature=0.5 hello", (None, {"temperature": 0.5}, "hello")),
    ("--stop 'the end' --stop END x", (None, {"stop": ("the end", "END")}, "x")),
    ('-s "You are \\"kind\\"." hi', (None, {"system": 'You are "kind".'}, "hi")),
    ("-s 'it''s' hi", (None, {"system": "its"}, "hi")),
    ("-c --quiet and then?", (None, {"continue_": True, "quiet": True}, "and then?")),
    ("code -n 5 sort a list", ("code", {"max_tokens": 5}, "sort a list")),
    ("text Once  upon", ("text", {}, "Once  upon")),
    ("ask load the dishwasher", ("ask", {}, "load the dishwasher")),
    ("load the dishwasher", (None, {}, "load the dishwasher")),
    ("load tiny.gguf", ("load", {}, "tiny.gguf")),
    ("load 'my models/a.gguf'", ("load", {}, "my models/a.gguf")),
    ("-- load tiny.gguf", (None, {}, "load tiny.gguf")),
    ("-- -T 0.5", (None, {}, "-T 0.5")),
    ("-T 0 -- --help me", (None, {"temperature": 0.0}, "--help me")),
    ("reset", ("reset", {}, "")),
    ("reset my password", (None, {}, "reset my password")),
    ("help", ("help", {}, "")),
    ("help next", ("help", {}, "next")),
    ("help me write a poem", (None, {}, "help me write a poem")),
    ("help I'm stuck with this", (None, {}, "help I'm stuck with this")),
    ("load what's up", (None, {}, "load what's up")),
    ("next\tabc", ("next", {}, "abc")),
    ("continue --seed 3", ("continue", {"seed": 3}, "")),
    ("continue the story", (None, {}, "continue the story")),
    ("next -k 3 The capital", ("next", {"k": 3}, "The capital")),
    ("-5 + 3 = ?", (None, {}, "-5 + 3 = ?")),
    ("- an item", (None, {}, "- an item")),
    ("-", (None, {}, "-")),
])  # fmt: skip
def test_a_line_means(line, expected):
    assert read(line) == expected


@pytest.mark.parametrize("line, body, expected", [
    ("", "Why?\nReally?\n", (None, {}, "Why?\nReally?")),
    ("-T 0", "  indented\n", (None, {"temperature": 0.0}, "  indented")),
    ("Summarize:", "a text\n", (None, {}, "Summarize:\n\na text")),
    ("text -n 3", "def f(\n", ("text", {"max_tokens": 3}, "def f(")),
    ("reset", "of the router\n", (None, {}, "reset\n\nof the router")),
    ("", "\n", (None, {}, "")),
])  # fmt: skip
def test_a_cell_means(line, body, expected):
    assert read(line, body) == expected


def test_a_verb_that_takes_text_says_that_it_was_read_as_one():
    assert "-- next year will be" in read_command("next year will be", None, VERBS).notes[0]
    assert not read_command("code something", None, VERBS).notes


@pytest.mark.parametrize("line, message", [
    ("--temprature 0.3 hi", "no option --temprature.*--temperature"),
    ("-T hot hi", "-T: 'hot' is no number"),
    ("--top-k 1.5 hi", "no whole number"),
    ("-T", "-T lacks its value"),
    ("-s 'open", "not closed"),
    ("-o 1x hi", "no name for a variable"),
    ("--quiet=1 hi", "is a switch"),
    ("info --seed 3", "no option --seed for `info`"),
    ("modles", "no verb 'modles'.*did you mean models"),
    ("--probs=3 x", "switch"),
])  # fmt: skip
def test_a_wrong_line_is_told_with_the_nearest(line, message):
    with pytest.raises(OptionError, match=message):
        read(line)


@given(st.text())
def test_any_line_is_read_or_refused(line):
    try:
        read(line)
    except OptionError as error:
        assert str(error) and "\n" not in str(error)


@given(st.text())
def test_whatever_stands_behind_two_dashes_is_the_prompt(text):
    assert read("-- " + text)[2] == text.strip()


class Thing:
    size = 3

    @property
    def broken(self):
        raise ValueError("no")

    def __str__(self):
        return "a {size} thing"


@pytest.mark.parametrize("text, expected, put_in", [
    ("{thing.size} {thing}", "3 a {size} thing", ("thing.size", "thing")),
    ("{rows[1]} {table['a']} {table[a]}", "20 x x", ("rows[1]", "table['a']", "table[a]")),
    ('{table["a"]}', "x", ('table["a"]',)),
    ("{missing} {thing.missing} {rows[9]} {rows[x]} {thing.broken}", None, ()),
    ("{f()} {1+1} {x!r} {size:>3} {} {{thing}} {thing .size}", None, ()),
    ("{thing.__class__} {rows[-1]}", "{thing.__class__} 20", ("rows[-1]",)),
    ('{"json": {"a": 1}}', None, ()),
    ("{size}", "7", ("size",)),
])  # fmt: skip
def test_names_are_put_in_once_and_all_else_stays(text, expected, put_in):
    namespace = {"thing": Thing(), "rows": [10, 20], "table": {"a": "x"}, "size": 7, "f": print, "x": "{size}"}
    assert interpolate(text, namespace) == (text if expected is None else expected, put_in)


def test_looking_a_key_up_does_not_make_it():
    made = collections.defaultdict(list)
    assert interpolate("{made[new]}", {"made": made}) == ("{made[new]}", ()) and not made


def test_a_value_that_holds_braces_is_not_filled_again():
    assert interpolate("{a}", {"a": "{b}", "b": "wrong"})[0] == "{b}"


def test_a_value_that_cannot_be_written_is_an_error():
    class Bad:
        def __str__(self):
            raise RuntimeError("boom")

    with pytest.raises(OptionError, match="boom"):
        interpolate("{bad}", {"bad": Bad()})


@pytest.mark.parametrize("line, expected", [
    ("%llm mod", ["models"]),
    ("%%llm co", ["code", "continue", "complete"]),
    ("%llm --temp", ["--temperature", "--template"]),
    ("%llm next -", ["-m", "--model", "-o", "--out", "--quiet", "--raw", "-k"]),
    ("%llm -m sm", ["smollm2-135m"]),
    ("%llm load ", ["smollm2-135m"]),
    ("%llm help nex", ["next"]),
    ("%llm tell me mod", []),
])  # fmt: skip
def test_tab_offers(line, expected):
    assert complete(line, VERBS, ["smollm2-135m"]) == expected


def test_every_option_of_a_verb_has_one_spelling():
    for verb in VERBS.values():
        flags = [flag for option in verb.options for flag in option.flags]
        assert len(flags) == len(set(flags))
