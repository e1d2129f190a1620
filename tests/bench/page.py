"""What an open page costs the model: `--no-stream` and streamed runs alternate in one JupyterLab, in a real Chromium.

Run on a machine that does nothing else: `python -m tests.bench.page [--pairs N] [--tokens N]`. Beside the ratio of
tokens per second, of the decoder's steps alone and of the cell as a whole, it tells the processor time of each process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from browser.harness import Page, find_chromium, launch_chromium
from browser.server import Server

QUIET_MS = 800  # before each run, so that the page has done with the one before
SETUP = """
%load_ext llm_magic
%llm --quiet -n 1 warm up
import itertools, json, time
from llm_magic.widgets.answer import AnswerView
n_sent, send = 0, AnswerView.send
def note_send(self, content, buffers=None):
    global n_sent
    n_sent += content.get("kind") == "tokens"
    send(self, content, buffers)
AnswerView.send = note_send
"""
# the same seeds for both sides, of texts that do not end before
FIND_SEEDS = """
def tell_story(option, seed):
    return get_ipython().run_line_magic("llm", f"text {{option}} -T 1 --seed {{seed}} -n {tokens} Once upon a time")

is_long = lambda seed: len(tell_story("--quiet", seed).tokens) == {tokens}
seeds = list(itertools.islice(filter(is_long, itertools.count()), {pairs}))
"""
ASK = """
n_sent, started = 0, time.perf_counter()
x = tell_story("{option}", seeds[{pair}])
took_s = time.perf_counter() - started
"""
TELL = "print(json.dumps([x.tokens_per_second, len(x.tokens) / took_s, n_sent]))"
OPTIONS = {"--no-stream": "not streamed", "": "streamed"}


def read_cpu_ms() -> Counter[str]:
    """Processor time so far: of the server, its kernels, and the browser's processes by their kind."""
    found = Counter()
    for process in psutil.Process().children(recursive=True):
        try:
            line, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        if "--type=" in line:
            kind = line.split("--type=")[1].split()[0]
        else:
            names = {"ipykernel": "kernel", "jupyterlab": "server", "chrom": "browser"}
            kind = next((name for word, name in names.items() if word in line), "other")
        found[kind] += round(1000 * (times.user + times.system))
    return found


def measure(pairs: int, tokens: int) -> None:
    cells = [SETUP, FIND_SEEDS.format(tokens=tokens, pairs=pairs)]
    for pair in range(pairs):
        for option in OPTIONS:
            cells += [ASK.format(option=option, pair=pair), TELL]
    # of each side: decode tokens/s, tokens/s of the whole cell, messages, ms of processor time
    runs: dict[str, list[tuple[float, float, int, Counter[str]]]] = {option: [] for option in OPTIONS}
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder) / "home") as server,
        launch_chromium(find_chromium()) as browser,
    ):
        page = Page(browser, server, server.add_notebook(cells))
        page.open()
        page.run_cell(0)
        page.run_cell(1, timeout_s=600)
        for index in range(2, len(cells), 2):
            page.page.wait_for_timeout(QUIET_MS)
            before = read_cpu_ms()
            page.run_cell(index)
            spent = read_cpu_ms()
            spent.subtract(before)
            page.run_cell(index + 1)
            option = list(OPTIONS)[(index // 2 - 1) % len(OPTIONS)]
            runs[option].append((*json.loads(page.outputs_text(index + 1)[0]), spent))
        page.close()
    for option, name in OPTIONS.items():
        decode, cell, n_messages, spent = zip(*runs[option], strict=True)
        costs = {kind: statistics.median(one[kind] for one in spent) for kind in spent[0]}
        print(f"{name}: {statistics.median(decode):.1f} tokens/s, the whole cell {statistics.median(cell):.1f}, "
              f"messages {statistics.median(n_messages):.0f}, ms of processor time {costs}")  # fmt: skip
    for place, name in enumerate(("decode", "whole cell")):
        sides = [[run[place] for run in runs[option]] for option in OPTIONS]
        ratios = [streamed / quiet for quiet, streamed in zip(*sides, strict=True)]
        print(f"{name}, streamed to not: of medians {statistics.median(sides[1]) / statistics.median(sides[0]):.3f}, "
              f"median of pairs {statistics.median(ratios):.3f}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=400)
    asked = parser.parse_args()
    measure(asked.pairs, asked.tokens)
