"""What an open page costs the model: `--no-stream` and streamed runs alternate in one JupyterLab, in a real Chromium.

Run on a machine that does nothing else: `python -m tests.bench.page [--pairs N] [--tokens N]`. Beside the ratio of
tokens per second it tells the processor time of each process for each kind of run, messages, and the time from the
kernel's send to the paint.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from browser.harness import Page, find_chromium, launch_chromium
from browser.server import Server

SETUP = """
%load_ext llm_magic
%llm --quiet -n 1 warm up
import itertools, json, time
from llm_magic.widgets.answer import AnswerView
sent_at, send = [], AnswerView.send
def note_send(self, content, buffers=None):
    if content.get("kind") == "tokens":
        content = {**content, "sent_ms": 1000 * time.time()}
        sent_at.append(content["sent_ms"])
    send(self, content, buffers)
AnswerView.send = note_send
"""
FIND_SEEDS = """
def tell_story(option, seed):
    return get_ipython().run_line_magic("llm", f"text {{option}} -T 1 --seed {{seed}} -n {tokens} Once upon a time")

is_long = lambda seed: len(tell_story("--quiet", seed).tokens) == {tokens}
seeds = list(itertools.islice(filter(is_long, itertools.count()), {pairs}))
"""
ASK = """
started = time.perf_counter()
x = tell_story("{option}", seeds[{pair}])
took_s = time.perf_counter() - started
"""
TELL = """
print(json.dumps([x.tokens_per_second, len(x.tokens) / took_s, len(sent_at)])); sent_at.clear()
"""
def read_cpu_s(server: Server, browser_pid: int) -> dict[str, float]:
    """Processor time so far: of the server, its kernels, and the browser's processes by their kind."""
    found = {"server": 0.0, "kernel": 0.0}
    own = psutil.Process()
    for process in own.children(recursive=True):
        try:
            line, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        if "ipykernel" in line:
            kind = "kernel"
        elif "jupyterlab" in line:
            kind = "server"
        elif "--type=" in line:
            kind = line.split("--type=")[1].split()[0]
        elif "chrom" in line:
            kind = "browser"
        else:
            kind = "other"
        found[kind] = found.get(kind, 0.0) + times.user + times.system
    return found


def measure(pairs: int, tokens: int, options: tuple[str, ...]) -> None:
    executable = find_chromium()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "home") as server:
        with launch_chromium(executable) as browser:
            cells = [SETUP, FIND_SEEDS.format(tokens=tokens, pairs=pairs)]
            for pair in range(pairs):
                for option in options:
                    cells += [ASK.format(option=option, pair=pair), TELL]
            path = server.add_notebook(cells)
            page = Page(browser, server, path, "lab")
            page.open()
            page.run_cell(0)
            page.run_cell(1, timeout_s=600)
            walls = {option: [] for option in options}
            speeds = {option: [] for option in options}
            costs = {option: [] for option in options}
            messages = []
            at = 2
            for _ in range(pairs):
                for option in options:
                    page.page.wait_for_timeout(800)
                    before = read_cpu_s(server, 0)
                    page.run_cell(at)
                    after = read_cpu_s(server, 0)
                    page.run_cell(at + 1)
                    speed, wall, n_messages = json.loads(page.outputs_text(at + 1)[0])
                    speeds[option].append(speed)
                    walls[option].append(wall)
                    costs[option].append({kind: after.get(kind, 0) - before.get(kind, 0) for kind in after})
                    if not option:
                        messages.append(n_messages)
                    at += 2
            for option in options:
                cost = {k: round(1000 * statistics.median(c.get(k, 0) for c in costs[option])) for k in costs[option][0]}
                print(f"{option or 'streamed':12} {statistics.median(speeds[option]):7.1f} tokens/s, ms of processor time: {cost}")
            first = options[0]
            for option in options[1:]:
              for name, values in (("decode", speeds), ("whole cell", walls)):
                ratios = [b / a for a, b in zip(values[first], values[option], strict=True)]
                print(f"{name}: {option or 'streamed'} / {first}: medians {statistics.median(values[option]) / statistics.median(values[first]):.3f}, "
                      f"pairs {statistics.median(ratios):.3f} {[round(r, 2) for r in ratios]}")
            print("messages", messages)
            page.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=400)
    asked = parser.parse_args()
    measure(asked.pairs, asked.tokens, ("--no-stream", ""))
