"""The live answer, in both user interfaces: it streams, can be questioned by mouse and keyboard, and branches."""

from __future__ import annotations

import json
import re

import pytest

LOAD = "%load_ext llm_magic\n%llm --quiet -n 1 warm up"
# with this seed the story is long: what is looked at while it streams is there for seconds
STORY = "text -T 1 --seed 0 -n {n} Once upon a time"
ASK = "%llm -n 60 -T 0.8 --seed 1 Why is the sky blue?"
VIEW = "v = _llm.view()\nv"
COUNT_WIDGETS = "import ipywidgets\nprint('widgets', len(ipywidgets.widgets.widget._instances))"
MIME = "application/vnd.llm-magic.tokens+json"
in_lab = pytest.mark.parametrize("notebook", ["lab"], indirect=True)


def open_view(notebook, ask=ASK, **options):
    """A page with an answer and its live view."""
    page = notebook([LOAD, ask, VIEW, "print(v.generations.keys())", "print(len(v.generation.tokens))"], **options)
    for index in range(3):
        page.run_cell(index)
    tokens = page.page.locator(".llm-token")
    tokens.first.wait_for()
    return page, tokens


def card(page):
    return page.page.locator(".llm-card")


def wait_done(page):
    page.page.locator(".llm-stop").wait_for(state="hidden")


def test_an_answer_streams_and_leaves_a_static_face_and_nothing_else(notebook):
    page = notebook([LOAD, COUNT_WIDGETS, "%llm " + STORY.format(n=600), COUNT_WIDGETS])
    page.run_cell(0)
    page.run_cell(1)
    page.run_cell(2, wait=False)
    page.page.locator(".llm-token").nth(20).wait_for()
    first = page.page.locator(".llm-token").first.inner_text()
    assert page.page.locator(".llm-stop").is_visible()
    page.screenshot(f"streaming-{page.ui}")
    page.wait_idle()
    page.run_cell(3)
    assert page.page.locator(".llm-answer").count() == 0
    assert first in page.outputs_text(2)[0]
    # as many as before the model was asked: ipywidgets makes none by itself
    assert page.outputs_text(1) == page.outputs_text(3)
    page.save()
    (output,) = page.read_notebook().cells[2].outputs
    assert sorted(output.data) == [MIME, "text/html", "text/plain"]
    assert "widgets" not in page.read_notebook().metadata
    n_tokens = sum(len(text["tokens"]) for text in output.data[MIME]["texts"])
    assert n_tokens >= 500 and len(json.dumps(output.data)) / (n_tokens * 20) < 60  # bytes a token and alternative
    assert len(json.dumps(output.data["text/html"])) / (n_tokens * 5) < 60
    page.assert_clean()


def test_a_token_is_questioned_by_mouse(notebook):
    page, tokens = open_view(notebook)
    tokens.nth(10).hover()
    card(page).wait_for()
    text = card(page).inner_text()
    assert "stands here" in text and "all others" in text and "temperature 0.8" in text
    assert card(page).locator("tr").count() >= 12  # a head, ten alternatives, all others
    page.screenshot(f"hover-{page.ui}")
    page.page.mouse.move(5, 5)
    card(page).wait_for(state="hidden")
    page.assert_clean()


def test_every_token_is_reached_by_keyboard_and_no_key_reaches_the_notebook(notebook):
    page, tokens = open_view(notebook)
    n_cells = page.page.locator(".jp-Notebook .jp-Cell").count()
    box = page.page.locator(".llm-text")
    box.focus()
    keyboard = page.page.keyboard
    keyboard.press("End")
    assert page.page.locator(".llm-focused").get_attribute("data-index") == str(tokens.count() - 1)
    keyboard.press("Home")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft", "a", "b", "x", "d", "d", "m"):
        keyboard.press(key)
    focused = page.page.locator(".llm-focused")
    assert focused.get_attribute("data-index") in ("0", "1", "2")
    assert re.fullmatch(r".+, probability [<\d.]+ %", focused.get_attribute("aria-label"))
    assert box.get_attribute("aria-activedescendant") == focused.get_attribute("id")
    keyboard.press("Enter")
    page.page.locator(".llm-pinned").wait_for()
    page.screenshot(f"keyboard-{page.ui}")
    keyboard.press("ArrowDown")
    assert page.page.evaluate("document.activeElement.className") == "llm-take"
    keyboard.press("Escape")
    card(page).wait_for(state="hidden")
    assert page.page.evaluate("document.activeElement.className") == "llm-text"
    assert page.page.locator(".jp-Notebook .jp-Cell").count() == n_cells
    page.assert_clean()


def test_a_click_on_an_alternative_branches_and_branches_are_walked_named_and_compared(notebook):
    page, tokens = open_view(notebook)
    before = tokens.all_inner_texts()
    tokens.nth(10).click()
    choice = card(page).locator(".llm-take").first
    taken = choice.inner_text()
    choice.click()
    page.page.locator(".llm-branch", has_text="branch 1").wait_for()
    wait_done(page)
    after = tokens.all_inner_texts()
    assert after[:10] == before[:10] and after[10].replace(" ", "␣").strip("↵\n") == taken.strip("↵")
    tokens.nth(4).click()  # a branch of the branch, by hand
    card(page).locator("input").fill(" whatever happens")
    card(page).locator("input").press("Enter")
    page.page.locator(".llm-branch", has_text="branch 2").wait_for()
    wait_done(page)
    assert "whatever happens" in page.page.locator(".llm-text").inner_text()
    assert page.page.locator(".llm-branch").evaluate_all("all => all.map(b => b.ariaLevel)") == ["1", "2", "3"]
    page.page.locator(".llm-branch", has_text="branch 1").press("F2")
    page.page.locator(".llm-branches input").fill("mine")
    page.page.locator(".llm-branches input").press("Enter")
    page.page.locator(".llm-branch", has_text="mine").click()
    page.page.locator(".llm-branch-row", has_text="answer").locator(".llm-compare").click()
    page.page.locator(".llm-pane").nth(1).wait_for()
    page.page.locator(".llm-differs").first.wait_for()
    page.screenshot(f"branches-{page.ui}")
    page.run_cell(3)
    assert page.outputs_text(3) == ["dict_keys(['answer', 'mine', 'branch 2'])"]
    page.assert_clean()


def test_a_view_that_is_closed_leaves_its_texts_and_frees_its_widgets(notebook):
    page = notebook([LOAD, COUNT_WIDGETS, ASK, VIEW, COUNT_WIDGETS])
    for index in range(4):
        page.run_cell(index)
    page.page.locator(".llm-token").first.wait_for()
    page.page.get_by_role("button", name="keep as text").click()
    page.page.locator(".llm-answer").wait_for(state="detached")
    page.run_cell(4)
    assert page.outputs_text(1) == page.outputs_text(4)
    assert page.outputs_text(3)[0] == page.outputs_text(2)[0]
    page.save()
    assert sorted(page.read_notebook().cells[3].outputs[0].data) == [MIME, "text/html", "text/plain"]
    page.assert_clean()


def test_samples_stream_side_by_side(notebook):
    page = notebook([LOAD, "%llm " + STORY.format(n=600).replace("-T", "--samples 3 -T")])
    page.run_cell(0)
    page.run_cell(1, wait=False)
    page.page.locator(".llm-pane").nth(2).locator(".llm-token").nth(5).wait_for()
    boxes = [pane.bounding_box() for pane in page.page.locator(".llm-pane").all()]
    assert boxes[0]["y"] == boxes[2]["y"] and boxes[0]["x"] < boxes[1]["x"] < boxes[2]["x"]
    page.screenshot(f"samples-{page.ui}")
    page.wait_idle()
    assert page.outputs(1).locator("text=/^sample [012]$/").count() == 3
    page.assert_clean()


@in_lab
def test_prompts_in_a_loop_each_leave_their_answer(notebook):
    page = notebook([LOAD, "for i in range(3):\n    %llm -n 12 -T 1 Name an animal.", "print('next')"])
    page.run_all()
    assert len(page.outputs_text(1)) == 3 and all("12 tokens" in text for text in page.outputs_text(1))
    assert page.outputs_text(2) == ["next"]
    page.assert_clean()


@in_lab
def test_two_views_of_one_answer_show_the_same(notebook):
    page = notebook([LOAD, ASK, VIEW, "v"])
    page.run_all()
    page.page.locator(".llm-text").nth(1).wait_for()
    texts = page.page.locator(".llm-text").all_inner_texts()
    assert len(texts) == 2 and texts[0] == texts[1] != ""
    page.assert_clean()


@in_lab
def test_texts_that_attack_stay_texts(notebook):
    attack = "</span><img src=x onerror='window.hasRun=1'><script>window.hasRun=1</script>\\u202e"
    cells = [LOAD, f"x = _llm.branch(0, {attack!r}.encode().decode('unicode_escape'), max_tokens=3).view()\nx"]
    page = notebook(cells)
    page.run_all()
    page.page.locator(".llm-token").nth(5).wait_for()
    assert "<script>" in page.page.locator(".llm-text").inner_text()
    assert "U+202E" in page.page.locator(".llm-text").inner_text()
    assert page.page.evaluate("window.hasRun === undefined && !document.querySelector('.llm-answer img')")
    page.assert_clean()


@in_lab
def test_the_tint_can_show_other_figures(notebook):
    page, tokens = open_view(notebook)
    labels = {}
    for tint in ("probability", "sampled", "entropy", "rank"):
        page.page.get_by_label("Tint by").select_option(tint)
        page.page.locator(f".llm-token[data-index='9'][aria-label*=', {tint} ']").wait_for()
        labels[tint] = tokens.nth(9).get_attribute("aria-label").split(", ", 1)[1]
    assert len(set(labels.values())) == 4
    page.assert_clean()
