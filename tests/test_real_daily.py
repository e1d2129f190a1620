"""Choices and forms on the real default model: against transformers in fp32, and two hundred hot generations."""

from __future__ import annotations

import json

import jsonschema
import pytest
import torch
from test_real import make_truth

from llm_magic.form import read_shorthand

QUESTIONS = [
    ("Is Paris the capital of France?", ["yes", "no"]),
    ("What is the colour of the sky on a clear day?", ["blue", "green", "dark red with yellow stripes"]),
    ("Name an animal that barks.", ["a dog", "a cat", "an elephant", "a hippopotamus of the river"]),
    (
        "Was the guest happy? The room was dirty and the staff was rude.",
        ["satisfied", "not satisfied at all", "neutral"],
    ),
]


@pytest.fixture(scope="module")
def truth(real_path):
    return make_truth(real_path)


@pytest.mark.parametrize("question, choices", QUESTIONS)
def test_choices_equal_those_of_transformers(real_llm, truth, question, choices):
    found = real_llm.choose(question, choices)
    prompt = real_llm.prompt(question)
    totals = []
    for choice in choices:
        ids = real_llm.tokenize(choice).ids
        with torch.inference_mode():
            logprobs = truth(torch.tensor([[*prompt.ids, *ids]])).logits[0].log_softmax(-1)
        totals.append(sum(logprobs[len(prompt.ids) - 1 + i, token_id].item() for i, token_id in enumerate(ids)))
    expected = torch.tensor(totals).softmax(0).tolist()
    assert [choice.probability for choice in found.choices] == pytest.approx(expected, abs=0.02)
    free = torch.tensor(totals).exp().tolist()
    assert [choice.free_probability for choice in found.choices] == pytest.approx(free, abs=0.02)


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "born": {"type": "string", "format": "date"}},
    "required": ["name", "born"],
}
PLACE = {
    "type": "object",
    "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}},
    "required": ["lat", "lon"],
}
SCHEMAS = [
    "name, age int, tags list",
    "title, year int, rating float, seen bool",
    {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"item": {"type": "string"}, "price": {"type": "number"}},
            "required": ["item", "price"],
        },
    },
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "position": PLACE},
        "required": ["city", "position"],
    },
    {"enum": ["red", "green", "blue"]},
    {
        "type": "object",
        "properties": {"answer": {"type": "boolean"}, "reason": {"type": "string"}},
        "required": ["answer", "reason"],
    },
    {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {
        "$defs": {"person": PERSON},
        "type": "object",
        "properties": {
            "author": {"$ref": "#/$defs/person"},
            "readers": {"type": "array", "items": {"$ref": "#/$defs/person"}},
        },
        "required": ["author", "readers"],
    },
    {},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_twenty_hot_generations_of_a_schema_parse(real_llm, schema):
    samples = real_llm.samples("Tell me about something you like, as JSON.", 20, schema=schema, temperature=1.5, seed=1)
    whole = read_shorthand(schema) if isinstance(schema, str) else schema
    for generation in samples:
        assert generation.finish_reason == "stop"
        jsonschema.validate(json.loads(generation.text), whole)
        assert generation.value == json.loads(generation.text)
