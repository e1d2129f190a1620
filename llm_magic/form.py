"""The form that an output must have: a regular expression, a JSON schema, or a grammar; and how it is read back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_magic.errors import OptionError, nearest

FORM_TOKENS = 1024  # what is open-ended has limits, so that nearly all that begins ends within so many
STRING_CHARACTERS, LISTED_CHARACTERS = 200, 50  # of a string that has no limit of its own; of one in a list
LIST_ITEMS, OBJECT_KEYS = 8, 8
LARGEST, SMALLEST_STEP = 10**15, 1e-6  # of numbers: beyond, digits could go on for ever
KEY = "^.{1,40}$"  # of an object whose keys are free
DEPTH = 3  # of "anything" inside anything


@dataclass(frozen=True, slots=True)
class Form:
    """`kind` is `regex`, `schema` or `grammar`; `source` the expression, the schema as JSON, or the Lark grammar."""

    kind: str
    source: str

    def read(self, text: str) -> Any:
        """A finished text as a value: parsed where the form is a schema, else the text itself."""
        return json.loads(text) if self.kind == "schema" else text


def make_form(regex: str | None = None, schema: Any = None, grammar: str | None = None) -> Form | None:
    """The form that was asked for, if one was.

    A schema is JSON Schema (a dict, its JSON, or a class with `model_json_schema()`, such as Pydantic's), or shorthand.

    >>> make_form(regex="[0-9]+")
    Form(kind='regex', source='[0-9]+')
    >>> make_form(schema="name, age int").kind
    'schema'
    """
    given = {"regex": regex, "schema": schema, "grammar": grammar}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise OptionError(f"{' and '.join(named)} exclude each other", "give one of them")
    if not named:
        return None
    if schema is not None:
        try:
            return Form("schema", json.dumps(_read_schema(schema), ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise OptionError(f"the schema is no JSON ({error})", "give plain values") from None
    source = given[named[0]]
    if not isinstance(source, str) or not source:
        raise OptionError(f"{named[0]} is {source!r:.60}", "give a text of at least one character")
    return Form(named[0], source)


def _read_schema(schema: Any) -> dict[str, Any]:
    if hasattr(schema, "model_json_schema"):
        try:
            schema = schema.model_json_schema()
        except Exception as error:  # whatever a user's class raises
            raise OptionError(f"the class cannot tell its schema ({error})", "give the schema itself") from None
    if isinstance(schema, str) and not schema.lstrip().startswith(("{", "[")):
        return read_shorthand(schema)
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            where = f"line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "it"
            raise OptionError(f"the schema is no JSON: at {where}, {error}", "mend it there") from None
    if not isinstance(schema, Mapping):
        raise OptionError(
            f"the schema is a {type(schema).__name__}",
            "give name, age int; or JSON Schema; or a Pydantic class",
        )
    return dict(schema)


_TYPES = {
    "str": {"type": "string"},
    "text": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "list": {"type": "array", "items": {"type": "string"}},
}
_FIELD = re.compile(r"\s*([^\s,:]+)(?:(?:\s*:\s*|[ \t]+)([^,]*?))?\s*(?:,|$)")


def read_shorthand(text: str) -> dict[str, Any]:
    """`name, age int, tags list, mood good|bad` as a JSON schema: all fields are required, a type is `str` unless said.

    >>> read_shorthand("age int, mood good|bad")["properties"]
    {'age': {'type': 'integer'}, 'mood': {'enum': ['good', 'bad']}}
    >>> read_shorthand("name, age itn")
    Traceback (most recent call last):
    llm_magic.errors.OptionError: the schema's field 'age' has the unknown type 'itn', at character 11: the nearest \
are int, list; or a choice, as good|bad
    """
    properties: dict[str, Any] = {}
    position = 0
    while position < len(text):
        match = _FIELD.match(text, position)
        if match is None:
            raise OptionError(f"the schema lacks a field at character {position + 1}", "write name, age int, tags list")
        name, kind = match[1], (match[2] or "str").strip()
        if name in properties:
            raise OptionError(f"the schema has the field {name!r} twice, at character {match.start(1) + 1}", "drop one")
        properties[name] = _read_type(name, kind, match.start(2) if match[2] else match.start(1))
        position = match.end()
    if not properties:
        raise OptionError("the schema has no field", "write name, age int, tags list")
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _read_type(name: str, kind: str, position: int) -> dict[str, Any]:
    if (match := re.fullmatch(r"list\[(.+)\]", kind)) is not None:
        return {"type": "array", "items": _read_type(name, match[1].strip(), position + 5)}
    if "|" in kind:
        options = [option.strip() for option in kind.split("|")]
        if not all(options):
            raise OptionError(
                f"the schema's field {name!r} has an empty choice, at character {position + 1}", "drop a |"
            )
        return {"enum": list(dict.fromkeys(options))}
    if kind in _TYPES:
        return dict(_TYPES[kind])
    fix = f"the nearest are {nearest(kind, _TYPES)}; or a choice, as good|bad"
    raise OptionError(f"the schema's field {name!r} has the unknown type {kind!r}, at character {position + 1}", fix)


def limit_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with limits where it has none, so that what is written by it ends. What fits it fits the schema, too.

    Strings, lists, free keys and digits get a greatest length; objects that name their properties get no others.

    >>> limit_schema({"type": "string"})["maxLength"], limit_schema({"type": "string", "maxLength": 9})["maxLength"]
    (200, 9)
    """
    return _limit(schema, STRING_CHARACTERS, 0)


# of a schema's keywords: one schema, a list of them, or a mapping to them
_ONE = ("additionalProperties", "items", "not", "contains", "if", "then", "else", "propertyNames")
_LISTS, _MAPPINGS = (
    ("anyOf", "oneOf", "allOf", "prefixItems"),
    ("properties", "$defs", "definitions", "patternProperties"),
)
_COMBINING = ("anyOf", "oneOf", "allOf", "$ref")  # beside which an object's properties are not all that it may have
_CLOSED_FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "ipv6")  # which end by themselves
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_DECIDE = {"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "not", "if", "properties", "items", "pattern"}


def _limit(schema: Any, characters: int, depth: int) -> Any:
    if schema is True or (isinstance(schema, Mapping) and not _DECIDE & set(schema)):
        known = dict(schema) if isinstance(schema, Mapping) else {}
        return known | {"anyOf": [_limit({"type": kind}, characters, depth) for kind in _free_types(depth)]}
    if not isinstance(schema, Mapping):
        return schema
    limited = dict(schema)
    kinds = schema.get("type", ())
    kinds = {kinds} if isinstance(kinds, str) else set(kinds) if isinstance(kinds, list | tuple) else set()
    is_fixed = "enum" in schema or "const" in schema
    for key in _ONE:
        if key in schema:
            inner = min(characters, LISTED_CHARACTERS) if key == "items" else characters
            limited[key] = _limit(schema[key], inner, depth + 1)
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            # schemas that must all fit are left open: what one closes, another may need
            limited[key] = [one if key == "allOf" else _limit(one, characters, depth + 1) for one in schema[key]]
    for key in _MAPPINGS:
        if isinstance(schema.get(key), Mapping):
            limited[key] = {name: _limit(one, characters, depth + 1) for name, one in schema[key].items()}
    if is_fixed:
        return limited
    if "string" in kinds and schema.get("format") not in _CLOSED_FORMATS:
        limited.setdefault("maxLength", _at_least(schema.get("minLength"), characters))
    if "array" in kinds:
        limited.setdefault("items", _limit(True, min(characters, LISTED_CHARACTERS), depth + 1))
        limited.setdefault("maxItems", _at_least(schema.get("minItems"), LIST_ITEMS))
    if "object" in kinds:
        if "properties" in schema and "patternProperties" not in schema:
            if not {*_COMBINING} & set(schema) and set(schema.get("required", ())) <= set(schema["properties"]):
                limited.setdefault("additionalProperties", False)
        elif not {"properties", "patternProperties"} & set(schema) and schema.get("additionalProperties") is not False:
            inner = limited.pop("additionalProperties", True)
            if inner is True:
                inner = _limit(True, min(characters, LISTED_CHARACTERS), depth + 1)
            limited |= {"patternProperties": {KEY: inner}, "additionalProperties": False}
            limited.setdefault("maxProperties", _at_least(schema.get("minProperties"), OBJECT_KEYS))
    if kinds & {"integer", "number"}:
        bounds = [schema[key] for key in _BOUNDS if isinstance(schema.get(key), int | float)]
        largest = max([LARGEST, *(10 * abs(bound) for bound in bounds)])
        if not {"minimum", "exclusiveMinimum"} & set(schema):
            limited["minimum"] = -largest
        if not {"maximum", "exclusiveMaximum"} & set(schema):
            limited["maximum"] = largest
        if "number" in kinds and all(bound == 0 or abs(bound) > 1000 * SMALLEST_STEP for bound in bounds):
            limited.setdefault("multipleOf", SMALLEST_STEP)
    return limited


def _free_types(depth: int) -> tuple[str, ...]:
    scalars = ("string", "number", "boolean", "null")
    return scalars if depth >= DEPTH else (*scalars, "array", "object")


def _at_least(least: Any, limit: int) -> int:
    return limit if not isinstance(least, int) else max(limit, least)
