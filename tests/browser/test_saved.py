"""The JupyterLab extension draws saved answers: alive without a kernel, and branching through one."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nbformat
import pytest

from .harness import DARK
from .test_answer import ASK, LOAD, card

MIME = "application/vnd.llm-magic.tokens+json"
in_lab = pytest.mark.parametrize("plugged", ["lab"], indirect=True)


def open_saved(plugged, cells=(LOAD, ASK), **options):
    """A page whose answers are drawn by the extension."""
    page = plugged(list(cells), **options)
    page.run_all()
    page.page.locator(".llm-token").nth(20).wait_for()
    return page, page.page.locator(".llm-token")


def test_a_stranger_without_a_kernel_questions_a_saved_answer(plugged):
    page, tokens = open_saved(plugged)
    n_tokens = tokens.count()
    page.save()
    stranger = plugged.open_as_stranger(page.path, has_kernel=False, theme=DARK)
    tokens = stranger.page.locator(".llm-token")
    tokens.first.wait_for()
    assert tokens.count() == n_tokens
    tokens.nth(10).hover()
    card(stranger).wait_for()
    assert "stands here" in card(stranger).inner_text() and "all others" in card(stranger).inner_text()
    stranger.screenshot(f"saved-untrusted-{page.ui}")
    stranger.page.mouse.move(5, 5)
    stranger.page.locator(".llm-what-if summary").click()
    stranger.page.get_by_label("temperature", exact=True).fill("1.8")
    stranger.page.locator(".llm-token[data-index='9'][aria-label*='under the changed settings']").wait_for()
    stranger.page.locator(".llm-text").focus()
    stranger.page.keyboard.press("End")
    stranger.page.keyboard.press("Enter")
    stranger.page.locator(".llm-pinned").wait_for()
    assert stranger.page.locator(".llm-focused").get_attribute("data-index") == str(n_tokens - 1)
    stranger.page.locator(".llm-take").first.click()
    stranger.page.locator(".llm-problem", has_text="a branch needs a kernel").wait_for()
    stranger.screenshot(f"saved-without-a-kernel-{page.ui}")
    stranger.assert_clean()


def test_a_click_on_an_alternative_of_a_saved_answer_branches_through_the_kernel(plugged):
    page, tokens = open_saved(plugged)
    before = tokens.all_inner_texts()
    tokens.nth(10).click()
    card(page).locator(".llm-take").first.click()
    page.page.locator(".llm-branch", has_text="branch 1").wait_for()
    page.page.locator(".llm-is-running").wait_for(state="detached")
    after = page.page.locator(".llm-answer:visible .llm-token").all_inner_texts()
    assert after[:10] == before[:10] and after[10] != before[10]
    page.screenshot(f"saved-branched-{page.ui}")
    page.page.locator("button:visible", has_text="keep as text").click()
    page.page.locator(".llm-heading", has_text="sample 1").wait_for()  # both texts, in the picture's place
    page.save()
    (output,) = page.read_notebook().cells[1].outputs
    assert len(output.data[MIME]["texts"]) == 2 and "widgets" not in page.read_notebook().metadata
    page.assert_clean()


@in_lab
def test_a_kernel_that_lacks_the_answer_says_so(plugged):
    page, _ = open_saved(plugged)
    page.save()
    page.close()
    plugged.server.kill_sessions()
    again = plugged.reopen(page.path)
    for load, expected in ((False, "this kernel has no llm_magic"), (True, "does not hold the answer")):
        if load:
            again.run_cell(0)
        again.page.locator(".llm-token").nth(10).click()
        card(again).locator(".llm-take").first.click()
        again.page.locator(".llm-problem", has_text=expected).wait_for()
    # the kernel that lacks the target says so too, on its own console
    assert all("llm_magic.branch" in complaint for complaint in again.complaints())


@in_lab
def test_hostile_files_of_the_format_run_nothing(plugged):
    page, tokens = open_saved(plugged)
    page.save()
    saved = page.read_notebook()
    data = saved.cells[1].outputs[0].data
    attack = "<img src=x onerror='window.hasRun=1'><script>window.hasRun=1</script>"
    good = json.loads(json.dumps(data[MIME]))
    hostile = [
        {**good, "texts": [{**good["texts"][0], "before": attack, "status": [attack], "name": attack}]},
        {**good, "texts": [{**good["texts"][0], "tokens": [attack] * len(good["texts"][0]["tokens"])}]},
        {**good, "words": [[token_id, attack] for token_id, _ in good["words"]]},
        {**good, "records": good["records"][:100]},
        {**good, "records": "AAAA" * 1000},
        {**good, "settings": []},
        {**good, "version": 99},
        {"version": 1},
        {**good, "texts": "x", "words": None},
        [attack],
    ]
    cell = saved.cells[1]
    saved.cells = [nbformat.v4.new_code_cell("1") for _ in hostile]
    for new, data_now in zip(saved.cells, hostile, strict=True):
        bundle = {MIME: data_now, "text/plain": attack, "text/html": "fallback"}
        new.outputs = [nbformat.v4.new_output("display_data", data=bundle)]
    saved.cells.append(cell)
    path = plugged.server.add_notebook(saved.cells)
    again = plugged.reopen(path)
    again.page.locator(".llm-answer").nth(3).wait_for()
    again.page.locator("[role=alert]", has_text="llm_magic cannot draw it").nth(6).wait_for()
    again.page.locator("[role=alert]", has_text="update llm_magic").wait_for()
    again.page.locator(".llm-token").nth(3).hover()
    card(again).first.wait_for()
    assert again.page.evaluate("window.hasRun === undefined && !document.querySelector('.jp-OutputArea img')")
    again.screenshot("hostile-lab")
    again.assert_clean()


@in_lab
def test_samples_and_scores_are_drawn_too(plugged):
    page = plugged([LOAD, "%llm --samples 2 -T 1 -n 12 Name an animal.", "%llm score The cat sat on the mat."])
    page.run_all()
    assert page.outputs(1).locator(".llm-pane").count() == 2
    tokens = page.outputs(2).locator(".llm-token")
    tokens.nth(3).click()
    card(page).locator("visible=true").first.wait_for()
    assert page.outputs(2).locator(".llm-take").count() == 0  # a given text does not branch
    page.assert_clean()


CORPUS = sorted((Path(__file__).parent.parent / "corpus").glob("*.json"))
READ = """async ([url, saved]) => {
    const { readSaved } = await import(url);
    const session = readSaved(saved);
    return [...session.nodes.values()].map(({ key, records }) => [...Array(records.count).keys()].map((i) => {
        const token = session.token(key, i);
        const figure = (x) => (Number.isNaN(x) ? null : x);
        return {
            ...token, logprob: figure(token.logprob), sampledLogprob: figure(token.sampledLogprob),
            listed: token.listed.map(({ id, logprob, penalty }) => [id, logprob, penalty]), tail: [...token.bins],
        };
    }));
}"""


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_file_of_the_format_is_read_for_ever(chrome, server_with_plugin, path):
    data = json.loads(path.read_text(encoding="utf-8"))
    page = chrome.new_page()
    folder = f"{server_with_plugin.url}/lab/extensions/llm-magic"
    page.goto(f"{folder}/package.json?token={server_with_plugin.token}")  # a page imports from its own server
    url = f"{folder}/static/saved.js"
    texts = page.evaluate(READ, [url, data["saved"]])
    page.close()
    assert len(texts) == len(data["expected"])
    for found, expected in zip(itertools.chain(*texts), itertools.chain(*data["expected"]), strict=True):
        assert (found["id"], found["text"]) == (expected["id"], expected["text"])
        assert found["rank"] == (expected["rank"] or 0)
        for name in ("logprob", "sampledLogprob"):
            assert found[name] == (expected[name] and pytest.approx(expected[name], rel=1e-6))
        assert found["entropy"] == pytest.approx(expected["entropy"] or 0, rel=1e-3)  # half precision
        assert [row[0] for row in found["listed"]] == [row[0] for row in expected["listed"]]
        for column in (1, 2):
            values = [row[column] for row in expected["listed"]]
            assert [row[column] for row in found["listed"]] == pytest.approx(values, rel=1e-3, abs=1e-6)
        if expected["tail"]:
            for column in (0, 1):
                values = [pair[column] for pair in expected["tail"]]
                assert found["tail"][column::2] == pytest.approx(values, rel=3e-3, abs=1e-3)
