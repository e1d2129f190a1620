"""The live view and the panel without a page: what they send, what they keep, what they leave."""

from __future__ import annotations

import base64
import random
import re
import struct
import time

import ipywidgets
import pytest

from llm_magic.errors import LLMError, OptionError
from llm_magic.generation import TAIL_BINS, Comparison, Samples, Sampling
from llm_magic.views import bundle, compare
from llm_magic.views.feed import LISTED, RECORD_BYTES, Feed, Part
from llm_magic.views.scripts import FOLDER, order_modules, read_script
from llm_magic.widgets.answer import AnswerView
from llm_magic.widgets.pace import LONGEST_S, MAX_SHARE, SHORTEST_S, Pace
from llm_magic.widgets.panel import PRESETS, SamplingPanel
from llm_magic.widgets.saved import open_branch


@pytest.fixture(scope="module")
def generation(tiny_llm):
    return tiny_llm("the rain", mode="text", temperature=1.0, top_k=0, top_p=1.0, max_tokens=30, seed=3)


@pytest.fixture
def sent(monkeypatch):
    """What views send, as a page would hear it."""
    messages = []
    monkeypatch.setattr(
        AnswerView, "send", lambda self, content, buffers=None: messages.append((content, buffers or []))
    )
    return messages


def wait(is_done, limit_s=20):
    deadline = time.monotonic() + limit_s
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_record_holds_every_figure_of_a_token(generation):
    header, records = Feed().news([Part(0, 0, generation.tokens)])
    assert len(records) == RECORD_BYTES * len(generation.tokens)
    words = dict(header["words"])
    for index, token in enumerate(generation.tokens):
        record = records[index * RECORD_BYTES :][:RECORD_BYTES]
        token_id, logprob, sampled, penalty, rank, entropy, setting, n, highest = struct.unpack_from(
            "<i3fifiif", record
        )
        assert (token_id, rank, n, setting) == (token.id, token.rank, len(token.alternatives), 0)
        figures = (token.logprob, token.sampled_logprob, token.penalty, token.entropy, token.tail.highest)
        assert (logprob, sampled, penalty, entropy, highest) == pytest.approx(figures, rel=1e-6, abs=1e-9)
        at = 36 + 8 * TAIL_BINS
        assert record[36:at] == token.tail.data
        assert list(struct.unpack_from(f"<{n}i", record, at)) == [a.id for a in token.alternatives]
        assert all(a.id in words for a in token.alternatives)
    assert header["settings"][0]["temperature"] == 1.0 and len(header["settings"]) == 1


def test_only_news_are_sent_and_a_snapshot_has_all(generation):
    feed = Feed()
    first, _ = feed.news([Part(0, 0, generation.tokens[:10])])
    again, records = feed.news([Part(0, 10, generation.tokens[:10])])
    assert first["words"] and not again["words"] and not again["settings"] and len(records) == 10 * RECORD_BYTES
    whole, _ = feed.snapshot([Part(0, 0, generation.tokens[:10])])
    assert whole["words"] == first["words"] and whole["settings"] == first["settings"]


def read_saved(data):
    """The tokens of a saved bundle, by its documentation alone."""
    records, at, found = base64.b64decode(data["records"]), 0, []
    for _ in range(sum(len(text["tokens"]) for text in data["texts"])):
        head = struct.unpack_from("<IIhBBffeefI", records, at)
        at += struct.calcsize("<IIhBBffeefI")
        n, mask = head[3], head[-1]
        ids = [int.from_bytes(records[at + 3 * i : at + 3 * i + 3], "little") for i in range(n)]
        at += 3 * n
        halves = struct.unpack_from(f"<{n + mask.bit_count() + 2 * TAIL_BINS}e", records, at)
        at += 2 * len(halves)
        found.append((head, ids, halves))
    assert at == len(records)
    return found


def test_what_is_saved_is_what_was_generated(generation):
    data = bundle.encode_tokens(generation)
    words = dict(map(tuple, data["words"]))
    assert data["version"] == 1 and data["settings"][0]["temperature"] == 1.0
    for token, (head, ids, halves) in zip(generation.tokens, read_saved(data), strict=True):
        assert (head[0], head[1]) == (token.id, token.rank) and head[5] == pytest.approx(token.logprob)
        assert ids == [a.id for a in token.alternatives] and all(i in words for i in ids)
        n = len(ids)
        assert halves[:n] == pytest.approx([a.logprob for a in token.alternatives], rel=1e-3)
        penalties = [a.penalty for a in token.alternatives if a.penalty]
        assert halves[n : n + len(penalties)] == pytest.approx(penalties, rel=1e-3, abs=1e-6)
        counts = [n for n, _ in token.tail.bins]
        assert [h**2 for h in halves[-2 * TAIL_BINS : -TAIL_BINS]] == pytest.approx(counts, rel=2e-3)


def test_a_score_and_samples_are_saved_and_viewed_too(tiny_llm, sent):
    score = tiny_llm.score("the rain in spain")
    samples = tiny_llm.samples("the rain", 2, mode="text", temperature=1.0, max_tokens=5)
    assert len(read_saved(bundle.encode_tokens(score))) == len(score.tokens)
    assert [text["name"] for text in bundle.encode_tokens(samples)["texts"]] == ["sample 0", "sample 1"]
    for value, n_texts in ((score, 1), (samples, 2)):
        view = value.view()
        assert len(view.generations) == n_texts and len(view.header["parts"]) == n_texts
        assert view.header["can_branch"] is (value is samples)
        view.close()


def test_a_view_streams_news_at_most_so_often_and_snapshots_until_it_is_heard(tiny_llm, sent, monkeypatch):
    monkeypatch.setattr("llm_magic.widgets.pace.FIRST_S", 0.0)
    monkeypatch.setattr("llm_magic.widgets.answer.READY_WITHIN_S", 0.0)
    stream = tiny_llm.stream("the rain", mode="text", temperature=1.0, max_tokens=40, seed=3)
    view = AnswerView(stream)
    sizes = []
    for index, _ in enumerate(stream):
        view.flush()
        sizes.append(len(view.snapshot) // RECORD_BYTES)
        if index == 20:
            view._hear(view, {"kind": "ready", "page": "a"}, [])
    assert sizes[0] >= 1 and sizes[20] >= 16 and sizes[21] == sizes[-1]  # it doubles until a page hears messages
    # whatever is lost of the messages before the first snapshot's end, what follows fits to it
    n_known = sizes[20]
    for content, _ in sent:
        for part in content.get("parts", []):
            if part["first"] > n_known:
                pytest.fail(f"a gap between {n_known} and {part['first']}")
            n_known = max(n_known, part["first"] + len(part["texts"]))
    view.finish()
    assert len(view.snapshot) == RECORD_BYTES * len(stream.tokens) and view.generation == stream.generation
    view.close()


def test_a_page_stops_branches_names_and_compares(generation, sent):
    view = generation.view()
    view._hear(view, {"kind": "branch", "node": 0, "index": 5, "text": "abc"}, [])
    wait(lambda: not any(node.is_running for node in view._nodes.values()))
    assert view.generations["branch 1"].text.startswith("".join(t.text for t in generation.tokens[:5]) + "abc")
    assert view.generation is view.generations["branch 1"]
    view._hear(view, {"kind": "rename", "node": 1, "name": "mine"}, [])
    view._hear(view, {"kind": "compare", "node": 0}, [])
    marks = next(content for content, _ in reversed(sent) if content["kind"] == "marks")
    assert marks["compared"] == 0 and 5 in dict(map(tuple, marks["marks"]))[1]
    view._hear(view, {"kind": "exact", "node": 0, "index": 3, "settings": None, "request": "null"}, [])
    wait(lambda: any(content["kind"] == "exact" for content, _ in sent))
    exact = next(content for content, _ in sent if content["kind"] == "exact")
    expected = {a.id: a.probability for a in generation.distribution(3, k=64)}
    assert dict(map(tuple, exact["probabilities"])) == pytest.approx(expected)
    stream = generation.maker.start_branch(generation, 2, "x", max_tokens=400)
    running = AnswerView(stream)
    next(stream)
    running._hear(running, {"kind": "stop"}, [])
    assert list(stream) == [] and stream.generation.finish_reason == "interrupted"
    assert sent[-1][0] == {"kind": "ack"}
    view._hear(view, {"kind": "branch", "node": 0, "index": 5, "text": ""}, [])
    assert "the text is empty" in view._nodes[view._shown[0]].error
    with pytest.raises(LLMError):
        view.branch(500, "x")
    view.close()
    running.close()


def test_closing_a_view_stops_its_branches_and_not_what_its_cell_runs(tiny_llm, generation, sent):
    stream = tiny_llm.stream("the rain", mode="text", max_tokens=5)
    view = AnswerView(stream)
    next(stream)
    view.close()
    assert not stream.is_stopped
    view = generation.view()
    view.branch(2, "x", max_tokens=400)
    branch = view._nodes[1].value
    view.close()
    assert branch.is_stopped
    wait(lambda: not view._nodes[1].is_running)


def test_closed_widgets_are_gone(generation):
    instances = ipywidgets.widgets.widget._instances
    before = set(instances)
    view, panel = generation.view(), SamplingPanel()
    assert len(instances) > len(before) + 20
    view.close()
    panel.close()
    assert set(instances) == before


def test_modules_join_to_one_scope_without_a_name_twice():
    script = read_script("widget.js")
    assert not re.findall(r"^(?:import|export (?!default))", script, re.MULTILINE)
    names = re.findall(r"^(?:export )?(?:const|let|class|function) (?:\[|\{)?\s*(\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names)) > 20
    assert set(order_modules("widget.js")) == {path.name for path in FOLDER.glob("*.js")}
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script and "eval(" not in script


def test_differences_are_found_by_words_whatever_the_tokens(tiny_llm, generation):
    one = generation.branch(0, "the cat sat on a mat", max_tokens=1)
    other = generation.branch(0, "the dog sat on a mat", max_tokens=1)
    marks = compare.find_differences(one.tokens[:20], other.tokens[:20])
    texts = ["".join(g.tokens[i].text for i in sorted(m)) for g, m in zip((one, other), marks, strict=True)]
    assert [text.strip() for text in texts] == ["cat", "dog"]
    value = one.diff(other)
    assert isinstance(value, Comparison) and value._repr_html_().count("border-bottom:2px solid rgba(70,130,220,1)") > 5
    assert "‹ cat›" in compare.render_text(value) and "from token" in compare.describe(value)
    assert compare.describe(one.diff(one)) == "the texts are equal"


def test_the_panel_is_bound_to_the_notebooks_defaults(shell):
    assert "a terminal shows no widgets" in shell.run("%llm panel")[0]
    magics = shell.ip.find_line_magic("llm").__self__
    panel = SamplingPanel(magics)
    panel.temperature.value, panel.top_k.value = 0.7, 7
    assert (magics.temperature, magics.top_k) == (0.7, 7)
    shell.run("x = %llm hello")
    assert shell["x"].sampling.temperature == 0.7 and shell["x"].sampling.top_k == 7
    magics.temperature = 3.5  # beyond the slider, which makes room
    assert panel.temperature.value == 3.5 and panel.value.temperature == 3.5
    panel.stop.value = ["zzz"]
    panel.samples.value = 2
    shell.run("x = %llm hello")
    assert isinstance(shell["x"], Samples) and shell["x"][0].sampling.stop == ("zzz",)
    panel.samples.value, panel.fresh_seed.value = 1, True
    shell.run("x = %llm hello\ny = %llm hello")
    assert shell["x"].seed != shell["y"].seed
    panel.close()
    magics.temperature = 0.5


def test_presets_and_whole_settings_move_the_controls_and_are_checked():
    panel = SamplingPanel()
    assert panel.preset.value == "default"
    panel.preset.value = "inventive"
    assert panel.value.temperature == 1.0 and panel.top_p.value == 0.95
    panel.top_p.value = 0.5
    assert panel.preset.value == "custom"
    panel.value = Sampling(temperature=0.3, seed=9, stop=("a", "b"))
    assert (panel.temperature.value, panel.seed.value, list(panel.stop.value)) == (0.3, 9, ["a", "b"])
    for wrong in ({"top_p": 1.5}, {"temperature": -1}, {"heat": 1}):
        with pytest.raises(OptionError):
            panel.set(**wrong)
    assert panel.value.top_p == 0.9 and set(PRESETS) <= set(panel.preset.options)
    panel.close()


def test_a_default_that_changes_steers_what_is_running(shell):
    magics = shell.ip.find_line_magic("llm").__self__
    stream = shell_stream(shell)
    magics.notebook.running.append(stream)
    next(stream)
    magics.temperature = 2.5
    for _ in stream:
        pass
    assert stream.tokens[0].sampling.temperature == 0.2 and stream.tokens[-1].sampling.temperature == 2.5
    magics.notebook.running.remove(stream)


def shell_stream(shell):
    magics = shell.ip.find_line_magic("llm").__self__
    return magics.notebook.model(magics.model, lambda label, steps: None).stream("the rain", mode="text", max_tokens=20)


def test_listed_tokens_fit_the_record(generation):
    assert all(len(token.alternatives) <= LISTED for token in generation.tokens)


def test_a_page_that_slows_the_model_is_told_less_often():
    quick, slow = Pace(), Pace()
    for _ in range(10):
        for pace, disturbed_s in ((quick, 0.005), (slow, 0.008)):
            for step in range(40):
                pace.note_step(disturbed_s if step < 3 else 0.005)
            pace.note_message()
    assert quick.interval_s == SHORTEST_S
    assert slow.interval_s == pytest.approx(3 * 0.003 / MAX_SHARE)
    for _ in range(10):
        for step in range(40):
            slow.note_step(0.1 if step < 3 else 0.005)
        slow.note_message()
    assert slow.interval_s == LONGEST_S


def test_what_a_machine_does_besides_is_not_taken_for_the_page_s_doing():
    noise, pace = random.Random(0), Pace()
    for _ in range(20):
        for _ in range(60):
            pace.note_step(noise.choice((0.005, 0.005, 0.006, 0.009)))
        pace.note_message()
    assert pace.interval_s < 3 * SHORTEST_S


def test_a_page_that_comes_late_finds_all_branches_done(generation, sent):
    view = generation.view()
    view.branch(3, "x", max_tokens=3)
    wait(lambda: not any(node["is_running"] for node in view.header["nodes"]) and len(view.header["nodes"]) == 2)
    assert [node["count"] for node in view.header["nodes"]] == [len(text.tokens) for text in view.generations.values()]
    before = view.header
    view._hear(view, {"kind": "ready", "page": "a"}, [])
    late = view.header
    assert late["number"] > before["number"] and {"kind": "heard", "page": "a"} in [content for content, _ in sent]
    view._hear(view, {"kind": "ready", "page": "a"}, [])  # it greets until it is answered: once is enough
    assert view.header == late
    view.close()


def test_a_model_that_takes_all_cores_waits_for_its_page_but_not_for_ever(generation, sent, monkeypatch):
    def wait_ms(view):
        started = time.monotonic()
        view.wait_for_page()
        return 1000 * (time.monotonic() - started)

    view = generation.view()
    monkeypatch.setattr("os.cpu_count", lambda: 1000)
    assert wait_ms(view) < 50
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert 350 < wait_ms(view) < 1000
    view._hear(view, {"kind": "ready", "page": "a"}, [])
    assert wait_ms(view) < 50
    view.close()


def test_no_two_texts_of_a_view_have_one_name(generation, sent):
    view = generation.view()
    for _ in range(2):
        view.branch(3, "x", max_tokens=2, text=0)
        wait(lambda: not any(node.is_running for node in view._nodes.values()))
    view._hear(view, {"kind": "rename", "node": 1, "name": "answer"}, [])
    assert list(view.generations) == ["answer", "answer (2)", "branch 2"]
    static = view.make_static()
    assert "sample 1 is answer (2)" in static["text/html"]
    assert [text["name"] for text in static[bundle.MIME]["texts"]] == ["sample 0", "sample 1", "sample 2"]
    view.close()


def test_what_if_is_completed_and_checked(generation):
    view = generation.view()
    view.what_if = {"temperature": 1.5}
    assert view.what_if == {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    with pytest.raises(OptionError):
        view.what_if = {"top_p": 2}
    view.close()


class Comm:
    """A page's comm, as the kernel sees it."""

    def __init__(self):
        self.sent = []

    def send(self, data):
        self.sent.append(data)

    def on_close(self, hear):
        self.close = lambda: hear({})


def test_a_saved_answer_branches_in_a_view_that_goes_with_its_output(generation, sent):
    instances = ipywidgets.widgets.widget._instances
    before = set(instances)
    key = bundle.encode_tokens(generation)["key"]
    comm, request = Comm(), {"key": key, "text": 0, "index": 3, "token": "x"}
    open_branch(comm, {"content": {"data": request}})
    (said,) = comm.sent
    view = instances[said["data"]["model_id"]]
    assert said["kind"] == "view" and "branch 1" in view.generations
    wait(lambda: not any(node.is_running for node in view._nodes.values()))
    view.settle()
    assert comm.sent[-1]["kind"] == "kept" and len(comm.sent[-1]["bundle"][bundle.MIME]["texts"]) == 2
    open_branch(comm, {"content": {"data": request}})
    comm.close()  # the page has closed the output
    assert set(instances) == before


@pytest.mark.parametrize("change", [{"key": "unknown"}, {"text": 1}, {"index": 10**6}])
def test_what_a_kernel_cannot_branch_it_says(generation, change):
    comm = Comm()
    request = {"key": bundle.encode_tokens(generation)["key"], "text": 0, "index": 3, "token": "x"} | change
    open_branch(comm, {"content": {"data": request}})
    (said,) = comm.sent
    assert said["kind"] == "problem" and "\n" not in said["text"]
