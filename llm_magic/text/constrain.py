"""Which tokens may come next, so that a text gets its form: llguidance's automata over the model's vocabulary.

Grammar-constrained decoding: of all tokens only those stay that some text of the form goes on with (Willard and Louf,
2023, arXiv:2307.09702). The work is done by the `llguidance` library; a grammar is in its dialect of Lark.
"""

from __future__ import annotations

import copy
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llguidance import LLMatcher, LLTokenizer

from llm_magic.errors import OptionError
from llm_magic.form import Form, limit_schema
from llm_magic.text.tokenizer import Tokenizer

# JSON as models have mostly read it: with a space behind colons and commas, and nowhere else
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_KEPT_FORMS = 32


class Constraint:
    """Where one text stands in its form."""

    def __init__(self, matcher: LLMatcher, form: Form):
        self._matcher, self.form = matcher, form

    def allowed(self) -> bytes:
        """The tokens that may come next: one bit for each id, the lowest first."""
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            reason = _first_line(self._matcher.get_error())
            raise OptionError(f"the {self.form.kind} became too large to follow ({reason})", "give a simpler one")
        return mask

    def accept(self, token_id: int) -> bool:
        """Go on by a token that the text got; False where the form does not allow it."""
        return not self._matcher.is_stopped() and self._matcher.consume_token(token_id)

    @property
    def is_finished(self) -> bool:
        """Whether the text has its form, and nothing can follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()


class Constrainer:
    """Forms over one vocabulary; a form is compiled once."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_tokens: int):
        if not tokenizer.end_ids:
            raise OptionError("the model has no token that ends a text", "its outputs cannot be given a form")
        self._tokenizer = LLTokenizer(tokenizer.to_json(), vocabulary_tokens, sorted(tokenizer.end_ids))
        self._matchers: OrderedDict[Form, LLMatcher] = OrderedDict()

    def start(self, form: Form, ids: Sequence[int] = ()) -> Constraint:
        """A text of that form, behind the tokens that it has already. Raises, with position and reason, for a form
        that cannot be read or followed."""
        matcher = self._matchers.get(form)
        if matcher is None:
            matcher = self._matchers[form] = self._compile(form)
            while len(self._matchers) > _KEPT_FORMS:
                self._matchers.popitem(last=False)
        constraint = Constraint(matcher.deep_copy(), form)
        for token_id in ids:
            if not constraint.accept(token_id):
                raise OptionError(f"the text does not have the form of the {form.kind}", "begin it again")
        return constraint

    def _compile(self, form: Form) -> LLMatcher:
        matcher = self._match(narrow(form))
        if isinstance(matcher, str):  # no narrower than it was written: its limits, or an error with its place
            matcher = self._match(form)
        if isinstance(matcher, str):
            raise OptionError(*_EXPLAIN[form.kind](self, form, matcher))
        return matcher

    def _match(self, form: Form) -> LLMatcher | str:
        """The automaton, or what is wrong with the form."""
        try:
            matcher = LLMatcher(self._tokenizer, _GRAMMARS[form.kind](form.source), log_level=0)
        except ValueError as error:
            return str(error)
        return matcher.get_error() if matcher.is_error() else matcher

    def _explain_regex(self, form: Form, error: str) -> tuple[str, str]:
        match = re.search(r"^ {4}( *)\^+\nerror: (.*)$", error, re.MULTILINE)
        if match is None:
            reason = _first_line(error.partition("(in regex): ")[2] or error)
            return f"the regex {form.source!r:.60} cannot be used ({reason})", "give a simpler one"
        position = len(match[1]) + 1
        return f"the regex has an error at character {position}: {match[2]}", "mend it there"

    def _explain_grammar(self, form: Form, error: str) -> tuple[str, str]:
        match = re.match(r"(?:at )?(\d+)\((\d+)\): (.*)", error)
        if match is None:
            return f"the grammar cannot be used ({_first_line(error)})", "it is read as llguidance's dialect of Lark"
        where = f"line {match[1]}, column {match[2]}"
        return f"the grammar has an error at {where}: {match[3]}", "it is read as llguidance's dialect of Lark"

    def _explain_schema(self, form: Form, error: str) -> tuple[str, str]:
        schema = json.loads(form.source)
        path, reason = self._find_fault(schema, schema, "", error)
        return f"the schema has an error at {path or 'its top'}: {_first_line(reason)}", "mend it there"

    def _find_fault(self, root: Mapping[str, Any], part: Any, path: str, error: str) -> tuple[str, str]:
        """The innermost part of a schema that is wrong by itself: its JSON pointer, and why."""
        named = {key: root[key] for key in ("$defs", "definitions") if key in root}
        for key, one in _parts(part):
            if not isinstance(one, Mapping):
                continue
            found = self._match(Form("schema", json.dumps(named | dict(one))))
            if isinstance(found, str):
                return self._find_fault(root, one, f"{path}/{key}", found)
        return path, error


def _parts(schema: Any) -> Iterable[tuple[str, Any]]:
    """The schemas that stand in one, by their JSON pointers."""
    if not isinstance(schema, Mapping):
        return
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, Mapping):
            yield from ((f"{key}/{name}", one) for name, one in value.items())
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            yield from ((f"{key}/{index}", one) for index, one in enumerate(value))
        elif key in ("items", "additionalProperties"):
            yield key, value


def narrow(form: Form) -> Form:
    """The form with limits to what is open-ended, and digits that are digits."""
    if form.kind == "schema":
        return Form("schema", json.dumps(limit_schema(json.loads(form.source))))
    return Form("regex", narrow_digits(form.source)) if form.kind == "regex" else form


def _schema_grammar(source: str) -> str:
    return LLMatcher.grammar_from_json_schema(json.loads(source), overrides=copy.copy(_JSON_STYLE))


_GRAMMARS = {
    "regex": LLMatcher.grammar_from_regex,
    "schema": _schema_grammar,
    "grammar": LLMatcher.grammar_from_lark,
}
_EXPLAIN = {
    "regex": Constrainer._explain_regex,
    "schema": Constrainer._explain_schema,
    "grammar": Constrainer._explain_grammar,
}


def narrow_digits(regex: str) -> str:
    r"""A regex in which `\d` is a digit from 0 to 9, as is mostly meant: else a model may write those of any script.

    >>> print(narrow_digits(r"\d{4}[\d.]\\d"))
    [0-9]{4}[0-9.]\\d
    """
    narrowed, in_class = [], False
    for piece in re.findall(r"\\.|.", regex, re.DOTALL):
        if piece == "\\d":
            piece = "0-9" if in_class else "[0-9]"
        elif piece == "[":
            in_class = True
        elif piece == "]":
            in_class = False
        narrowed.append(piece)
    return "".join(narrowed)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
