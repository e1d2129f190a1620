"""A prompt for each row of a frame or item of a list: the rows read, run in order, and given back as they came."""

from __future__ import annotations

import dataclasses
import hashlib
import numbers
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_magic.choices import Choices
from llm_magic.errors import ContextOverflow, GenerationInterrupted, OptionError, nearest
from llm_magic.generation import Generation, Prompt
from llm_magic.interpolate import fill_template, hole_names
from llm_magic.progress import Track, finish_steps

if TYPE_CHECKING:
    from llm_magic.backends.stream import Batch

CHUNK_ROWS = 256  # prompts that are made at once: a hundred thousand are not held together
DETAILED_ROWS = 2000  # beyond, tokens keep their own probability, not those of all that could have stood there
SHOWN_PROBLEMS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """A row by the name its owner knows it by; `text` is its prompt, None where a value is missing."""

    name: Any
    text: str | None


def take_items(items: Any) -> Any:
    """Items that can be gone through more than once: a frame of pandas' as it is, all else as a list."""
    if isinstance(items, str | bytes | Mapping) or not (hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        raise OptionError(f"the items are one {type(items).__name__}", "give a list, or a data frame")
    if is_frame(items):
        return items
    return list(items.iter_rows(named=True) if hasattr(items, "iter_rows") else items)  # polars' frames have it


def read_rows(template: str, items: Any) -> list[Row]:
    """Each row's prompt: a frame's columns, or a mapping's values, in the holes of their names, any other item in every
    hole. None and NaN are missing.

    >>> [row.text for row in read_rows("Is {x} good?", ["tea", None])]
    ['Is tea good?', None]
    """
    if is_frame(items):
        return _read_frame(template, items)
    rows = []
    for number, item in enumerate(items):
        is_mapping = isinstance(item, Mapping)
        if _is_missing(item) or (is_mapping and any(_is_missing(item.get(name, "")) for name in hole_names(template))):
            rows.append(Row(number, None))
            continue
        try:
            rows.append(Row(number, fill_template(template, item)))
        except OptionError as error:
            raise OptionError(f"item {number}: {error.problem}", error.fix) from None
    return rows


def _read_frame(template: str, frame: Any) -> list[Row]:
    names = sorted(hole_names(template))
    if not names:
        fix = "write {column} where its values shall stand; df.rename makes a name of one that is none"
        raise OptionError("the template has no hole for the columns", fix)
    for name in names:
        if (n := list(frame.columns).count(name)) != 1:
            problem = f"the frame has the column {name!r} {n} times" if n else f"the frame has no column {name!r}"
            raise OptionError(problem, f"the nearest are {nearest(name, map(str, frame.columns))}")
    columns = [frame[name].tolist() for name in names]
    rows = []
    for label, *values in zip(frame.index.tolist(), *columns, strict=True):
        is_whole = not any(map(_is_missing, values))
        item = dict(zip(names, values, strict=True))
        rows.append(Row(label, fill_template(template, item) if is_whole else None))
    return rows


def is_frame(items: Any) -> bool:
    """Whether it is a data frame of pandas'."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(items, pandas.DataFrame)


def _is_missing(value: Any) -> bool:
    """None, NaN and their like: what is a value's own and not equal to itself."""
    kind = type(value).__name__
    if value is None or kind in ("NAType", "NaTType"):
        return True
    return (isinstance(value, numbers.Number) or kind in ("datetime64", "timedelta64")) and bool(value != value)


Result = Generation | Choices


class Run:
    """Rows on their way: `results` and `problems` by the rows' positions, whole at any instant."""

    def __init__(
        self,
        rows: Sequence[Row],
        make_prompt: Callable[[str], Prompt],
        start_batch: Callable[[Sequence[Prompt]], Batch],
        weigh: Callable[[Iterable[Prompt]], Iterator[Choices]] | None,
        choices: Sequence[str] | None,
        kept: Mapping[bytes, Result],
    ):
        self.rows, self.choices = rows, choices
        self.results: dict[int, Result] = {}
        self.problems: dict[int, str] = {}
        self.keys: dict[int, bytes] = {}
        self._running: tuple[tuple[int, ...], Batch] | None = None
        self._make_prompt, self._start_batch, self._weigh, self._kept = make_prompt, start_batch, weigh, kept

    def follow(self) -> Generator[float, None, None]:
        """Run to the end, and yield the share of rows that are done."""
        for start in range(0, len(self.rows), CHUNK_ROWS):
            waiting = self._prepare(range(start, min(len(self.rows), start + CHUNK_ROWS)))
            yield self.share
            if self._weigh is not None:
                for index, found in zip(waiting, self._weigh(waiting.values()), strict=True):
                    self.results[index] = found
                    yield self.share
            elif waiting:
                yield from self._generate(waiting)

    def _prepare(self, indexes: Iterable[int]) -> dict[int, Prompt]:
        """The prompts of rows that are still to run. What is wrong with the call itself is raised."""
        waiting = {}
        for index in indexes:
            text = self.rows[index].text
            if not text:
                self.problems[index] = "a value is missing" if text is None else "its prompt is empty"
                continue
            try:
                prompt = self._make_prompt(text)
            except ContextOverflow as error:
                self.problems[index] = error.problem
                continue
            key = self.keys[index] = _digest(prompt, self.choices)
            if key in self._kept:
                self.results[index] = self._kept[key]
            else:
                waiting[index] = prompt
        return waiting

    def _generate(self, waiting: Mapping[int, Prompt]) -> Iterator[float]:
        batch = self._start_batch(list(waiting.values()))
        self._running = tuple(waiting), batch
        n_before = len(self.results) + len(self.problems)
        for share in batch.follow():
            yield (n_before + share * len(waiting)) / len(self.rows)
        self.take_running()

    def take_running(self) -> None:
        """Take what the running batch has made so far."""
        if self._running is None:
            return
        indexes, batch = self._running
        for index, generation in zip(indexes, batch.generations, strict=True):
            if generation.tokens or generation.finish_reason != "interrupted":
                self.results[index] = generation if len(self.rows) <= DETAILED_ROWS else _without_details(generation)
        self._running = None

    @property
    def share(self) -> float:
        return (len(self.results) + len(self.problems)) / max(1, len(self.rows))

    @property
    def finished(self) -> dict[bytes, Result]:
        """What need not be run again, by the digests of the prompts."""
        return {
            self.keys[index]: result
            for index, result in self.results.items()
            if isinstance(result, Choices) or result.finish_reason != "interrupted"
        }

    def describe_problems(self) -> str:
        """Which rows have no result, and why; empty where all have one."""
        shown = [f"{self.rows[i].name!r} ({why})" for i, why in sorted(self.problems.items())[:SHOWN_PROBLEMS]]
        more = len(self.problems) - len(shown)
        rest = f" and {more:,} more" if more else ""
        return f"{len(self.problems):,} of {len(self.rows):,} rows have no result: {', '.join(shown)}{rest}"


def _digest(prompt: Prompt, choices: Sequence[str] | None) -> bytes:
    parts = (prompt.model, prompt.ids, prompt.mode, prompt.sampling, prompt.form, choices and tuple(choices))
    return hashlib.sha256(repr(parts).encode()).digest()


def _without_details(generation: Generation) -> Generation:
    tokens = tuple(dataclasses.replace(token, alternatives=(), tail=None) for token in generation.tokens)
    return dataclasses.replace(generation, tokens=tokens)


def run_rows(run: Run, items: Any, has_form: bool, track: Track | None, kept: dict[bytes, Result]) -> Any:
    """Run all rows behind a progress bar; what an interrupt or error leaves goes into `kept`, for another time."""
    try:
        if track is None:
            finish_steps(run.follow())
        else:
            track(f"{len(run.rows):,} rows", run.follow())
    except BaseException as error:
        run.take_running()
        kept |= run.finished
        if not isinstance(error, KeyboardInterrupt):
            raise
        n_done, n_rows = len(run.results), len(run.rows)
        what = f"interrupted at {n_done:,} of {n_rows:,} rows; the same call again goes on from there"
        raise GenerationInterrupted(give_back(items, run, has_form), what) from None
    for key in run.keys.values():
        kept.pop(key, None)
    if run.problems:
        warnings.warn(run.describe_problems(), stacklevel=3)
    return give_back(items, run, has_form)


def give_back(items: Any, run: Run, has_form: bool) -> Any:
    """The results as the items came: for a list a list in its order, None where there is no result; for a frame a copy
    of it, with columns `label` and `probability`, or `value`, or `answer`, and with `result`."""
    results = [run.results.get(index) for index in range(len(run.rows))]
    if not is_frame(items):
        return results
    frame = items.copy()

    def add(name: str, values: list) -> None:
        import pandas

        while name in frame.columns:
            name = f"llm_{name}"
        is_number = all(isinstance(value, float) for value in values if value is not None)
        kind = "float64" if is_number and name.endswith("probability") else object
        frame[name] = pandas.Series(values, index=range(len(values)), dtype=kind).set_axis(frame.index)

    if run.choices is not None:
        add("label", [result.label if result else None for result in results])
        add("probability", [result.probability if result else None for result in results])
    elif has_form:
        add("value", [result.value if result else None for result in results])
    else:
        add("answer", [result.text if result else None for result in results])
    add("result", results)
    if run.problems:
        add("problem", [run.problems.get(index) for index in range(len(run.rows))])
    return frame
