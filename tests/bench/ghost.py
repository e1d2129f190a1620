"""How soon ghost text stands in a cell: typed into a real JupyterLab, behind a warm context of 500 tokens.

Run on a machine that does nothing else: `python -m tests.bench.ghost [--rounds N]`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from browser.harness import Page, find_chromium, launch_chromium
from browser.server import Server
from browser.test_ghost_text import NOTE_ASKED, NOTE_KEYS, TELL_ASKED, first_text_ms, warm_cells, write_in

TEXTS = ("import nump", "import pand", "import matplot", "print(column", "import num", "x = colu")


def measure(rounds: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder) / "home", has_plugin=True) as server,
        launch_chromium(find_chromium()) as browser,
    ):
        page = Page(browser, server, server.add_notebook([*warm_cells(), NOTE_ASKED, "", TELL_ASKED]))
        page.open()
        for index in range(4):
            page.run_cell(index)
        page.page.evaluate(NOTE_KEYS)
        write_in(page, 4)
        keyboard = page.page.keyboard
        took_ms = [first_text_ms(page, f"\n{text}") for text in rounds * TEXTS]
        # what stands there before the pause is over was asked for at a pause before, and still fits what was typed
        asked_ms = [ms for ms in took_ms if ms >= 0]
        deciles, n_before = statistics.quantiles(asked_ms, n=10), len(took_ms) - len(asked_ms)
        print(f"first text behind the debounce, ms: median {statistics.median(asked_ms):.0f}, 90 % {deciles[-1]:.0f}, "
              f"longest {max(asked_ms):.0f}, of {len(asked_ms)}; {n_before} stood there before")  # fmt: skip
        page.run_cell(5)
        before, _ = json.loads(page.outputs_text(5)[0])
        write_in(page, 4)
        keyboard.press("Control+End")
        text = "for index, value in enumerate(column_1): print(index, value) or print(column_2[index], val"
        keyboard.type(text, delay=100)
        page.page.wait_for_timeout(1000)
        page.run_cell(5)
        asked, waiting = json.loads(page.outputs_text(5)[0])
        print(f"{len(text)} keys, ten a second: asked {asked - before} times, {waiting} waiting a second later")
        page.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    measure(parser.parse_args().rounds)
