"""Outputs with a form: what is allowed, what is read back, what is wrong with a form; on a tiny random model."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from conftest import cold, fresh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_magic.errors import LLMError, OptionError
from llm_magic.form import limit_schema, make_form, read_shorthand
from llm_magic.generation import Sampling
from llm_magic.llm import LLM

HOT = {"mode": "text", "temperature": 1.5, "top_k": 0, "top_p": 1.0}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def test_an_output_matches_its_regex_whatever_the_model_thinks(tiny_llm):
    for seed in range(8):
        g = fresh(tiny_llm)("the rain", regex="[0-9]{2}-(up|down)", seed=seed, **HOT)
        assert g.finish_reason == "stop" and re.fullmatch("[0-9]{2}-(up|down)", g.text) and g.value == g.text


def test_an_output_with_a_schema_is_read_back(tiny_llm):
    for seed in range(4):
        g = fresh(tiny_llm)("the rain", schema={"enum": ["x", {"a": [1, None]}, 2.5]}, seed=seed, **HOT)
        assert g.value in ("x", {"a": [1, None]}, 2.5)


def test_an_output_follows_a_grammar(tiny_llm):
    grammar = 'start: word (" and " word){1,2}\nword: "sun" | "rain"'
    g = fresh(tiny_llm)("the rain", grammar=grammar, **HOT)
    assert re.fullmatch(r"(sun|rain)( and (sun|rain)){1,2}", g.value)


def test_a_cut_off_output_has_no_value(tiny_llm):
    g = fresh(tiny_llm)("the rain", schema=PERSON, max_tokens=5, **HOT)
    assert g.finish_reason == "length" and g.value is None and g.text
    assert tiny_llm("the rain", mode="text", max_tokens=3).value is None


def test_each_token_has_its_free_and_its_constrained_probability(tiny_llm):
    g = cold(tiny_llm, "the rain", regex="[ab]c", mode="text", temperature=1.0, top_k=0, top_p=1.0)
    free = fresh(tiny_llm).score(g.text, context="the rain")
    backend = tiny_llm._backend
    for token, scored in zip(g.tokens, free.tokens, strict=True):
        assert token.logprob == pytest.approx(scored.logprob, abs=1e-4)
    first, second = g.tokens
    a_or_b = tiny_llm.next("the rain", k=10_000)
    mass = sum(o.probability for o in a_or_b if backend.tokenizer.bytes_of(o.id) in (b"a", b"b"))
    assert first.constrained_probability == pytest.approx(first.probability / mass, rel=1e-4)
    assert first.sampled_logprob == pytest.approx(first.constrained_logprob, abs=1e-4)  # nothing else was filtered
    assert second.constrained_probability == 1.0
    assert all(a.penalty == float("-inf") for a in second.alternatives if a.text != "c")
    assert tiny_llm("x", mode="text", max_tokens=1).tokens[0].constrained_logprob is None


def test_a_form_is_kept_by_replay_continue_branch_and_samples(tiny_llm):
    llm = fresh(tiny_llm)
    whole = llm("the rain", regex="[a-f]{12}", **HOT)
    assert whole.replay() == whole
    part = llm("the rain", regex="[a-f]{12}", max_tokens=4, **HOT)
    assert [t.id for t in part.continue_(max_tokens=20).tokens] == [t.id for t in whole.tokens]
    other = "a" if whole.tokens[2].text != "a" else "b"
    assert re.fullmatch("[a-f]{12}", whole.branch(2, other).text)
    with pytest.raises(OptionError, match="the regex does not allow 'z' here"):
        whole.branch(2, "z")
    samples = llm.samples("the rain", 4, regex="[a-f]{6}", **HOT)
    assert all(re.fullmatch("[a-f]{6}", sample.text) for sample in samples)
    alone = llm.samples("the rain", 1, regex="[a-f]{6}", **HOT)[0]
    assert [t.id for t in samples[0].tokens] == [t.id for t in alone.tokens]


def test_a_distribution_is_that_of_the_allowed_tokens(tiny_llm):
    g = fresh(tiny_llm)("the rain", regex="[ab]c", mode="text", temperature=1.0, top_k=0, top_p=1.0)
    found = g.distribution(0)
    assert {other.text for other in found} == {"a", "b"} and found.kept_tokens == 2
    assert sum(other.probability for other in found) == pytest.approx(1)


@pytest.mark.parametrize(
    "form, message",
    [
        ({"regex": "a(b"}, "regex has an error at character 2: unclosed group"),
        ({"regex": "é[z-a]"}, "regex has an error at character 3: invalid character class range"),
        ({"regex": "(?=a)b"}, "look-ahead"),
        ({"regex": ""}, "at least one character"),
        ({"schema": '{"type": '}, "line 1, column 10"),
        ({"schema": {"properties": {"a": {"items": {"type": "strng"}, "type": "array"}}, "type": "object"}},
         "at /properties/a/items: Invalid type: strng"),
        ({"schema": {"type": "integer", "minimum": 5, "maximum": 1}}, "at its top: .*minimum"),
        ({"schema": {"type": "object", "properties": {"b": {"type": "string", "pattern": "("}}}}, "at /properties/b: "),
        ({"schema": [1]}, "the schema is a list"),
        ({"schema": "name, age itn"}, "unknown type 'itn', at character 11"),
        ({"schema": "a,,b"}, "lacks a field at character 3"),
        ({"schema": "a, a int"}, "twice, at character 4"),
        ({"schema": "a x||y"}, "empty choice, at character 3"),
        ({"grammar": 'start: "a" ('}, "line 1, column 13"),
        ({"grammar": "start: foo"}, 'unknown name: "foo"'),
        ({"regex": "a", "schema": "b"}, "regex and schema exclude each other"),
        ({"regex": "a", "stop": "x"}, "a stop text and a regex exclude each other"),
        ({"regex": "a", "mode": "code"}, "mode `code`"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_form_is_said_with_its_place(tiny_llm, form, message):
    with pytest.raises(LLMError, match=message):
        tiny_llm("the rain", **({"mode": "text"} | form))


def test_a_class_that_knows_its_schema_gives_it():
    class Person:
        @staticmethod
        def model_json_schema():
            return PERSON

    assert json.loads(make_form(schema=Person).source) == PERSON


def test_shorthand_names_fields_and_their_types():
    schema = read_shorthand(
        "name, age int, score float, ok bool, tags list, ids list[int], mood good|very bad, born date"
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    value = {
        "name": "A",
        "age": 3,
        "score": 0.5,
        "ok": True,
        "tags": ["x"],
        "ids": [1],
        "mood": "very bad",
        "born": "2020-01-01",
    }
    jsonschema.validate(value, schema)
    for name, wrong in (("age", "3"), ("tags", [1]), ("ids", ["a"]), ("mood", "bad")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value | {name: wrong}, schema)


NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.one_of(
    st.sampled_from([{"type": kind} for kind in ("string", "integer", "number", "boolean", "null")]),
    st.sampled_from(
        [{"enum": ["x", 1]}, {"const": "k"}, {"type": ["string", "null"]}, {}, {"type": "string", "minLength": 2}]
    ),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(
            lambda properties: {"type": "object", "properties": properties, "required": sorted(properties)},
            st.dictionaries(NAMES, inner, min_size=1, max_size=3),
        ),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
        st.builds(lambda values: {"type": "object", "additionalProperties": values}, inner),
    ),
    max_leaves=5,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_what_is_finished_parses_and_fits_its_schema(tiny_llm, schema, seed):
    """Oracle: jsonschema, on the schema as it was given."""
    g = tiny_llm("x", schema=schema, seed=seed, max_tokens=300, **HOT)
    assert g.finish_reason in ("stop", "length")
    if g.finish_reason == "stop":
        jsonschema.validate(g.value, schema)
    else:
        assert g.value is None


@given(schema=SCHEMAS)
def test_limits_only_narrow_a_schema(schema):
    limited = limit_schema(schema)
    jsonschema.Draft202012Validator.check_schema(limited)
    for value in (
        "x",
        "xy",
        "x" * 201,
        1,
        2.5,
        None,
        True,
        [],
        ["x"] * 9,
        {"a": "x"},
        {"a": 1, "b": 2, "c": None, "d": 1},
    ):
        if jsonschema.Draft202012Validator(limited).is_valid(value):
            jsonschema.validate(value, schema)


@pytest.mark.parametrize("schema", [
    {"allOf": [{"type": "object", "properties": {name: {"type": "integer"}}, "required": [name]} for name in "ab"]},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"]},
    {"type": "integer", "minimum": 10**16},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1e-8},
    {"type": "object", "required": ["k" * 60], "additionalProperties": {"type": "integer"}},
    {"type": "array", "items": {"type": "string"}, "minItems": 12},
    {"type": "string", "minLength": 300},
])  # fmt: skip
def test_limits_make_no_schema_unsatisfiable(tiny_llm, schema):
    tiny_llm.prompt("x", mode="text", schema=schema)


def test_stop_texts_never_cut_an_output_with_a_form(tiny_llm):
    llm = LLM(fresh(tiny_llm)._backend, defaults=Sampling(stop=("1",), max_tokens=90))
    g = llm("the rain", regex="[0-9]{6}", **HOT)
    assert len(g.value) == 6 and g.sampling.max_tokens == 90  # the user's own limit
    for again in (lambda: g.branch(1, "2", stop=","), lambda: llm.start_again(g, Sampling(stop=("1",)))):
        with pytest.raises(OptionError, match="a stop text and a regex"):
            again()


def test_a_refused_branch_is_refused_before_anything_is_generated(tiny_llm):
    g = fresh(tiny_llm)("the rain", regex="[0-9]{6}", **HOT)
    end_id = min(tiny_llm._backend.tokenizer.end_ids)
    for token in ("zzz", end_id):
        with pytest.raises(OptionError, match="the regex does not allow"):
            tiny_llm.start_branch(g, 2, token)


def test_lists_of_choices_and_colons_are_read():
    properties = read_shorthand("x list[a|b], y: int, z : list[list[int]]")["properties"]
    assert properties["x"] == {"type": "array", "items": {"enum": ["a", "b"]}}
    assert properties["y"] == {"type": "integer"} and properties["z"]["items"]["items"] == {"type": "integer"}


def test_what_is_no_json_is_refused_as_a_schema():
    circular = {}
    circular["a"] = circular
    for schema in (circular, {"const": object()}, {"const": float("nan")}):
        with pytest.raises(OptionError, match="the schema is no JSON"):
            make_form(schema=schema)
