"""A line to a command: the verb, then options, then the prompt; reading stops at the first word that is neither."""

from __future__ import annotations

import difflib
import keyword
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magic.choices import check_choices
from llm_magic.errors import OptionError, nearest
from llm_magic.given import GIVEN_TOKENS, read_names


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its flags, the name of its value, what that is called in help, and how it is read.

    `read` is None for a switch. `is_sampling` options are fields of `Sampling`.
    """

    flags: tuple[str, ...]
    name: str
    help: str
    read: Callable[[str], Any] | None = None
    metavar: str = ""
    is_sampling: bool = False
    is_repeatable: bool = False


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"{text!r} is no number", "give a number such as 0.7") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"{text!r} is no whole number", "give a number such as 40") from None


def _seed(text: str) -> int:
    if text == "fresh":
        return secrets.randbelow(2**31)
    return _whole(text)


def _identifier(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise OptionError(f"{text!r} is no name for a variable", "give a name such as answer")
    return text


def _choices(text: str) -> tuple[str, ...]:
    return check_choices([choice.strip() for choice in text.split(",")])


def _place(text: str) -> str:
    if text not in ("next", "replace"):
        raise OptionError(f"{text!r} is no place for code", "give next (a new cell) or replace (this one)")
    return text


def _positive(text: str) -> int:
    if (value := _whole(text)) < 1:
        raise OptionError(f"{text!r} is too small", "give a whole number, 1 or more")
    return value


SAMPLING_OPTIONS = (
    Option(("-T", "--temperature"), "temperature", "0 takes the best token always", _number, "X", True),
    Option(("--top-k",), "top_k", "keep the N best tokens; 0 is off", _whole, "N", True),
    Option(("--top-p",), "top_p", "keep the best tokens that reach P together; 1 is off", _number, "P", True),
    Option(("--min-p",), "min_p", "drop tokens less likely than P times the best; 0 is off", _number, "P", True),
    Option(("--repetition-penalty",), "repetition_penalty", "above 1 avoids what already occurs", _number, "X", True),
    Option(("-n", "--max-tokens"), "max_tokens", "end after N tokens", _whole, "N", True),
    Option(("--stop",), "stop", "end where TEXT begins; may be given again", str, "TEXT", True, True),
    Option(("--seed",), "seed", "the same seed gives the same tokens; `fresh` takes another one", _seed, "N", True),
)
MODEL = Option(("-m", "--model"), "model", "a name, a .gguf file or a folder, for this call", str, "MODEL")
OUT = Option(("-o", "--out"), "out", "put the result into the variable NAME", _identifier, "NAME")
RAW = Option(("--raw",), "raw", "leave {names} as they are")
QUIET = Option(("--quiet",), "quiet", "show nothing")
PROBS = Option(("--probs",), "probs", "add a table of each token's probability and alternatives")
SYSTEM = Option(("-s", "--system"), "system", "the system text", str, "TEXT")
CHAT = Option(("--chat",), "chat", "go on in the conversation NAME", str, "NAME")
CONTINUE = Option(("-c", "--continue"), "continue_", "go on in the latest conversation")
DRY_RUN = Option(("--dry-run",), "dry_run", "show the exact prompt and its tokens; generate nothing")
NO_STREAM = Option(("--no-stream",), "no_stream", "show the answer when it is complete")
SAMPLES = Option(("--samples",), "samples", "N answers side by side, decoded together", _whole, "N")
UI = Option(("--ui",), "ui", "keep the answer alive, with the sampling panel above it")
CHOICES = Option(("--choices",), "choices", "how likely each answer is, exactly; nothing is sampled", _choices, "A,B,…")
REGEX = Option(("--regex",), "regex", "the answer matches a regular expression", str, "R")
SCHEMA = Option(
    ("--schema",), "schema", 'the answer is JSON: "name, age int, tags list", a schema, variable or file', str, "S"
)
GRAMMAR = Option(
    ("--grammar",), "grammar", "the answer follows a grammar (llguidance's Lark), or that of a file", str, "G"
)
WITH = Option(
    ("--with",), "given", "tell the model of variables, cells, the last error: df,In[3],Out[4],Err", read_names, "X,…"
)
BUDGET = Option(("--budget",), "budget", f"tokens for what --with tells ({GIVEN_TOKENS:,})", _whole, "N")
INSERT = Option(("--insert",), "insert", "put code into a cell, `next` or `replace`; it is not run", _place, "WHERE")
DROP_OLDEST = Option(("--drop-oldest",), "drop_oldest", "leave out the oldest turns where the context is full")
TEMPLATE = Option(("-t", "--template"), "template", "a saved prompt with its options", str, "NAME")
TO = Option(("--to",), "to", "the language to translate to", str, "LANGUAGE")
QUESTION = Option(("--question",), "question", "rank the lines of the text as answers to it", str, "TEXT")
TARGET = Option(("--target",), "target", "the token whose rank is told, such as ' Paris'", str, "TOKEN")
LAYER = Option(("--layer",), "layer", "the layer of the head that is shown large", _whole, "N")
HEAD = Option(("--head",), "head", "the head that is shown large", _whole, "N")
FIND = Option(("-q", "--find"), "find", "those in which all words of TEXT occur", str, "TEXT")
CLEAR = Option(("--clear",), "clear", "delete all of it")
COUNT_RECORDS = Option(("-k",), "k", "how many to list (20)", _positive, "N")
COUNT = Option(("-k",), "k", "how many tokens to list", _whole, "N")

SHOWING = (OUT, QUIET, PROBS)
FORMS = (REGEX, SCHEMA, GRAMMAR)
GIVING = (WITH, BUDGET, DRY_RUN)
TALKING = (CHAT, CONTINUE, DROP_OLDEST)
COMMON = (MODEL, SYSTEM, *SAMPLING_OPTIONS, *SHOWING, NO_STREAM, UI)
GENERATING = (*COMMON, *TALKING, *GIVING, CHOICES, *FORMS, SAMPLES, TEMPLATE, RAW)

TAKES_NOTHING, TAKES_MODEL, TAKES_VERB, TAKES_TEXT, TAKES_PROMPT = "nothing", "model", "verb", "text", "prompt"
# a variable of the notebook, or none; two of them; an index and a token's text
TAKES_NAME, TAKES_TWO_NAMES, TAKES_BRANCH = "name", "two names", "branch"
TAKES_SWITCH = "switch"  # on, off, or nothing
TAKES_SUBJECT = "subject"  # a variable, a cell, a word, or nothing; any text as a cell's body
TAKES_SAVED = "saved"  # a saved prompt's name, or nothing
NAME = re.compile(r"\w+(\.\w+|\[[^\[\]]*\])*")  # of a variable, what it holds, or a cell
TAKES_NUMBER = "number"  # of a record, or nothing


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb, what follows it, and the function that carries it out: (notebook, command, screen) -> value.

    `takes` is one of the TAKES_ words; a verb that takes a prompt is a mode, and needs no note that
    it was read as a verb.
    """

    name: str
    takes: str
    help: str
    run: Callable[..., Any]
    options: tuple[Option, ...] = ()
    note: str = ""  # what its own help says more


@dataclass(frozen=True, slots=True)
class Command:
    """What a line means: `verb` is None for a plain prompt. `options` holds those that were given."""

    verb: Verb | None
    text: str
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    namespace: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the notebook's variables

    @property
    def sampling(self) -> dict[str, Any]:
        """The options that are fields of `Sampling`."""
        names = {option.name for option in SAMPLING_OPTIONS}
        return {name: value for name, value in self.options.items() if name in names}


def read_command(line: str, body: str | None, verbs: Mapping[str, Verb]) -> Command:
    """The command of a line magic (`body` None) or a cell magic.

    >>> read_command("-T 0.5 what's up?", None, {}).text
    "what's up?"
    >>> read_command("-- -T 0.5", None, {}).text
    '-T 0.5'
    """
    line = line.strip()
    if line == "--" or line.startswith("-- "):
        return _plain(line[2:], body)
    first, rest = _split_word(line)
    if first in verbs:
        command = _read_verb(verbs[first], rest, body, verbs)
        if command is not None:
            return command
    if body is None and not rest and first and (close := _typo_of(first, verbs)):
        raise OptionError(f"there is no verb {first!r}", f"did you mean {close}? As a prompt: %llm -- {first}")
    options, text = _read_options(line, GENERATING, "a prompt")
    return _plain(text, body, options)


def _read_verb(verb: Verb, rest: str, body: str | None, verbs: Mapping[str, Verb]) -> Command | None:
    """The command, or None where what follows is a sentence, and no arguments of the verb."""
    command = _read_arguments(verb, rest, body, verbs)
    words = rest.split()
    if command is None and body is None and len(words) < 3 and not any(map(str.isalpha, words)):
        raise OptionError(f"`{verb.name}` cannot take {rest!r}", f"%llm help {verb.name}; as a prompt: %llm -- …")
    return command


def _read_arguments(verb: Verb, rest: str, body: str | None, verbs: Mapping[str, Verb]) -> Command | None:
    takes_text = verb.takes in (TAKES_TEXT, TAKES_PROMPT) or (verb.takes == TAKES_SUBJECT and body is not None)
    if not takes_text and body is not None:
        return None
    try:
        options, text = _read_options(rest, verb.options, f"`{verb.name}`")
    except OptionError:
        if takes_text or rest.startswith("-") or len(rest.split()) < 3:
            raise
        return None  # a sentence that begins with the word
    if takes_text:
        command = _plain(text, body, options, is_raw=verb.takes == TAKES_TEXT or verb.name == "text")
        notes = () if verb.takes in (TAKES_PROMPT, TAKES_SUBJECT) else (_verb_note(verb, rest),)
        return Command(verb, command.text, options, notes if body is None else ())
    if verb.takes == TAKES_NOTHING:
        return None if text else Command(verb, "", options)
    if verb.takes == TAKES_SWITCH:
        return Command(verb, text, options) if text in ("", "on", "off") else None
    if verb.takes == TAKES_NUMBER:
        return Command(verb, text, options) if re.fullmatch(r"\d*", text) else None
    if verb.takes == TAKES_SUBJECT:
        return Command(verb, text, options) if not text or NAME.fullmatch(text) else None
    if verb.takes == TAKES_SAVED:
        return Command(verb, text, options) if not text or re.fullmatch(r"[\w.-]+", text) else None
    if verb.takes in (TAKES_NAME, TAKES_TWO_NAMES):
        names = text.split()
        is_enough = len(names) == 2 if verb.takes == TAKES_TWO_NAMES else len(names) < 2
        is_name = _is_name_or_number if verb.takes == TAKES_TWO_NAMES else str.isidentifier
        return Command(verb, text, options) if is_enough and all(map(is_name, names)) else None
    if verb.takes == TAKES_BRANCH:
        return Command(verb, text, options) if re.match(r"-?\d+\s+\S", text) else None
    try:
        word, more = _take_word(text, 0) if text else ("", 0)
    except OptionError:  # an apostrophe, not a quoted name
        return None
    if text[more:].strip():
        return None
    if verb.takes == TAKES_VERB and word and word not in verbs and not _typo_of(word, verbs):
        return None
    return Command(verb, word, options)


def _is_name_or_number(word: str) -> bool:
    return word.isidentifier() or re.fullmatch(r"\d+|Out\[\d+\]", word) is not None


def _verb_note(verb: Verb, rest: str) -> str:
    return (
        f"read as the verb `{verb.name}`; as a prompt: %llm -- {verb.name} {rest[:30]}{'…' if len(rest) > 30 else ''}"
    )


def _plain(text: str, body: str | None, options: Mapping[str, Any] | None = None, is_raw: bool = False) -> Command:
    if body is None:
        return Command(None, text.strip(), options or {})
    # the cell's own last newline is no part of a raw text; a prompt loses all around it
    body = body.removesuffix("\n") if is_raw else body.strip("\n")
    return Command(None, "\n\n".join(part for part in (text.strip(), body) if part), options or {})


def _typo_of(word: str, verbs: Mapping[str, Verb]) -> str:
    close = difflib.get_close_matches(word, verbs, 1, cutoff=0.8) if word.isalpha() else []
    return close[0] if close else ""


_FLAG = re.compile(r"\s*(--?[A-Za-z](?:[\w-]|\.\d)*)(=|(?=\s|$))|\s*--(?=\s|$)")


def _split_word(text: str) -> tuple[str, str]:
    word, *rest = text.split(maxsplit=1)[:2] or [""]
    return word, rest[0] if rest else ""


def _read_options(text: str, allowed: tuple[Option, ...], whose: str) -> tuple[dict[str, Any], str]:
    """Leading options of a text, and the text behind them."""
    by_flag = {flag: option for option in allowed for flag in option.flags}
    values: dict[str, Any] = {}
    position = 0
    while match := _FLAG.match(text, position):
        if match[1] is None:  # `--`: the rest is the prompt
            return values, text[match.end() :].strip()
        flag, position = match[1], match.end()
        if flag not in by_flag and flag[:2] in by_flag and not flag.startswith("--"):
            raise OptionError(f"{flag} is not read", f"write {flag[:2]} {flag[2:]}, or as a prompt: %llm -- {flag} …")
        if flag not in by_flag:
            known = [flag for option in allowed for flag in option.flags]
            fix = f"the nearest are {nearest(flag, known)}; as a prompt: %llm -- {flag} …" if known else "it takes none"
            raise OptionError(f"there is no option {flag} for {whose}", fix)
        option = by_flag[flag]
        if option.read is None:
            if match[2] == "=":
                raise OptionError(f"{flag} is a switch", "give it without a value")
            values[option.name] = True
            continue
        value, position = _take_value(text, position, flag, option)
        values[option.name] = (*values.get(option.name, ()), value) if option.is_repeatable else value
    return values, text[position:].strip()


def _take_value(text: str, position: int, flag: str, option: Option) -> tuple[Any, int]:
    if not text[position:].strip():
        raise OptionError(f"{flag} lacks its value", f"write {flag} {option.metavar}")
    word, position = _take_word(text, position)
    try:
        return option.read(word), position
    except OptionError as error:
        raise OptionError(f"{flag}: {error.problem}", error.fix) from None


def _take_word(text: str, position: int) -> tuple[str, int]:
    """The next word, quoted as in a shell, and where it ends."""
    while position < len(text) and text[position].isspace():
        position += 1
    word, quote = [], ""
    while position < len(text):
        character = text[position]
        if quote:
            if character == quote:
                quote = ""
            elif character == "\\" and quote == '"' and text[position + 1 : position + 2] in ('"', "\\"):
                position += 1
                word.append(text[position])
            else:
                word.append(character)
        elif character in "'\"":
            quote = character
        elif character.isspace():
            break
        else:
            word.append(character)
        position += 1
    if quote:
        raise OptionError(f"the quote {quote} of an option's value is not closed", f"add {quote} where the value ends")
    return "".join(word), position
