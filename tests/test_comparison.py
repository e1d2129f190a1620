"""Two generations token by token: what stands beside what, by how much it differs, and how that is shown."""

from __future__ import annotations

import difflib
import math
import pickle
import random
import re
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_views import ATTACKS, Checker

from llm_magic import comparison
from llm_magic.comparison import match_longest
from llm_magic.errors import OptionError
from llm_magic.generation import Comparison, Generation, Prompt, Sampling, Score, Token
from llm_magic.views import compare


def make(*tokens, end=None, model="model"):
    """A generation of texts, of bytes, or of such with their probabilities."""
    made = []
    for index, token in enumerate(tokens):
        text, p = token if isinstance(token, tuple) else (token, 0.5)
        data = text if isinstance(text, bytes) else text.encode(errors="replace")
        text = "" if isinstance(text, bytes) else text
        made.append(Token(index, data, text, None if p is None else math.log(p) if p else -math.inf, -0.1, 1, 1.0))
    last = None if end is None else Token(99, b"<end>", "", math.log(end), -0.1, 1, 1.0)
    prompt = Prompt("Why?", (1, 2), ("Why", "?"), "ask", model, 100)
    return Generation(prompt, tuple(made), "stop", Sampling(), last)


def places(one, other):
    return [(pair.index_one, pair.index_other) for pair in make(*one).diff(make(*other)).pairs]


texts = st.text(st.sampled_from("ab €"), max_size=3)
tokens_with_probabilities = st.lists(st.tuples(texts, st.floats(0.01, 1)), max_size=12)
with_odd_tokens = st.lists(st.one_of(texts, st.binary(max_size=2), st.text(st.characters(codec=None))), max_size=12)
sequences = st.lists(st.integers(0, 3), max_size=12)


@pytest.mark.parametrize("one, other, expected", [
    ("the cat sat", "the dog sat", [(0, 0), (1, 1), (2, 2)]),
    ("a b c", "a c", [(0, 0), (1, None), (2, 1)]),
    ("a c", "a b c", [(0, 0), (None, 1), (1, 2)]),
    ("a", "", [(0, None)]),
    ("", "", []),
    ("x b c y d", "p b c q r d", [(0, 0), (1, 1), (2, 2), (3, 3), (None, 4), (4, 5)]),
])  # fmt: skip
def test_what_stands_instead_stands_beside(one, other, expected):
    assert places(one.split(), other.split()) == expected


def test_two_tokenizers_are_aligned_where_both_have_an_edge():
    assert places(["un", "happy", " man"], ["unhappy", " man"]) == [(0, None), (1, None), (None, 0), (2, 1)]
    # beyond what differs: from the end, and between tokens that agree
    assert places(["A", " to", "day", "."], ["The", " today", "."])[1:] == [(1, None), (2, None), (None, 1), (3, 2)]
    halves = places(["x", "-", "un", "happy", " a", "-", "y"], ["z", "-", "unhappy", " b", "-", "w"])
    assert halves == [(0, 0), (1, 1), (2, None), (3, None), (None, 2), (4, 3), (5, 4), (6, 5)]


def test_a_token_is_the_same_to_the_byte():
    one, other = make(b"\xe2\x82", "€"), make(b"\xe2\x82", "€")
    assert all(pair.is_same for pair in one.diff(other).pairs)
    half = make(b"\xe2\x82").diff(make(b"\xe2\x83"))
    assert half.first_difference == 0  # both texts are empty


def test_a_pair_knows_by_how_much_it_differs():
    comparison = make(("a", 0.25), ("b", 0.9), ("c", None), ("d", 0.0), "e").diff(
        make(("a", 0.75), ("x", 0.4), ("c", 0.5), ("d", 0.0))
    )
    a, b, c, d, e = comparison.pairs
    assert a.is_same and a.difference == pytest.approx(0.5) and a.logprob_difference == pytest.approx(math.log(3))
    assert not b.is_same and b.difference == pytest.approx(-0.5)
    assert c.is_same and c.difference is None and c.logprob_difference is None
    assert d.is_same and d.difference == 0 and d.logprob_difference == 0  # both impossible: no nan
    assert e.other is None and not e.is_same and e.difference is None
    assert comparison.first_difference == 1


@given(with_odd_tokens, with_odd_tokens)
def test_every_token_stands_once_and_in_order(one, other):
    comparison = make(*one).diff(make(*other))
    for number, name in enumerate(("one", "other")):
        found = [(getattr(p, f"index_{name}"), getattr(p, name)) for p in comparison.pairs if getattr(p, name)]
        assert found == list(enumerate(comparison.generations[number].tokens))
    assert all(pair.one or pair.other for pair in comparison.pairs)
    first = comparison.first_difference
    assert all(pair.is_same for pair in comparison.pairs[:first])
    assert first is None or not comparison.pairs[first].is_same


@given(tokens_with_probabilities, tokens_with_probabilities)
def test_exchanging_the_sides_turns_every_difference_round(one, other):
    there, back = make(*one).diff(make(*other)), make(*other).diff(make(*one))
    turned = Counter((p.index_other, p.index_one, p.is_same, p.difference and -p.difference) for p in back.pairs)
    assert turned == Counter((p.index_one, p.index_other, p.is_same, p.difference) for p in there.pairs)
    assert all(-1 <= p.difference <= 1 for p in there.pairs if p.difference is not None)
    assert there.first_difference == back.first_difference


@given(with_odd_tokens)
def test_equal_generations_agree_everywhere(some):
    comparison = make(*some).diff(make(*some))
    assert all(p.is_same and p.index_one == p.index_other and p.difference == 0 for p in comparison.pairs)
    assert comparison.first_difference is None and compare.describe(comparison) == "the texts are equal"


@given(st.text("ab", max_size=12), st.lists(st.integers(1, 3)), st.lists(st.integers(1, 3)))
def test_of_one_text_just_the_tokens_that_cover_the_same_are_paired(text, cuts, other_cuts):
    def cut(sizes):
        edges = sorted({0, len(text), *(min(len(text), sum(sizes[: i + 1])) for i in range(len(sizes)))})
        return [(a, b) for a, b in zip(edges, edges[1:], strict=False)]

    one, other = cut(cuts), cut(other_cuts)
    generations = [make(*(text[a:b] for a, b in spans)) for spans in (one, other)]
    paired = [(p.index_one, p.index_other) for p in generations[0].diff(generations[1]).pairs if p.one and p.other]
    assert paired == [(one.index(span), other.index(span)) for span in one if span in other]


def longest(one, other):
    """The textbook's table: Wagner and Fischer."""
    row = [0] * (len(other) + 1)
    for item in one:
        before, row = row, [0]
        for j, item_other in enumerate(other):
            row.append(before[j] + 1 if item == item_other else max(before[j + 1], row[-1]))
    return row[-1]


@pytest.mark.parametrize("max_bits", [2**28, 3])  # whole, and in halves as where memory would not do
@given(one=sequences, other=sequences)
def test_no_common_subsequence_is_longer(max_bits, one, other):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "_MAX_BITS", max_bits)
        found = match_longest(one, other)
        assert [(i, j) for j, i in match_longest(other, one)] == found
    assert len(found) == longest(one, other)
    assert all(one[i] == other[j] for i, j in found)
    assert all(a < c and b < d for (a, b), (c, d) in zip(found, found[1:], strict=False))
    blocks = difflib.SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    assert len(found) >= sum(block.size for block in blocks)


@pytest.mark.parametrize("kinds", [1, 2, 30, 5000])
def test_thousands_of_tokens_take_less_than_a_second(kinds):
    chance = random.Random(0)
    one, other = (make("start", *(f" w{chance.randrange(kinds)}" for _ in range(4000)), f" end{side}") for side in "ab")
    started = time.process_time()
    compare.describe(one.diff(other))
    aligned = time.process_time()
    compare.find_differences(one.tokens, other.tokens)
    assert aligned - started < 1 and time.process_time() - aligned < 1


def test_one_long_token_against_many_short_ones():
    started = time.process_time()
    pairs = make("a" * 4000).diff(make(*"a" * 4000)).pairs
    assert len(pairs) == 4001 and time.process_time() - started < 1


def test_a_frame_has_a_row_for_each_pair():
    frame = make(("a", 0.5), "b").diff(make(("a", 0.75))).to_pandas()
    assert list(frame.columns) == [
        "text_one", "text_other", "logprob_one", "logprob_other", "probability_one", "probability_other",
        "difference", "rank_one", "rank_other",
    ]  # fmt: skip
    assert frame.text_one.tolist() == ["a", "b"] and frame.difference[0] == pytest.approx(0.25)
    assert frame.iloc[1][["text_other", "logprob_other", "probability_other", "rank_other"]].isna().all()
    empty = make().diff(make()).to_pandas()
    assert len(empty) == 0 and list(empty.columns) == list(frame.columns)


def test_what_is_no_generation_is_refused():
    score = Score(make("a").tokens, "model", 100)
    for value, name in (("text", "str"), (None, "NoneType"), (score, "Score")):
        with pytest.raises(OptionError, match=f"a {name} cannot be compared: give two generations"):
            make("a").diff(value)


def test_a_comparison_is_saved_without_what_follows_from_it():
    value = make("a", "b").diff(make("a", "c"))
    before = len(pickle.dumps(value))
    assert len(value.pairs) == 2 and len(pickle.dumps(value)) == before
    again = pickle.loads(pickle.dumps(value))
    assert again == value and again.pairs == value.pairs


SKY = make("The", (" sky", 0.9), " is", (" blue", 0.34), ".", end=0.25)
OTHER = make("The", (" sky", 0.4), " is", (" red", 0.12), ".", " So", model="other")


def test_the_status_tells_how_many_agree_and_where_it_begins():
    line = compare.describe(SKY.diff(OTHER))
    assert line.startswith("4 of 5 and 6 tokens agree · from token 3 on: ␣blue 34.0 % against ␣red 12.0 %")
    assert line.endswith("mean shift of those that agree: 12.5 percentage points")  # 0, 50, 0, 0
    longer = make(*(t.text for t in SKY.tokens), " Yes")
    assert "from token 5 on: the end of the turn 25.0 % against ␣Yes 50.0 %" in compare.describe(SKY.diff(longer))
    assert "nothing more against ␣So" in compare.describe(make("The").diff(make("The", " So")))
    cut = compare.describe(make("un", "happy").diff(make("unhappy")))
    assert cut == "the texts are equal · 0 of 2 and 1 tokens agree · from token 0 on: un 50.0 % against unhappy 50.0 %"
    shifted = compare.describe(make(("a", 0.5)).diff(make(("a", 0.50001))))
    assert shifted.startswith("the texts are equal · 1 of 1 tokens agree") and "<0.1 percentage" in shifted


def test_the_text_has_a_table_of_what_tells_most():
    text = compare.render_text(SKY.diff(OTHER))
    assert "is‹ blue.›" in text and "is‹ red. So›" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["1", "␣sky", "90.0", "%", "1", "␣sky", "40.0", "%", "-50.0"] in rows
    assert ["3", "␣blue", "34.0", "%", "≠", "3", "␣red", "12.0", "%", "-22.0"] in rows
    assert ["2", "␣is", "50.0", "%", "2", "␣is", "50.0", "%", "0.0"] in rows  # is near
    assert ["–", "≠", "5", "␣So", "50.0", "%"] in rows
    assert not any("␣The" in line for line in text.splitlines())  # neither differs nor is near
    assert "points" not in compare.render_text(SKY.diff(SKY))


def test_the_table_is_aligned_whatever_the_characters():
    one = make("a", "日本語", "e\u0301" * 9, "x" * 500, "\x1b[2J", "🙂" * 40, b"\xe2\x82")
    text = compare.render_text(one.diff(make("a", *"bcdefg")))
    lines = [line for line in text.splitlines() if "≠" in line]
    assert len(lines) == 6 and len({compare._width(line[: line.index("≠")]) for line in lines}) == 1
    assert max(map(compare._width, lines)) < 70 and "\\xe2\\x82" in text and "␛[2J" in text and "x…" in text


def test_the_table_is_short_and_keeps_the_largest_shifts():
    one = make(*(f" w{i}" for i in range(50)), *((f" s{i}", 0.1 + i / 100) for i in range(50)))
    other = make(*(f" v{i}" for i in range(50)), *((f" s{i}", 0.01) for i in range(50)))
    pairs = one.diff(other).pairs
    assert compare.choose_rows(pairs) == [*range(8), *range(96, 100)]
    text = compare.render_text(one.diff(other))
    assert f"left out: {sum(not p.is_same or compare.has_shifted(p) for p in pairs) - 12} that" in text


def test_a_shift_is_marked_by_more_than_colour_and_told():
    page = compare.render_html(SKY.diff(OTHER))
    marked = re.findall(r'<span title="(p [^&]*)&#10;[^"]*" style="[^"]*dotted[^"]*">([^<]*)</span>', page)
    assert marked == [("p 90.0 % here, 40.0 % there", " sky"), ("p 40.0 % here, 90.0 % there", " sky")]
    assert page.count("border-bottom:2px solid rgba(70,130,220,1)") == 5  # blue and . against red, . and So
    assert "3 differ" not in page and "2 differ, 1 shifted" in page and page.count("<tr>") == 4
    assert "<details" not in compare.render_html(SKY.diff(SKY))


def test_a_long_table_says_how_much_it_leaves_out():
    page = compare.render_html(make(*(f" w{i}" for i in range(1200))).diff(make(*(f" v{i}" for i in range(1201)))))
    assert page.count("<tr>") == 201 and "left out: 1,001; to_pandas() has all" in page


@pytest.mark.parametrize("render", [compare.render_text, compare.render_html])
def test_no_text_of_a_model_acts_or_hides(render):
    one = make(*((text, 0.9) for text in ATTACKS), model=ATTACKS[0])
    for tokens in (ATTACKS[::-1], [(text, 0.2) for text in ATTACKS], ["x"] * 30, []):
        for value in (one.diff(make(*tokens)), make(*tokens).diff(one)):
            page = render(value)
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u200b\ufeff\ud800-\udfff]", page)
            if render is compare.render_html:
                checker = Checker(page)
                assert not checker.bad and not checker.open


def test_an_attack_would_be_seen_without_the_defence(monkeypatch):
    value = make(*((text, 0.9) for text in ATTACKS)).diff(make(*((text, 0.2) for text in ATTACKS)))
    monkeypatch.setattr(compare, "escape_text", str)
    assert Checker(compare.render_html(value)).bad


@given(with_odd_tokens, with_odd_tokens)
def test_any_two_have_both_faces(one, other):
    value = Comparison((make(*one), make(*other)))
    checker = Checker(compare.render_html(value))
    assert not checker.bad and not checker.open
    compare.render_text(value).encode()  # holds no surrogate
