"""The faces of the values: complete without script, inert whatever a model or user wrote, nothing hidden."""

from __future__ import annotations

import dataclasses
import html.parser
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_magic.views  # noqa: F401
from llm_magic.faces import FACES
from llm_magic.generation import (
    Alternative,
    Distribution,
    Generation,
    KnownModel,
    ModelInfo,
    ModelTable,
    Prompt,
    Sampling,
    Score,
    Token,
)
from llm_magic.views import answer
from llm_magic.views.heat import tint_ansi, tint_style
from llm_magic.views.safe import escape_lines, escape_text, show_controls

ATTACKS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\" onmouseover=\"alert(1)", "' onfocus='alert(1)",
    "</div></span><svg/onload=alert(1)>", "<a href='javascript:alert(1)'>x</a>", "&lt;script&gt;", "<!--", "]]>",
    "\x1b]0;title\x07\x1b[2J", "\u202egnp.exe", "a\u200bb\ufeff", "\x00\x7f\x9b31m", "{{7*7}}", "$(id)", "\ud800",
    "![x](http://example.com/x.png)", "<iframe srcdoc='<script>1</script>'>", "<style>*{display:none}</style>",
]  # fmt: skip


def generation(texts, name="model"):
    alternatives = tuple(Alternative(i, t, -1.0 - i) for i, t in enumerate(ATTACKS[:6]))
    tokens = tuple(
        Token(i, t.encode(errors="replace"), t, -0.5 * i, -0.1, i + 1, 1.0, alternatives) for i, t in enumerate(texts)
    )
    prompt = Prompt("".join(texts), tuple(range(len(texts))), tuple(texts), "ask", name, 100)
    end = Token(9, b"", "", -0.3, -0.1, 1, 0.5, alternatives)
    return Generation(prompt, tokens, "stop", Sampling(), end, decode_ms=100.0)


def values(texts):
    g = generation(texts, name=texts[0])
    alternatives = g.tokens[0].alternatives
    info = ModelInfo(texts[0], texts[-1], "a", "f", 1, 1, 1, 1, 1, 1, 1, True, "cpu", 1, 1, 1, None, texts[0])
    return [
        g,
        dataclasses.replace(g, finish_reason="interrupted", end=None),
        Score((Token(0, b"a", texts[0], None), *g.tokens), texts[0], 100),
        Distribution(texts[0], alternatives, 1.0, 1000, texts[0]),
        g.prompt,
        info,
        ModelTable((KnownModel(texts[0], "here", texts[-1]),)),
        g.diff(dataclasses.replace(g, tokens=g.tokens[::-1])),
    ]


class Checker(html.parser.HTMLParser):
    """Collects what a page may not have; every tag must be closed."""

    ALLOWED = {"div", "span", "br", "table", "tr", "td", "th", "b", "code", "progress", "details", "summary"}
    ATTRIBUTES = {"style", "title", "value"}

    def __init__(self, page):
        super().__init__()
        self.bad, self.open = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.bad += [tag] * (tag not in self.ALLOWED)
        self.bad += [name for name, _ in attributes if name not in self.ATTRIBUTES]
        self.bad += [v for k, v in attributes if k == "style" and re.search(r"url|expression|@|\\", v)]
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.bad += [f"/{tag}"] * (not self.open or self.open.pop() != tag)

    def handle_comment(self, data):
        self.bad.append("comment")


@pytest.mark.parametrize("value", values(ATTACKS), ids=lambda v: type(v).__name__)
def test_no_text_acts_on_a_page(value):
    page = FACES[type(value)].html(value)
    checker = Checker(page)
    assert not checker.bad and not checker.open
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u200b\ufeff\ud800-\udfff]", page)
    assert value._repr_html_() == page


@pytest.mark.parametrize("value", values(ATTACKS), ids=lambda v: type(v).__name__)
def test_no_text_acts_on_a_terminal(value):
    text = FACES[type(value)].text(value)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u200b\ufeff\ud800-\udfff]", text)


def test_an_attack_would_be_seen_without_the_defence(monkeypatch):
    monkeypatch.setattr(answer, "escape_text", str)
    assert Checker(answer.render_html(generation(ATTACKS))).bad


def test_the_tables_of_probabilities_are_inert_too():
    page = answer.render_probabilities_html(generation(ATTACKS))
    assert (
        not Checker(page).bad
        and not Checker(answer.render_running_html(generation(ATTACKS).prompt, generation(ATTACKS).tokens)).bad
    )


@given(st.text(st.characters(codec=None), max_size=50))
def test_any_text_is_one_escaped_piece(text):
    page = f'<div title="{escape_text(text)}">{escape_lines(text)}</div>'
    checker = Checker(page)
    assert not checker.bad and not checker.open
    show_controls(text).encode()  # holds no surrogate


def test_every_value_has_both_faces_and_names_its_figures():
    g = generation(["Hello", " world\n"])
    text, page = answer.render_text(g), answer.render_html(g)
    for face in (text, page):
        assert "2 tokens" in face and "20 tokens/s" in face and "seed 0" in face and "context 4 of 100" in face
    assert "60.7 %" in page and "rank 2" in page and "■" in page  # exp(-0.5)
    assert page.count("<script") == 0


def test_a_raw_continuation_stands_behind_its_text():
    g = generation([" a", " time"])
    g = dataclasses.replace(g, prompt=dataclasses.replace(g.prompt, mode="text", text="x" * 600 + "Once upon"))
    assert "…xxx" in answer.render_text(g) and "Once upon a time" in answer.render_text(g)
    assert "Once upon</span><span title=" in answer.render_html(g)


def test_the_less_likely_the_stronger_the_tint_and_not_by_colour_alone():
    alphas = [float(re.search(r"([\d.]+)\)", tint_style(p))[1]) for p in (0.9, 0.5, 0.2, 0.01)]
    assert alphas == sorted(alphas) and tint_style(0.999) == "" and tint_style(None) == ""
    assert "border-bottom" in tint_style(0.05) and "border-bottom" not in tint_style(0.2)
    assert ";4m" in tint_ansi("x", 0.05) and tint_ansi("x", 0.99) == "x"
    assert tint_ansi("a\nb", 0.05).count("\x1b[0m\n") == 1  # no tint over a line's end


def test_half_characters_leave_no_empty_span():
    tokens = (Token(1, b"\xe2\x82", "", -1.0, None, 1, 1.0), Token(2, b"\xac", "€", -1.0, None, 1, 1.0))
    assert answer.render_html(Score(tokens, "m", 10)).count("<span") == 1


def test_a_saved_answer_is_small():
    others = tuple(Alternative(i, f" word{i}", -1.0 - i) for i in range(20))
    tokens = tuple(Token(i, b" some", " some", -1.0, -1.0, 2, 1.0, others) for i in range(200))
    page = answer.render_html(dataclasses.replace(generation(["x"]), tokens=tokens))
    assert len(page) / (200 * answer.TITLE_ALTERNATIVES) < 60  # bytes for each token and alternative
