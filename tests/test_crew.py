"""How many threads work, on clocks that are made up."""

from __future__ import annotations

import itertools
import sys
import threading

import pytest

from llm_magic.engine.native.crew import Crew


def run(crew, n_steps, seconds_of, kind="one"):
    """Steps that take what `seconds_of` says for a number of threads; returns the total."""
    total = 0.0
    for _ in range(n_steps):
        total += (seconds := seconds_of(crew.n_threads))
        crew.record(kind, seconds)
    return total


def free(n):
    return 0.008 / n


def disturbed(n):
    """One of 4 cores is taken: all 4 threads wait for it, 3 do not."""
    return 0.04 if n == 4 else 0.008 / n


def test_all_threads_work_where_nothing_disturbs_them():
    crew = Crew(4)
    total = run(crew, 1000, free)
    assert crew.n_threads == 4 and total < 1.02 * 1000 * free(4)


@pytest.mark.parametrize("n_before", [0, 100])
def test_threads_step_back_where_another_process_takes_a_core(n_before):
    crew = Crew(4)
    run(crew, n_before, free)
    total = run(crew, 1000, disturbed)
    assert crew.n_threads == 3 and total < 1.35 * 1000 * disturbed(3)


def test_threads_step_back_where_a_few_steps_outweigh_all_others():
    crew, steps = Crew(4), itertools.count()
    run(crew, 300, free)
    run(crew, 1000, lambda n: 0.2 if n == 4 and next(steps) % 5 == 0 else free(n))
    assert crew.n_threads == 3


def test_a_neighbour_that_works_now_and_then_changes_nothing():
    crew, used = Crew(4), set()
    run(crew, 300, free)

    def painted(n):
        """Each 0.1 s or so, some steps take three times as long."""
        used.add(n)
        return free(n) * (3 if next(steps) % 40 < 8 else 1)

    steps = itertools.count()
    run(crew, 2000, painted)
    assert used == {4}


def test_all_threads_come_back_when_the_other_process_ends():
    crew = Crew(4)
    run(crew, 100, free)
    run(crew, 300, disturbed)
    run(crew, 2000, free)
    assert crew.n_threads == 4


def test_a_growing_context_disturbs_nobody():
    crew, seconds = Crew(4), 0.002
    for _ in range(2000):
        seconds *= 1.001
        crew.record("one", seconds * 4 / crew.n_threads)
    assert crew.n_threads == 4


def test_steps_of_another_kind_are_not_compared():
    crew = Crew(4)
    run(crew, 100, free)
    run(crew, 100, lambda n: 10 * free(n), kind="eight rows")
    assert crew.n_threads == 4


def test_threads_that_generate_at_once_do_not_trip_over_it():
    crew, errors = Crew(4), []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work():
        try:
            run(crew, 4000, disturbed)
        except Exception as error:
            errors.append(error)

    try:
        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors and 1 <= crew.n_threads <= 4


def test_a_lone_core_has_no_choice():
    crew = Crew(1)
    run(crew, 100, free)
    assert crew.n_threads == 1
