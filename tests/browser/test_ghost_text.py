"""Ghost text in cells, from the model in the notebook's kernel, by the JupyterLab extension."""

from __future__ import annotations

import contextlib
import json

from .test_answer import LOAD
from .test_saved import in_lab

# the text itself, and not what keeps its room for a moment when it has gone
GHOST = ".jp-GhostText:not(.jp-GhostText-letterSpacer, .jp-GhostText-lineSpacer)"
NOTE_KEYS = "() => document.addEventListener('keydown', () => (window.lastKey = performance.now()), true)"
# how long after the pause of typing behind the last key ghost text stood there
MEASURE = """async (ghost) => {
    while (!document.querySelector(ghost)?.textContent) await new Promise((go) => setTimeout(go, 2));
    await new Promise(requestAnimationFrame);
    return performance.now() - window.lastKey - 150;
}"""


def first_text_ms(page, text):
    """Type a text, wait for its ghost text, and dismiss that."""
    page.page.keyboard.type(text, delay=20)
    took_ms = page.page.evaluate(MEASURE, GHOST)
    page.page.keyboard.press("Escape")
    page.page.locator(GHOST).wait_for(state="detached")
    return took_ms


def write_in(page, index):
    """Put the cursor into an empty cell."""
    page.page.locator(".jp-Notebook .jp-Cell .cm-content").nth(index).click()


def test_ghost_text_comes_when_it_is_switched_on_and_tab_takes_it(plugged):
    page = plugged([LOAD, "%llm complete on", "", "%llm complete off", "import time; time.sleep(8)"])
    page.run_cell(0)
    keyboard = page.page.keyboard
    write_in(page, 2)
    keyboard.type("import numpy as n")
    page.page.wait_for_timeout(1000)
    assert page.page.locator(GHOST).count() == 0  # nothing until it is switched on
    page.run_cell(1)
    write_in(page, 2)
    keyboard.press("End")
    keyboard.type("p\nfor i in ran", delay=30)
    page.page.locator(GHOST).wait_for()
    page.page.wait_for_timeout(500)
    ghost = page.page.locator(GHOST).inner_text()
    page.screenshot(f"ghost-{page.ui}")
    keyboard.press("Tab")
    page.page.locator(GHOST).wait_for(state="detached")
    line = page.page.locator(".jp-Notebook .jp-Cell").nth(2).locator(".cm-line").last.inner_text()
    assert ghost.startswith("ge(") and line.startswith("for i in ran" + ghost.split("\n")[0])
    page.run_cell(4, wait=False)  # while a cell runs
    write_in(page, 2)
    keyboard.press("Control+End")
    keyboard.type("\nimport pand", delay=30)
    page.page.locator(GHOST).wait_for(timeout=7000)
    keyboard.press("Escape")
    page.wait_idle()
    page.run_cell(3)
    write_in(page, 2)
    keyboard.press("Control+End")
    keyboard.type("\nimport o", delay=30)
    page.page.wait_for_timeout(1000)
    assert page.page.locator(GHOST).count() == 0
    page.assert_clean()


INLINE_COMPLETER = "@jupyterlab/completer-extension:inline-completer"
TABS = 10  # jedi is slow at first, and JupyterLab waits one second for it: then the key does nothing


@contextlib.contextmanager
def setting(plugged, **values):
    """Settings of the provider, as a user has set them."""
    plugged.server.write_setting(INLINE_COMPLETER, {"providers": {"llm-magic": values}})
    try:
        yield
    finally:
        plugged.server.write_setting(INLINE_COMPLETER, {})


def test_tab_indents_and_completes_where_no_ghost_text_is(plugged):
    with setting(plugged, leastProbability=1):  # nothing is ever sure enough
        page = plugged([LOAD, "%llm complete on", "if True:", "text_of_mine = 1", "text_of_m"])
        for index in (0, 1, 3):
            page.run_cell(index)
        keyboard, cells = page.page.keyboard, page.page.locator(".jp-Notebook .jp-Cell")
        write_in(page, 2)
        keyboard.press("Control+End")
        keyboard.press("Enter")
        keyboard.press("Home")
        keyboard.press("Tab")
        keyboard.type("pass")
        line = cells.nth(2).locator(".cm-line").last.inner_text()
        assert line.strip() == "pass" and line.startswith("    ")
        keyboard.press("Escape")
        write_in(page, 4)
        keyboard.press("End")
        for _ in range(TABS):
            keyboard.press("Tab")
            page.page.wait_for_timeout(1200)
            if "text_of_mine" in cells.nth(4).locator(".cm-line").first.inner_text():
                break
        assert cells.nth(4).locator(".cm-line").first.inner_text() == "text_of_mine"
        page.assert_clean()


@in_lab
def test_the_settings_of_ghost_text_are_in_the_settings_editor(plugged):
    page = plugged([LOAD])
    page.execute("settingeditor:open", query="Inline Completer")
    editor = page.page.locator(".jp-SettingsPanel")
    editor.get_by_text("In every notebook").first.wait_for()
    for name in ("Tokens", "Lines", "Context", "Least probability"):
        assert editor.get_by_text(name, exact=True).count()
    editor.get_by_text("In every notebook").first.scroll_into_view_if_needed()
    page.screenshot("ghost-settings")
    page.assert_clean()


@in_lab
def test_ghost_text_is_found_again_by_a_page_that_is_opened_later(plugged):
    page = plugged([LOAD, "%llm complete on", ""])
    page.run_cell(0)
    page.run_cell(1)
    page.save()
    again = plugged.reopen(page.path)
    write_in(again, 2)
    again.page.keyboard.type("for i in ran", delay=30)
    again.page.locator(GHOST).wait_for()
    again.assert_clean()


@in_lab
def test_a_setting_brings_ghost_text_into_every_notebook_whose_kernel_has_it(plugged):
    with setting(plugged, startAutomatically=True):
        page = plugged(["1 + 1", LOAD, ""])
        page.run_cell(0)
        write_in(page, 2)
        page.page.keyboard.type("import nump", delay=30)
        page.page.wait_for_timeout(1000)
        assert page.page.locator(GHOST).count() == 0  # this kernel has no llm_magic
        page.run_cell(1)
        page.page.wait_for_timeout(3000)  # it is asked again only then
        write_in(page, 2)
        page.page.keyboard.press("End")
        page.page.keyboard.type("y as np\nimport matplot", delay=30)
        page.page.locator(GHOST).wait_for()
        page.assert_clean()


# counts what reaches the kernel
NOTE_ASKED = """
import json
from llm_magic.ghost import page as ghost_page
asked, read = [], ghost_page._read_request
def note(data):
    asked.append(data["id"])
    return read(data)
ghost_page._read_request = note
"""
TELL_ASKED = """
worker = get_ipython().find_line_magic('llm').__self__.notebook.ghost._worker
print(json.dumps([len(asked), int(worker._latest is not None)]))
"""


def warm_cells():
    """Cells of some 500 tokens, with ghost text switched on."""
    above = "\n".join(f"column_{i} = [value * {i} for value in range({i}, {i + 10})]" for i in range(22))
    return [LOAD, above, "%llm complete on"]


@in_lab
def test_the_first_ghost_text_is_quick_and_fast_typing_leaves_no_queue(plugged):
    page = plugged([*warm_cells(), NOTE_ASKED, "", TELL_ASKED])
    for index in range(4):
        page.run_cell(index)
    page.page.evaluate(NOTE_KEYS)
    write_in(page, 4)
    keyboard = page.page.keyboard
    texts = ("import nump", "\nimport pand", "\nimport matplot", "\nprint(column", "\nimport num", "\nx = colu")
    took_ms = [first_text_ms(page, text) for text in texts]
    print("first text after the pause, ms:", [round(ms) for ms in took_ms])
    assert min(took_ms) < 150  # tests.bench.ghost tells the figure, on a machine that is quiet
    keyboard.type("\nfor index, value in enumerate(column_1): print(index, val", delay=100)
    page.page.locator(GHOST).wait_for()
    page.run_cell(5)
    n_asked, n_waiting = json.loads(page.outputs_text(5)[0])
    assert n_asked < 100 and n_waiting == 0
    page.assert_clean()
