"""Labels for a column: `llm.map` against scoring the same choices row by row without the prefix cache.

Run: python -m tests.bench.map
"""

from __future__ import annotations

import random
import statistics
import time

import llm_magic

ROWS, ROUNDS, PART = 200, 3, 40
WORDS = "the room was clean and bright but breakfast came late each day of our stay near the old harbour".split()
INSTRUCTION = " ".join(
    ["You are given what a guest wrote about a hotel. Decide whether the guest was satisfied with the stay as a whole."]
    * 6
)
CHOICES = ["yes", "no"]


def main() -> None:
    draw = random.Random(0)
    rows = [" ".join(draw.choice(WORDS) for _ in range(18)) for _ in range(ROWS)]
    kept, bare = llm_magic.load(), llm_magic.load(prefix_cache_bytes=0)
    template = INSTRUCTION + " Answer yes or no. Review: {text}"
    n_instruction = kept.count_tokens(template.replace("{text}", ""))
    n_row = statistics.median(map(kept.count_tokens, rows))
    print(f"{ROWS} rows of about {n_row:.0f} tokens, an instruction of {n_instruction}, {len(CHOICES)} choices")
    ratios = []
    for _ in range(ROUNDS):
        kept.forget()
        map_s, row_s, found, expected = 0.0, 0.0, [], []
        for start in range(0, ROWS, PART):  # the sides alternate
            part = rows[start : start + PART]
            began = time.perf_counter()
            found += kept.map(template, part, choices=CHOICES, track=None)
            map_s += time.perf_counter() - began
            began = time.perf_counter()
            expected += [bare.choose(template.replace("{text}", row), CHOICES) for row in part]
            row_s += time.perf_counter() - began
        ratios.append(row_s / map_s)
        assert [value.label for value in found] == [value.label for value in expected]
        print(f"map {map_s:.2f} s, row by row {row_s:.2f} s: {ratios[-1]:.2f} times as fast")
    print(f"median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
