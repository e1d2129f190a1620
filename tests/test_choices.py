"""Given answers: weighed exactly, ranked, for one prompt and for a column; against transformers on a tiny model."""

from __future__ import annotations

import math
import time
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import fresh, make_hf_model

from llm_magic import rows
from llm_magic.choices import weigh
from llm_magic.engine import branches
from llm_magic.errors import GenerationInterrupted, OptionError


@pytest.fixture(scope="module")
def theirs():
    return make_hf_model()


def logprobs_of(model, prompt_ids, ids):
    """Transformers' logprobs of continuation ids behind a prompt, one forward pass, fp32."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt_ids, *ids]])).logits[0].log_softmax(-1)
    return [logits[len(prompt_ids) - 1 + i, token_id].item() for i, token_id in enumerate(ids)]


def test_choices_of_one_and_several_tokens_equal_those_of_transformers(tiny_llm, theirs):
    choices = ["a", "the sun", "rain", "some much longer answer"]
    found = fresh(tiny_llm).choose("in the night ", choices, mode="text")
    prompt = tiny_llm.prompt("in the night ", mode="text")
    expected = [logprobs_of(theirs, prompt.ids, tiny_llm.tokenize(choice).ids) for choice in choices]
    assert {len(choice.ids) for choice in found.choices} > {1}
    for choice, logprobs in zip(found.choices, expected, strict=True):
        assert choice.logprobs == pytest.approx(logprobs, abs=1e-4)
    totals = torch.tensor([sum(logprobs) for logprobs in expected])
    assert [c.probability for c in found.choices] == pytest.approx(totals.softmax(0).tolist(), abs=1e-4)
    assert sum(c.probability for c in found.choices) == pytest.approx(1)
    assert found.label == found.value == str(found) == found.ranked[0].text == choices[int(totals.argmax())]


def test_a_choice_that_begins_another_is_weighed_without_it(tiny_llm):
    found = fresh(tiny_llm).choose("in the night ", ["x", "xy", "xyz", "xyq", "b"], mode="text")
    by_text = {choice.text: choice for choice in found.choices}
    mass = {text: math.exp(sum(choice.logprobs)) for text, choice in by_text.items()}
    assert by_text["x"].free_probability == pytest.approx(mass["x"] - mass["xy"], rel=1e-6)
    assert by_text["xy"].free_probability == pytest.approx(mass["xy"] - mass["xyz"] - mass["xyq"], rel=1e-6)
    assert by_text["xyz"].free_probability == pytest.approx(mass["xyz"], rel=1e-6)
    assert found.free_probability == pytest.approx(mass["x"] + mass["b"], rel=1e-6)  # none counts twice


def test_a_choice_that_is_all_of_its_longer_ones_stays_a_number():
    found = weigh("", ["a", "ab"], [[1], [1, 2]], [[-0.5], [-0.5, 0.0]], "m")
    assert found.choices[0].probability < 1e-9 and found.label == "ab"
    hopeless = weigh("", ["a", "b"], [[1], [2]], [[-2000.0], [-2001.0]], "m")
    assert hopeless.probability == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize(
    "choices, message",
    [
        ([], "no choices"),
        (["a", " "], "choice 2"),
        (["a", "b", "a"], "as is choice 1"),
        ("a,b", "the one text"),
        (["a", 3], "3"),
    ],
)
def test_choices_that_cannot_be_weighed_are_named(tiny_llm, choices, message):
    with pytest.raises(OptionError, match=message):
        tiny_llm.choose("x", choices, mode="text")


def test_answers_are_ranked_by_their_probability(tiny_llm):
    ranking = fresh(tiny_llm).rank("in the night", [" the sun", " a", " z"], mode="text")
    expected = {text: tiny_llm.score(text, context="in the night") for text in (" the sun", " a", " z")}
    assert [s.total_logprob for s in ranking.scores] == sorted((s.total_logprob for s in ranking.scores), reverse=True)
    for score in ranking.scores:
        assert score.total_logprob == pytest.approx(expected[score.text].total_logprob, abs=1e-4)
    assert list(ranking.to_pandas().answer) == list(ranking.answers)


FRAME = pd.DataFrame(
    {"what": ["rain", "sun", None, "fog", 7, "ice"], "n": [1, 2, 3, 4, 5, 6]}, index=list("abcdef"), dtype=object
)


def test_a_frame_comes_back_with_its_labels(tiny_llm):
    llm = fresh(tiny_llm)
    with pytest.warns(UserWarning, match=r"1 of 6 rows have no result: 'c' \(a value is missing\)"):
        found = llm.map("{n} of {what}: ", FRAME, choices=["good", "bad"], mode="text", track=None)
    assert list(found.index) == list(FRAME.index) and "label" not in FRAME.columns
    for label, row in found.drop("c").iterrows():
        alone = fresh(tiny_llm).choose(f"{row.n} of {row.what}: ", ["good", "bad"], mode="text")
        assert row.label == alone.label and row.probability == pytest.approx(alone.probability, abs=1e-5), label
    assert found.loc["c", "label"] is None and math.isnan(found.loc["c", "probability"])
    assert found.loc["c", "problem"] == "a value is missing"


def test_names_that_the_frame_has_are_left_alone(tiny_llm):
    frame = pd.DataFrame({"label": ["rain"], "result": ["kept"]})
    found = tiny_llm.map("{label}: ", frame, choices=["a", "b"], mode="text", track=None)
    assert list(found.columns) == ["label", "result", "llm_label", "probability", "llm_result"]
    assert found.result[0] == "kept" and found.llm_label[0] in "ab"


@pytest.mark.parametrize(
    "template, frame, message",
    [
        ("{wat}", FRAME, "no column 'wat': the nearest are what"),
        ("no hole", FRAME, "no hole"),
        ("{a}", pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a' 2 times"),
    ],
)
def test_a_hole_that_no_column_fills_is_named(tiny_llm, template, frame, message):
    with pytest.raises(OptionError, match=message):
        tiny_llm.map(template, frame, choices=["a", "b"], mode="text", track=None)


def test_a_row_that_is_too_long_is_named_and_the_others_have_their_results(tiny_llm):
    items = ["a", "b " * tiny_llm.info.context_tokens, "c"]
    with pytest.warns(UserWarning, match=r"1 of 3 rows have no result: 1 \(the "):
        found = tiny_llm.map("{x}", items, choices=["x", "y"], mode="text", track=None)
    assert found[1] is None and found[0].label and found[2].label


def test_what_prompts_have_in_common_is_computed_once(tiny_llm, monkeypatch):
    computed, make = [], branches.make_runner

    def make_counting(model):
        run = make(model)
        return lambda ids, cache: (computed.append(ids.shape[1]), run(ids, cache))[1]

    monkeypatch.setattr(branches, "make_runner", make_counting)
    instruction = "a long instruction that all rows share, word by word: "
    items = ["rain", "sun", "fog"]
    fresh(tiny_llm).map(instruction + "{x}.", items, choices=["a", "b"], mode="text", track=None)
    n_own = [tiny_llm.count_tokens(f" {item}.") for item in items]
    assert computed[0] == tiny_llm.count_tokens(instruction + "rain.")
    assert all(n <= own + 1 for n, own in zip(computed[1:], n_own[1:], strict=True))


def test_a_hundred_thousand_rows_of_mixed_types_are_read_at_once():
    values = [
        ("text", 1, 2.5, None, float("nan"), True, b"x", pd.Timestamp("2020-01-01"))[i % 8] for i in range(100_000)
    ]
    frame = pd.DataFrame({"a": pd.Series(values, dtype=object), "b": range(100_000)})
    started = time.process_time()
    found = rows.read_rows("{a} {b}", frame)
    assert time.process_time() - started < 10
    assert len(found) == 100_000 and found[1].text == "1 1" and found[99_999].text == "2020-01-01 00:00:00 99999"
    assert sum(row.text is None for row in found) == 25_000


def test_an_empty_frame_comes_back_empty(tiny_llm):
    found = tiny_llm.map("{a}", pd.DataFrame({"a": []}), choices=["x", "y"], mode="text", track=None)
    assert len(found) == 0 and list(found.columns) == ["a", "label", "probability", "result"]


@pytest.mark.parametrize("options", [{"choices": ["x", "y"]}, {"max_tokens": 4}])
def test_an_interrupted_map_goes_on_where_it_was(tiny_llm, monkeypatch, options):
    llm = fresh(tiny_llm)
    items = [f"row {i}" for i in range(30)]
    whole = fresh(tiny_llm).map("{x}: ", items, mode="text", track=None, **options)
    shares = []

    def track(label, steps):
        for share in steps:
            shares.append(share)
            if share > 0.4:
                raise KeyboardInterrupt

    with pytest.raises(GenerationInterrupted) as caught:
        llm.map("{x}: ", items, mode="text", track=track, **options)
    part = caught.value.generation
    done = [found for found in part if found is not None and getattr(found, "finish_reason", "") != "interrupted"]
    assert 0 < len(done) < len(items)
    starts = []

    def follow(label, steps):
        starts.extend(steps)

    found = llm.map("{x}: ", items, mode="text", track=follow, **options)
    assert starts[0] == pytest.approx(len(done) / len(items))  # those are there already
    if "choices" in options:
        assert [f.label for f in found] == [f.label for f in whole]
    else:
        assert found == whole
    assert not llm._unfinished


def test_a_map_can_give_each_row_a_form(tiny_llm):
    frame = pd.DataFrame({"what": ["rain", "sun"]})
    found = tiny_llm.map("{what}: ", frame, regex="[a-c]{3}", mode="text", track=None)
    assert all(value and set(value) <= set("abc") and len(value) == 3 for value in found.value)


def interrupt_map(llm, items, after=0.4, **options):
    """Interrupt a map when a share of it is done; what is left of it."""

    def track(label, steps):
        for share in steps:
            if share > after:
                raise KeyboardInterrupt

    with pytest.raises(GenerationInterrupted, match="the same call again goes on from there") as caught:
        llm.map("{x}: ", items, mode="text", track=track, **options)
    return caught.value.generation


def test_what_an_interrupt_left_belongs_to_the_same_call_alone(tiny_llm):
    llm, items = fresh(tiny_llm), [f"row {i}" for i in range(30)]
    interrupt_map(llm, items, choices=["x", "y"])
    kept = dict(llm._unfinished)
    other = llm.map("{x}: ", items, choices=["a", "b"], mode="text", track=None)
    assert all({choice.text for choice in found.choices} == {"a", "b"} for found in other)
    assert llm._unfinished == kept  # another map has its own
    interrupt_map(llm, items, after=-1, choices=["x", "y"])  # a second interrupt, at once, loses nothing
    assert kept.items() <= llm._unfinished.items()


def test_an_interrupt_while_results_are_taken_puts_none_on_another_row(tiny_llm, monkeypatch):
    monkeypatch.setattr(rows, "DETAILED_ROWS", 2)
    llm, items, strip = fresh(tiny_llm), [f"row {i}" for i in range(6)], rows._without_details
    calls = []

    def strip_or_stop(generation):
        calls.append(generation)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return strip(generation)

    monkeypatch.setattr(rows, "_without_details", strip_or_stop)
    with pytest.raises(GenerationInterrupted):
        llm.map("{x}: ", items, mode="text", max_tokens=3, track=None)
    found = llm.map("{x}: ", items, mode="text", max_tokens=3, track=None)
    assert [g.prompt.text for g in found] == [f"{item}: " for item in items]


def test_a_mistake_of_the_call_is_no_problem_of_its_rows(tiny_llm):
    for options, message in (
        ({"max_token": 5}, "no option 'max_token'"),
        ({"temperature": -1}, "temperature is -1"),
        ({"regex": "[0-9"}, "error at character"),
        ({"choices": ["a", "b"], "schema": "x"}, "choices and a schema exclude each other"),
    ):
        with pytest.raises(OptionError, match=message):
            tiny_llm.map("{x}: ", ["a", "b"], mode="text", track=None, **options)


@pytest.mark.parametrize("items", ["apple pie", {"a": 1}, b"ab", None, 3])
def test_one_thing_is_no_list_of_items(tiny_llm, items):
    with pytest.raises(OptionError, match="the items are one"):
        tiny_llm.map("{x}", items, choices=["a", "b"], mode="text", track=None)


def test_every_kind_of_missing_value_is_missing(tiny_llm):
    missing = [None, float("nan"), np.float32("nan"), np.datetime64("NaT"), pd.NA, pd.NaT, Decimal("NaN")]
    with pytest.warns(UserWarning, match="7 of 8 rows"):
        found = tiny_llm.map("{x}", [*missing, 1], choices=["a", "b"], mode="text", track=None)
    assert found[:-1] == [None] * 7 and found[-1] is not None


def test_a_hole_that_an_item_does_not_fill_is_named(tiny_llm):
    with pytest.raises(OptionError, match=r"item 1: an item has nothing for \{row\[txt\]\}"):
        tiny_llm.map("{row[txt]}", [{"row": {"txt": 1}}, {"row": {"text": 2}}], mode="text", track=None)
