"""The harness at work: other users, themes, preferences, waiting, complaints."""

from __future__ import annotations

import subprocess

import pytest

from .harness import DARK, HIGH_CONTRAST, LIGHT
from .server import install_ipykernel

in_lab = pytest.mark.parametrize("notebook", ["lab"], indirect=True)


def test_a_stranger_trusts_no_script_and_the_author_does(notebook):
    script = "from IPython.display import HTML\nHTML('<b class=mine>here</b><script>window.hasRun = true</script>')"
    page = notebook([script])
    page.run_all()
    page.save()
    ran = {}
    for who, opened in (("author", notebook.reopen(page.path)), ("stranger", notebook.open_as_stranger(page.path))):
        opened.outputs(0).get_by_text("here").wait_for()
        ran[who] = opened.page.evaluate("window.hasRun === true")
    assert ran == {"author": True, "stranger": False}


def colours(page):
    """Two of a theme's colours: the dark themes share their background."""
    names = ["--jp-layout-color0", "--jp-border-color1"]
    return page.page.evaluate("names => names.map(n => getComputedStyle(document.body).getPropertyValue(n))", names)


def test_a_page_has_the_theme_that_it_asks_for(notebook):
    seen = []
    for theme in (DARK, HIGH_CONTRAST, LIGHT):
        page = notebook(["'seen'"], theme=theme)
        seen.append(colours(page))
        page.close()
    assert seen[0] != seen[1] and seen[2][0] == "white"
    page = notebook(["'seen'"])
    page.set_theme(DARK)
    assert colours(page) == seen[0]


@in_lab
def test_a_page_emulates_what_its_user_prefers(notebook):
    page = notebook(
        ["'seen'"],
        viewport={"width": 700, "height": 500},
        reduced_motion="reduce",
        color_scheme="dark",
        forced_colors="active",
    )
    for preference in ("prefers-reduced-motion: reduce", "prefers-color-scheme: dark", "forced-colors: active"):
        assert page.page.evaluate(f"matchMedia('({preference})').matches")
    assert page.page.evaluate("[innerWidth, innerHeight]") == [700, 500]
    assert page.screenshot("preferences").stat().st_size > 1000


def test_waiting_covers_cells_that_sleep_and_that_fail(notebook):
    page = notebook(["import time\ntime.sleep(1)\nprint('slept')", "1 / 0", "print('not reached')"])
    page.run_cell(0, wait=False)
    page.wait_idle()
    assert page.outputs_text(0) == ["slept"]
    page.run_all()
    assert "ZeroDivisionError" in "".join(page.outputs_text(1)) and page.outputs_text(2) == []


@in_lab
def test_what_a_page_does_wrong_is_told(notebook):
    page = notebook(["'seen'"])
    page.page.evaluate(
        """() => {
            console.error('a complaint');
            setTimeout(() => { throw new Error('an accident') });
            const fetched = fetch('http://example.invalid/picture').catch(() => null);
            return fetched.then(() => new Promise(done => setTimeout(done, 100)));
        }"""
    )
    with pytest.raises(AssertionError) as failure:
        page.assert_clean()
    for words in ("console: a complaint", "uncaught: an accident", "off-site: http://example.invalid/picture"):
        assert words in str(failure.value)


def test_a_version_that_pip_lacks_is_told(tmp_path, monkeypatch):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="no such version")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(RuntimeError, match="ipykernel 0.0.0: no such version"):
        install_ipykernel("0.0.0", tmp_path / "ipykernel")
    assert list(tmp_path.iterdir()) == []
