"""What is left of an answer in other hands: strangers, exports, other themes, narrow pages, reduced motion."""

from __future__ import annotations

import pytest

from .harness import DARK, HIGH_CONTRAST, LIGHT
from .test_answer import ASK, LOAD, in_lab, open_view

TINTED = "span[title][style*='background']"


def test_a_closed_notebook_shows_its_answers_to_a_stranger_without_a_kernel(notebook):
    page = notebook([LOAD, ASK, "%llm --samples 2 -T 1 -n 20 Name an animal.", "%llm score The cat sat on the mat."])
    page.run_all()
    page.save()
    stranger = notebook.open_as_stranger(page.path, has_kernel=False)
    for index in (1, 2, 3):
        spans = stranger.outputs(index).locator(TINTED)
        assert spans.count() > 5 and "%" in spans.first.get_attribute("title")
    stranger.screenshot(f"untrusted-{page.ui}")
    stranger.assert_clean()
    page.close()
    notebook.server.kill_sessions()
    again = notebook.reopen(page.path)  # the author, with a fresh kernel
    assert again.outputs(1).locator(TINTED).count() > 5
    assert "model not found" not in "".join(again.outputs_text())
    again.screenshot(f"reopened-{page.ui}")
    again.assert_clean()


@in_lab
def test_an_export_is_complete_without_a_network(notebook):
    page = notebook([LOAD, ASK])
    page.run_all()
    page.save()
    tab = notebook.open_html(page.path)
    assert tab.page.locator(TINTED).count() > 20
    tab.screenshot("exported")


@pytest.mark.parametrize("theme", [LIGHT, DARK, HIGH_CONTRAST])
def test_text_is_readable_in_every_theme(notebook, theme):
    page, tokens = open_view(notebook, theme=theme)
    tokens.nth(10).click()
    page.page.locator(".llm-pinned").wait_for()
    contrasts = page.page.evaluate("""() => {
        const canvas = new OffscreenCanvas(1, 1).getContext('2d');
        const onto = (colours) => {
            canvas.clearRect(0, 0, 1, 1);
            for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
        };
        const light = (rgb) => rgb.map((c) => c / 255)
            .map((c) => (c <= 0.04 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const ground = getComputedStyle(document.body).getPropertyValue('--jp-layout-color0');
        return [...document.querySelectorAll('.llm-token')].map((span) => {
            const style = getComputedStyle(span);
            const [text, back] = [onto([ground, style.color]), onto([ground, style.backgroundColor])].map(light);
            return (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
        });
    }""")
    assert min(contrasts) > 4.5  # WCAG 2.1, level AA
    page.screenshot(f"{theme.lower().replace(' ', '-')}-{page.ui}")
    page.assert_clean()


@in_lab
def test_a_narrow_page_cuts_nothing_off(notebook):
    page, tokens = open_view(notebook, viewport={"width": 520, "height": 800})
    page.execute("application:toggle-left-area")
    tokens.nth(10).click()
    card = page.page.locator(".llm-pinned")
    card.wait_for()
    box = card.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 520 and box["y"] >= 0 and box["y"] + box["height"] <= 800
    page.screenshot("narrow-lab")
    page.assert_clean()


@in_lab
def test_reduced_motion_stops_transitions(notebook):
    page, tokens = open_view(notebook, reduced_motion="reduce")
    assert tokens.nth(3).evaluate("span => getComputedStyle(span).transitionDuration") == "0s"
    page.assert_clean()


@in_lab
def test_forced_colours_keep_the_second_channel(notebook):
    page, tokens = open_view(notebook, forced_colors="active")
    striking = page.page.locator(".llm-striking")
    assert striking.count() > 0
    assert striking.first.evaluate("span => getComputedStyle(span).borderBottomWidth") == "2px"
    page.screenshot("forced-colours-lab")
    page.assert_clean()
