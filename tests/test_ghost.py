"""Ghost text without a page: what the model sees, where a suggestion ends, who is answered."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

import llm_magic
from llm_magic.backends.infill import best_completion, find_marks, infill_ids
from llm_magic.ghost import page
from llm_magic.ghost.context import join_cells
from llm_magic.ghost.request import Request
from llm_magic.ghost.suggest import suggest
from llm_magic.ghost.worker import Worker


def wait(is_done, limit_s=20):
    deadline = time.monotonic() + limit_s
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_beginning_of_the_context_does_not_move_with_each_key():
    cells = [f"cell_{i} = {i}\n" + "x = 1\n" * 20 for i in range(30)]
    text = "".join(f"line_{i} = {i}\n" for i in range(200))
    starts = [join_cells(cells, text[:n], 500)[:20] for n in range(1, len(text))]
    assert all(len(join_cells(cells, text[:n], 500)) <= 3 * 500 for n in range(1, len(text), 7))
    n_moves = sum(a != b for a, b in zip(starts, starts[1:], strict=False))
    assert n_moves < 12  # of some 3,000 keys


def test_a_suggestion_goes_on_inside_a_token_and_is_what_the_model_would_write(tiny_llm):
    request = Request("the rain in th", max_tokens=5, least_probability=0.0)
    (*_, text) = suggest(tiny_llm, request)
    tokenizer = tiny_llm._backend.tokenizer
    head, taken_back = tokenizer.encode(request.before)[:-1], tokenizer.encode(request.before)[-1]
    best = [a.id for a in tiny_llm.next(tokenizer._backend.decode(head), k=265).top]
    first = best_completion(tokenizer, best, taken_back)
    assert tokenizer.text_of(first).startswith("th")
    # the same ids, generated behind them without any of this
    start = request.before.removesuffix("th") + tokenizer.text_of(first)
    whole = tiny_llm(start, mode="text", temperature=0, repetition_penalty=1.0, max_tokens=4)
    if tokenizer.encode(start) == [*head, first]:
        assert (request.before + text) == start + whole.text.split("\n")[0]


def test_a_suggestion_ends_where_the_model_is_unsure_or_nobody_wants_it(tiny_llm):
    request = Request("the rain in", max_tokens=20, least_probability=0.0, max_lines=100)
    longest = list(suggest(tiny_llm, request))[-1]
    sure = list(suggest(tiny_llm, Request("the rain in", max_tokens=20, least_probability=0.999, max_lines=100)))
    assert len(sure[-1] if sure else "") < len(longest)
    assert list(suggest(tiny_llm, request, is_wanted=lambda: False)) == []
    wanted = iter([True] * 4 + [False] * 100)
    assert len(list(suggest(tiny_llm, request, is_wanted=lambda: next(wanted)))) <= 3


@pytest.mark.parametrize(("before", "after"), [("", ""), ("  \n", ""), ("x = f(", "y, z)")])
def test_where_nothing_can_be_said_nothing_is_asked(tiny_llm, before, after):
    assert list(suggest(tiny_llm, Request(before, after, least_probability=0.0))) == []


def test_a_model_with_infill_sees_both_sides_of_the_cursor(tiny_llm):
    tokenizer = tiny_llm._backend.tokenizer
    names = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
    special, ids = dict(tokenizer.special), dict(zip(names, (250, 251, 252), strict=True))
    assert find_marks(special) is None and not tiny_llm.has_infill
    tokenizer.special = special | ids
    try:
        head, tail = infill_ids(tokenizer, "x = f(", "y)")
        assert head == [*tokenizer.bos_ids, 250, *tokenizer.encode("x = f(")]
        assert tail == [251, *tokenizer.encode("y)"), 252]
        stream, repeated = tiny_llm.start_infill("x = f(", "y)", max_tokens=2)
        assert list(stream.prompt.ids) == [*head[:-1], *tail] and repeated == tokenizer.text_of(head[-1])
        assert list(suggest(tiny_llm, Request("x = f(", "y, z)", least_probability=0.0)))  # in the middle of a line
    finally:
        tokenizer.special = special


def test_the_latest_request_wins_and_none_waits_behind_it():
    made, delivered, go = [], [], threading.Event()

    def make(request, is_wanted):
        made.append(request.before)
        go.wait(5)
        for i in range(1000):
            if not is_wanted():
                return
            yield f"{request.before} {i}"
            time.sleep(0.001)

    worker = Worker(make)
    for n in range(50):
        worker.ask(Request(f"{n}", max_tokens=1), lambda text, is_done, n=n: delivered.append((n, is_done)))
    go.set()
    wait(lambda: any(n == 49 for n, _ in delivered))
    assert len(made) <= 2 and made[-1] == "49"
    assert {n for n, _ in delivered} <= {0, 49}
    worker.cancel()
    time.sleep(0.05)
    n_delivered = len(delivered)
    time.sleep(0.05)
    assert len(delivered) == n_delivered and not any(is_done for _, is_done in delivered)
    worker.close()
    assert not any(thread.name == "llm_magic ghost text" for thread in threading.enumerate())


class Comm:
    """One end of a comm, as ipykernel has it."""

    comm_id = "c"

    def __init__(self):
        self.sent, self.is_closed = [], False

    def send(self, data):
        self.sent.append(data)

    def on_msg(self, hear):
        self.say = lambda data: hear({"content": {"data": data}})

    def on_close(self, hear):
        pass

    def close(self):
        self.is_closed = True


class Kernel:
    def __init__(self):
        self.comm_manager, self.targets = self, {}

    def register_target(self, name, take):
        self.targets[name] = take

    def unregister_target(self, name, take):
        del self.targets[name]


def test_a_page_asks_and_hears_the_text_grow(monkeypatch):
    kernel, comm, asked = Kernel(), Comm(), []

    def make(request, is_wanted):
        asked.append(request)
        yield from ("a", "ab", "abc")

    ghost = page.PageGhost(kernel, make)
    assert not ghost.is_on
    monkeypatch.setattr(page, "create_comm", lambda target_name: comm)
    ghost.switch_on()
    comm.say({"id": "p-1", "before": "x", "after": "", "cells": ["y", 3], "max_tokens": 10**9, "max_lines": "many"})
    wait(lambda: comm.sent and comm.sent[-1]["is_done"])
    assert asked == [Request("x", "", ("y", "3"), max_tokens=256)]  # numbers out of range are brought into it
    assert comm.sent[0] == {"id": "p-1", "text": "a", "is_done": False}
    assert comm.sent[-1] == {"id": "p-1", "text": "abc", "is_done": True}
    ghost.switch_off()
    assert comm.is_closed and not ghost.is_on
    comm.say({"id": "p-2", "before": "x"})  # was on its way
    late = Comm()
    kernel.targets[page.TARGET](late, {})  # the page's setting
    assert ghost.is_on
    ghost.remove()
    assert late.is_closed and not kernel.targets


def test_a_model_that_fails_leaves_an_empty_suggestion():
    def make(request, is_wanted):
        raise RuntimeError("no room")
        yield

    worker, delivered = Worker(make), []
    worker.ask(Request("x"), lambda *said: delivered.append(said))
    wait(lambda: delivered)
    assert delivered == [("", True)]
    worker.close()


@pytest.mark.real
def test_the_default_model_completes_ordinary_code(real_llm):
    for before, expected in (
        ("import nump", "y"),
        ("import matplotlib.pyplot as pl", "t"),
        ("def mean(values):", "\n    return sum("),
    ):
        (*_, text) = suggest(real_llm, Request(before))
        assert text.startswith(expected)


def test_a_shell_without_a_cursor_says_that_it_has_no_ghost_text(shell):
    out, _ = shell.run("%llm complete on")
    assert "there is no ghost text here" in out
    out, _ = shell.run("%llm --dry-run complete this sentence for me")
    assert "nothing was generated" in out  # a prompt


def test_the_extension_has_the_package_s_version():
    folder = Path(llm_magic.__file__).parent / "labextension"
    assert json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"] == llm_magic.__version__


def test_who_asked_and_has_gone_does_not_end_the_answers_for_others():
    worker, delivered = Worker(lambda request, is_wanted: ["a"]), []

    def fail(text, is_done):
        raise RuntimeError("this comm is closed")

    worker.ask(Request("x"), fail)
    wait(lambda: worker._latest is None)
    time.sleep(0.05)
    worker.ask(Request("y"), lambda *said: delivered.append(said))
    wait(lambda: delivered and delivered[-1] == ("a", True))
    worker.close()
