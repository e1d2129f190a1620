"""Daily work on a real page: code is put into cells and marked, a cell that runs again replaces its turn."""

from __future__ import annotations

import json

from .test_answer import LOAD, MIME, card, in_lab, wait_done

WORKS = "a function per_night(price, nights) that returns the price divided by the nights"
SLIPS = "sort the list names and print it"  # the default model calls a function that it never defined


def sources(page):
    return page.page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.map((cell) => cell.model.sharedModel.getSource())"
    )


def test_code_goes_into_a_new_cell_or_in_the_place_of_the_prompt_and_is_not_run(notebook):
    page = notebook([LOAD, f"%llm code --insert next {WORKS}", "'last'", f"%llm code --insert replace {WORKS}"])
    page.run_cell(0)
    page.run_cell(1)
    found = sources(page)
    assert len(found) == 5 and found[2].startswith("def per_night(price, nights):") and found[1].startswith("%llm code")
    assert page.page.locator(".jp-Notebook .jp-Cell").nth(2).locator(".jp-OutputArea-output").count() == 0
    page.run_cell(4)
    found = sources(page)
    assert len(found) == 5 and found[4] == found[2]
    page.screenshot(f"code-inserted-{page.ui}")
    page.assert_clean()


def test_what_is_wrong_in_code_is_marked_in_the_saved_and_the_live_picture(notebook):
    page = notebook([LOAD, f"%llm code {SLIPS}", "v = _llm.view()\nv"])
    for index in range(3):
        page.run_cell(index)
    assert "`sorted_list` exists nowhere" in page.outputs_text(1)[0]
    marked = page.page.locator(".jp-Cell").nth(2).locator(".llm-wrong")
    marked.first.wait_for()
    assert "sorted_list" in "".join(marked.all_inner_texts()).strip()
    assert "exists nowhere" in marked.first.get_attribute("title")
    page.screenshot(f"code-marked-{page.ui}")
    page.save()
    (output,) = page.read_notebook().cells[1].outputs
    (text,) = output.data[MIME]["texts"]
    assert "sorted_list" in "".join(text["tokens"][index] for index, _ in text["problems"])
    assert "dashed" in output.data["text/html"]
    page.assert_clean()


@in_lab
def test_a_cards_rows_say_what_the_form_does_not_allow(notebook):
    ask = "%llm --schema 'name, age int' -T 0.8 Tom is 12. Extract the fields as JSON."
    page = notebook([LOAD, ask, "v = _llm.view()\nv", "print(_llm.value)"])
    for index in range(4):
        page.run_cell(index)
    assert "'age': " in page.outputs_text(3)[0] and "schema: complete" in page.outputs_text(1)[0]
    tokens = page.page.locator(".llm-token")
    tokens.first.wait_for()
    wait_done(page)
    tokens.first.hover()
    card(page).wait_for()
    assert "not allowed here" in card(page).inner_text()
    assert tokens.first.inner_text() in card(page).locator(".llm-chosen").inner_text()
    page.screenshot("form-card")
    page.assert_clean()


def test_a_saved_answer_shows_what_was_wrong_and_what_was_not_allowed(plugged):
    page = plugged([LOAD, f"%llm code {SLIPS}", "%llm --regex '[0-9]{4}' When did the war end?"])
    for index in range(3):
        page.run_cell(index)
    page.page.locator(".jp-Cell").nth(1).locator(".llm-wrong").first.wait_for()
    cell = page.page.locator(".jp-Cell").nth(2)
    cell.locator(".llm-token").first.hover()
    cell.locator(".llm-card").wait_for()
    assert "not allowed here" in cell.locator(".llm-card").inner_text()
    page.assert_clean()


def test_a_cell_that_runs_again_replaces_its_turn(notebook):
    show = "import json\nprint(json.dumps([m.content for m in _llm.messages if m.role == 'user']))"
    page = notebook([LOAD, "%llm --chat a -n 5 Hello, I am Tom.", "%llm --chat a -n 5 Who am I?", show])
    for index in range(4):
        page.run_cell(index)
    assert json.loads(page.outputs_text(3)[0]) == ["Hello, I am Tom.", "Who am I?"]
    page.run_cell(1)
    assert "1 later turn left as it was" in page.outputs_text(1)[0]
    page.run_cell(2)
    page.run_cell(3)
    assert json.loads(page.outputs_text(3)[0]) == ["Hello, I am Tom.", "Who am I?"]
    page.assert_clean()
