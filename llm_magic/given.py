"""What a prompt is given: variables, cells and the last error as text that keeps to a budget, the most useful first."""

from __future__ import annotations

import collections
import csv
import functools
import inspect
import io
import itertools
import linecache
import os
import re
import sys
import traceback
import types
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_magic.errors import OptionError, nearest

_STEPS = r"""\.(?!_)([^\W\d]\w*)|\[('[^'\n]*'|"[^"\n]*"|[^\[\]{}'"\n]+)\]"""
_STEP, _NAME = re.compile(_STEPS), re.compile(rf"([^\W\d]\w*)((?:{_STEPS})*)")
_PIECE = re.compile(r"""((?:'[^']*'|"[^"]*"|\[(?:'[^']*'|"[^"]*"|[^]])*]|\([^()]*\)|[^,])*),""")
_CELL_FILE = re.compile(r"<ipython-input-|<python-input-|<stdin>|[/\\]ipykernel_\d+[/\\]")
GIVEN_TOKENS = 1000  # what a prompt is given, unless more is asked for
MOST_ROWS, MOST_VALUES, SAMPLE_ROWS, MOST_ITEMS, MOST_FRAMES, MOST_CAUSES = 5, 12, 10_000, 200, 10, 5
CELL_LENGTH, LINE_LENGTH = 60, 300
_BRACKETS = {list: "[]", tuple: "()", set: "{}", frozenset: "{}"}
_FUNCTIONS = types.FunctionType, types.MethodType, types.BuiltinFunctionType, type(functools.cache(len))
_KINDS = {"b": "true/false", "i": "whole numbers", "u": "whole numbers", "f": "numbers", "M": "dates", "m": "durations"}
_INFERRED = {
    "string": "text", "integer": "whole numbers", "floating": "numbers", "mixed-integer-float": "numbers",
    "decimal": "numbers", "boolean": "true/false", "date": "dates", "datetime": "dates", "timedelta": "durations",
    "period": "periods", "interval": "intervals", "empty": "no values", "categorical": "categories",
}  # fmt: skip
_DETAILS = ((0, 0), (4, 0), (MOST_VALUES, 0), (MOST_VALUES, 1), (MOST_VALUES, 3), (MOST_VALUES, MOST_ROWS))

CountTokens = Callable[[str], int]
Values = Mapping[str, Any] | Sequence[tuple[str, Any]]
# a text in steps: what is cut if even step 0 is too long; the last step, that says all; the text of a step
_Draft = tuple[str, int, Callable[[int], str]]
_Column = tuple[str, str, Sequence[str]]  # facts; a label, and values, where there is room
_Rows = Callable[[], list[list[str]]]  # the first are the names


@dataclass(frozen=True, slots=True)
class Given:
    """One thing as text; `is_cut` where the budget left something out. The text is empty where there was no room."""

    name: str
    text: str
    tokens: int
    is_cut: bool


def read_names(text: str) -> tuple[str, ...]:
    """The names in a list with commas.

    >>> read_names("df, In[3],Err, rows[0]['a,b']")
    ('df', 'In[3]', 'Err', "rows[0]['a,b']")
    >>> read_names("df.head()")
    Traceback (most recent call last):
    llm_magic.errors.OptionError: 'df.head()' cannot be given: give a variable, In[n], Out[n] or Err; nothing is called
    """
    names = [piece.strip() for piece in _PIECE.findall(text + ",")]
    if "" in names:
        raise OptionError(f"a name is empty in {text!r}", "give names with commas between them: df,In[3],Err")
    for name in names:
        _split_name(name)
    return tuple(dict.fromkeys(names))


def find(name: str, namespace: Mapping[str, Any]) -> Any:
    """The value of a name with its attributes and keys; nothing is called or made.

    >>> find("rows[0]['a']", {"rows": [{"a": 7}]})
    7
    >>> find("dff", {"df": 1, "size": 2})
    Traceback (most recent call last):
    llm_magic.errors.OptionError: there is no variable dff: the nearest is df
    """
    start, steps = _split_name(name)
    if start not in namespace:
        if name == "Err":
            raise OptionError("there is no Err", "it is the error of the last cell that failed; none has failed yet")
        known = [known for known in namespace if not known.startswith("_")]
        raise _missing(f"there is no variable {start}", start, known, "run the cell that makes it")
    value, so_far = namespace[start], start
    for step in _STEP.finditer(steps):
        try:
            value = getattr(value, step[1]) if step[1] else _look_up(value, step[2])
        except Exception as error:  # whatever a user's object raises
            raise _not_found(so_far, step, value, error) from None
        so_far += step[0]
    return value


def describe(name: str, value: Any, budget_tokens: int, count_tokens: CountTokens) -> Given:
    """A value as text of at most that many tokens, the most useful things kept longest.

    An object says it itself where it has `_repr_llm_()` (https://github.com/rgbkrk/repr_llm).

    >>> print(describe("sizes", [3, 5, 8], 50, lambda text: len(text.split())).text)
    sizes: a list of 3 items (int)
    3, 5, 8
    """
    return _fit(name, _draft(name, value), budget_tokens, count_tokens)


def describe_error(error: BaseException, budget_tokens: int, count_tokens: CountTokens) -> Given:
    """An error as text: the lines of the user's code that led to it, what it says, and what it came from."""
    return _fit("Err", _draft_error(error), budget_tokens, count_tokens)


def describe_all(values: Values, budget_tokens: int, count_tokens: CountTokens) -> tuple[Given, ...]:
    """All values in one budget, with what `join_given` writes around them. What a small one leaves goes to the others.

    >>> [given.text for given in describe_all({"a": 1, "b": "x y z " * 99}, 30, lambda text: len(text.split()))]
    ['a = 1', 'x y z x y z x y z x y z x y z\\n… 565 more characters']
    """
    items = list(values.items() if isinstance(values, Mapping) else values)
    drafts = [_draft(name, value) for name, value in items]
    around_tokens = count_tokens(join_given([Given(name, "…", 1, True) for name, _ in items])) if items else 0
    left_tokens = max(0, budget_tokens - around_tokens)
    given = [_fit(name, draft, left_tokens, count_tokens) for (name, _), draft in zip(items, drafts, strict=True)]
    order = sorted(range(len(given)), key=lambda index: given[index].tokens)
    for place, index in enumerate(order):  # from the smallest: each may take an equal part of what is left
        part_tokens = left_tokens // (len(order) - place)
        if given[index].tokens > part_tokens:
            given[index] = _fit(given[index].name, drafts[index], part_tokens, count_tokens)
        left_tokens -= given[index].tokens
    return tuple(given)


def join_given(parts: Sequence[Given]) -> str:
    """The parts as one text to stand before a question, each in a fence that its content cannot close.

    >>> print(join_given([Given("In[1]", "x = 2", 3, False)]))
    In[1]:
    ```python
    x = 2
    ```
    """
    blocks = []
    for part in parts:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", part.text)), default=0))
        language = "python" if re.fullmatch(r"In\[-?\d+\]", part.name) else ""
        blocks.append(f"{part.name}:\n{fence}{language}\n{part.text}\n{fence}" if part.text else f"{part.name}: …")
    return "\n\n".join(blocks)


def failing_source(error: BaseException) -> str | None:
    """The source of the cell in which the error arose, or None where no cell is known."""
    files = [frame.f_code.co_filename for frame, _ in _find_frames(error)] + [_attempt(lambda: str(error.filename), "")]
    sources = ("".join(linecache.getlines(file)) for file in reversed(files) if _CELL_FILE.search(file))
    return next(filter(None, sources), None)


def _split_name(name: str) -> tuple[str, str]:
    if match := _NAME.fullmatch(name):
        return match[1], match[2]
    raise OptionError(f"{name!r} cannot be given", "give a variable, In[n], Out[n] or Err; nothing is called")


def _look_up(value: Any, key: str) -> Any:
    read = int(key) if re.fullmatch(r"-?\d+", key) else key[1:-1] if key[0] in "'\"" else key
    if isinstance(value, dict) and read not in value:  # a defaultdict would make it
        raise KeyError(read)
    return value[read]


def _missing(problem: str, word: str, known: Iterable[str], fix: str = "") -> OptionError:
    near = nearest(word, known)
    return OptionError(problem, f"the nearest {'are' if ', ' in near else 'is'} {near}" if near else fix)


def _not_found(so_far: str, step: re.Match[str], value: Any, error: Exception) -> OptionError:
    problem, known = f"{so_far} has no {step[0]}", []
    if so_far in ("In", "Out") and isinstance(value, (list, dict)):
        cells = [f"{so_far}[{n}]" for n in (value if isinstance(value, dict) else range(1, len(value)))][-5:]
        return OptionError(f"there is no {so_far}{step[0]}", f"there is {', '.join(cells)}" if cells else "none is yet")
    if not isinstance(error, AttributeError if step[1] else (LookupError, TypeError)):
        return OptionError(f"{so_far}{step[0]} cannot be read", f"{type(error).__name__}: {_say(error, str)}")
    if step[1]:
        known = _attempt(lambda: [known for known in object.__dir__(value) if not known.startswith("_")], [])
    elif isinstance(value, (list, tuple)):
        return OptionError(problem, f"it has {_number_of(len(value), 'item')}")
    elif isinstance(value, dict) or _is_from(type(value), "pandas", "DataFrame", "Series"):
        known = _attempt(lambda: [str(key) for key in itertools.islice(value.keys(), 1000)], [])
    return _missing(problem, step[1] or step[2].strip("'\""), known)


def _fit(name: str, draft: _Draft, budget_tokens: int, count_tokens: CountTokens) -> Given:
    """The last step that fits. Small steps are tried first: what is far too long is neither written nor counted."""
    head, most, write = draft
    low, high, found = -1, most + 1, None
    while high - low > 1:
        step = min(2 * low + 2, most) if high > most else (low + high) // 2
        text = re.sub("[\ud800-\udfff]", "\ufffd", write(step))  # half a character: no tokenizer takes it
        tokens = count_tokens(text)
        if tokens <= budget_tokens:
            low, found = step, Given(name, text, tokens, step < most)
        else:
            high = step
    if found is None and head:
        beginning = "", len(head), lambda length: head[:length] + "…"
        return replace(_fit(name, beginning, budget_tokens, count_tokens), is_cut=True)
    return found or Given(name, "", count_tokens(""), True)


def _draft(name: str, value: Any) -> _Draft:
    kind = type(value)  # issubclass, not isinstance: the object is not even asked for its __class__
    if not issubclass(kind, type) and inspect.getattr_static(value, "_repr_llm_", None) is not None:
        try:
            text = value._repr_llm_()
        except Exception as error:
            text = error
        if not isinstance(text, str):
            raise OptionError(f"{name} cannot be given: its _repr_llm_() gives no text", _say_briefly(text))
        return _draft_text(str.__str__(text))
    if issubclass(kind, BaseException):
        return _draft_error(value)
    draft = _attempt(lambda: _draft_known(name, value, kind), None)
    return draft or _draft_text(f"{name}: {_with_article(kind.__name__)} that cannot be shown")


def _draft_known(name: str, value: Any, kind: type) -> _Draft:
    head = f"{name}: {_with_article(kind.__name__)}"
    if issubclass(kind, str):
        return _draft_text(str.__str__(value) or f"{name}: an empty text")
    if value is None or issubclass(kind, (bool, int, float, complex)):
        return _draft_text(f"{name} = {value!r}")
    if _is_from(kind, "pandas", "DataFrame"):
        return _draft_frame(f"{name}: a pandas DataFrame{_size(value)}", value)
    if _is_from(kind, "pandas", "Series"):
        frame = value.to_frame("value" if value.name is None else value.name)
        return _draft_frame(f"{name}: a pandas Series of {_number_of(len(value), 'value')}", frame)
    if _is_from(kind, "numpy", "ndarray"):
        return _draft_array(f"{name}: a numpy array", value)
    if _is_from(kind, "polars", "DataFrame"):
        names, facts = [_quote(name) for name in value.schema], [(str(kind), "", ()) for kind in value.schema.values()]
        rows = functools.cache(lambda: [names, *([_cell(c) for c in row] for row in value.head(MOST_ROWS).rows())])
        return _draft_table(f"{name}: a polars DataFrame{_size(value)}", names, len(value), facts.__getitem__, rows)
    if issubclass(kind, (list, tuple, set, frozenset, collections.deque, dict)):
        items = dict.items(value) if issubclass(kind, dict) else value
        return _draft_items(head, len(value), items, "item") if value else _draft_text(f"{head}, empty")
    noun = "module" if issubclass(kind, types.ModuleType) else "class" if issubclass(kind, type) else "function"
    if noun != "function" or issubclass(kind, _FUNCTIONS):
        return _draft_text(f"{name}: a {noun}\n{_read_source(value)}")
    attributes = _attempt(lambda: object.__getattribute__(value, "__dict__"), {})
    if kind.__repr__ is object.__repr__ and attributes:  # the repr would say nothing
        return _draft_items(head, len(attributes), attributes.items(), "attribute")
    return _draft_text(f"{head}\n{_say_briefly(value) if issubclass(kind, (bytes, bytearray)) else repr(value)}")


def _draft_text(text: str) -> _Draft:
    def write(step: int) -> str:  # one character more each
        kept = text if step + 1 >= len(text) else text[: step + 1].rstrip()
        return text if kept == text else f"{kept}\n… {_number_of(len(text) - len(kept), 'more character')}"

    return text[:LINE_LENGTH], max(0, len(text) - 1), write


def _draft_list(head: str, texts: Sequence[str], n: int, noun: str, between: str) -> _Draft:
    def write(shown: int) -> str:
        lines = [head, between.join(_shorten(text, LINE_LENGTH) for text in texts[:shown])] if shown else [head]
        return "\n".join([*lines, f"… {_number_of(n - shown, f'more {noun}')}"] if shown < n else lines)

    return head, len(texts), write


def _draft_items(head: str, n: int, items: Iterable[Any], noun: str) -> _Draft:
    first = list(itertools.islice(items, MOST_ITEMS))
    is_mapping, is_own = isinstance(items, ItemsView), noun == "attribute"
    keys, values = zip(*first, strict=True) if is_mapping else ((), first)
    kinds = f"{_name_types(keys)} to {_name_types(values)}" if keys and not is_own else _name_types(values)
    texts = [_say_briefly(value) for value in values]
    if is_mapping:
        texts = [f"{key if is_own else _say_briefly(key)}: {text}" for key, text in zip(keys, texts, strict=True)]
    are_short = all(issubclass(type(item), (bool, int, float, complex, type(None))) for item in first)
    return _draft_list(f"{head} of {_number_of(n, noun)} ({kinds})", texts, n, noun, ", " if are_short else "\n")


def _draft_array(head: str, array: Any) -> _Draft:
    numpy, kind = sys.modules["numpy"], array.dtype.kind
    facts = [f"{head} of shape {array.shape}", f"{_KINDS.get(kind, 'values')} ({array.dtype})"]
    missing = int(numpy.isnan(array).sum()) if kind == "f" else 0
    facts += [f"{missing:,} missing"] * bool(missing)
    if kind in "iuf" and array.size:
        lowest, highest = (_cell(edge.reduce(array, axis=None)) for edge in (numpy.fmin, numpy.fmax))  # skip NaN
        facts += [f"{lowest} to {highest}"] * bool(lowest)
    texts = [_cell(value) or "missing" for value in array.flat[:MOST_ITEMS].tolist()]
    return _draft_list(", ".join(facts), texts, array.size, "value", ", ")


def _draft_table(head: str, names: list[str], n_rows: int, column: Callable[[int], _Column], rows: _Rows) -> _Draft:
    """Steps: a column more each; then, by _DETAILS, values of each column, and rows."""

    def write_column(index: int, most: int) -> str:
        facts, label, values = column(index)
        more = [f"{len(values) - most} more"] if len(values) > most else []
        text = f"{names[index]}: {facts}"
        return f"{text}, {label}: {', '.join([*values[:most], *more])}" if most and values else text

    def write(step: int) -> str:
        n_columns = min(step, len(names))
        most_values, most_rows = _DETAILS[step - n_columns]
        lines = [head, *(write_column(index, most_values) for index in range(n_columns))]
        if n_columns < len(names):
            return "\n".join([*lines, f"… {_number_of(len(names) - n_columns, 'more column')}"])
        if most_rows and n_rows:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(rows()[: most_rows + 1])
            lines += ["first rows:", text.getvalue().rstrip("\n")]
        rest = [f"… {_number_of(n_rows - most_rows, 'more row')}"] if n_rows > most_rows else []
        return "\n".join(lines + rest)

    return head, len(names) + len(_DETAILS) - 1, write


def _draft_frame(head: str, frame: Any) -> _Draft:
    names = [_quote(name) for name in frame.columns.tolist()]

    column = functools.cache(lambda i: _attempt(lambda: _read_column(frame.iloc[:, i]), ("unreadable values", "", ())))

    def rows() -> list[list[str]]:
        titles, index = list(names), frame.index[:MOST_ROWS]
        columns = [frame.iloc[:MOST_ROWS, place] for place in range(len(names))]
        if not _is_from(type(index), "pandas", "RangeIndex") or index.start or index.step != 1:
            titles[:0] = ["index" if name is None else _quote(name) for name in index.names]
            columns[:0] = [index.get_level_values(level) for level in range(index.nlevels)]
        cells = [_attempt(lambda c=c: [_cell(value) for value in c.tolist()], ["?"] * len(index)) for c in columns]
        return [titles, *map(list, zip(*cells, strict=True))]

    return _draft_table(head, names, len(frame), column, functools.cache(rows))


def _read_column(series: Any) -> _Column:
    pandas, dtype, sample, values = sys.modules["pandas"], series.dtype, series.iloc[:SAMPLE_ROWS], ()
    kind = _KINDS.get(dtype.kind) or _INFERRED.get(pandas.api.types.infer_dtype(sample, skipna=True))
    kind = "text" if isinstance(dtype, pandas.StringDtype) else kind
    zone, missing = getattr(dtype, "tz", None), int(series.isna().sum())
    facts = [kind or f"values of type {_name_types(sample.dropna().tolist())}"]
    facts += [f"in the time zone {zone}"] * bool(zone) + [f"{missing:,} missing"] * bool(missing)
    if missing < len(series) and dtype.kind in "iufMm":
        facts.append(f"{_cell(series.min())} to {_cell(series.max())}")
    if kind == "categories":
        values = dtype.categories.tolist()
        facts[0] = f"{len(values):,} categories"
    elif kind == "text":
        values = _attempt(lambda: sample.dropna().unique().tolist(), ())
    label = f"values in the first {SAMPLE_ROWS:,} rows" if kind == "text" and len(series) > SAMPLE_ROWS else "values"
    return ", ".join(facts), label, [_quote(value) for value in values] if len(values) <= MOST_VALUES else ()


def _read_source(value: Any) -> str:
    """The source; or the signature and what is known. `inspect` finds a cell's functions, but no class of a cell."""
    if source := "" if inspect.ismodule(value) else _attempt(lambda: inspect.getsource(value), ""):
        return source.rstrip()
    signature = _attempt(lambda: str(inspect.signature(value)), "")
    summary = _shorten(_attempt(lambda: inspect.getdoc(value).strip().split("\n")[0], ""), LINE_LENGTH)
    parts = vars(value).values() if isinstance(value, type) else ()
    methods = [_attempt(lambda part=part: inspect.getsource(part), "") for part in parts if inspect.isfunction(part)]
    return "\n".join([f"{value.__name__}{signature}", summary, *methods]).rstrip()


def _draft_error(error: BaseException) -> _Draft:
    """Steps: what it says; where; the lines around; what it came from; the frames further out; all that it says."""
    message, frames = _say_error(error), _find_frames(error)
    short, causes = _shorten(message, LINE_LENGTH), list(itertools.islice(_find_causes(error), MOST_CAUSES))

    def write(n_frames: int, around: int, has_causes: bool, last: str) -> str:
        n_hidden = max(0, len(frames) - n_frames)
        hidden = [f"… {_number_of(n_hidden, 'more frame')}"] if n_hidden else []
        shown = [_write_frame(*frame, around) for frame in frames[n_hidden:]]
        behind = causes if has_causes or not causes else [f"… {_number_of(len(causes), 'more error')} behind it"]
        return "\n".join([*hidden, *shown, last, *behind])

    steps = [(0, 0, False, short), (1, 0, False, short), (1, 2, False, short)]
    steps += [(n, 2, True, short) for n in range(1, MOST_FRAMES + 1)] + [(MOST_FRAMES, 2, True, message)]
    texts = list(dict.fromkeys(write(*step) for step in steps))
    return short, len(texts) - 1, texts.__getitem__


def _say_error(error: BaseException) -> str:
    text = re.sub("\x1b\\[[\\d;]*m", "", "".join(_say(error, traceback.format_exception_only)).rstrip())
    return re.sub(r'\A  File ".*", line (\d+)', r"line \1:", text)  # of a syntax error


def _find_frames(error: BaseException) -> list[tuple[types.FrameType, int]]:
    """Those of the user's cells, or the last one; a syntax error needs none, since it shows its line itself."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if line]
    own = [(frame, line) for frame, line in frames if _CELL_FILE.search(frame.f_code.co_filename)]
    return own or ([] if isinstance(error, SyntaxError) else frames[-1:])


def _find_causes(error: BaseException) -> Iterator[str]:
    for part in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield f"one of them: {_shorten(_say_error(part), LINE_LENGTH)}"
    seen = {id(None)}
    while id(error) not in seen:
        seen.add(id(error))
        why = "caused by" if error.__cause__ is not None else "while handling"
        error = error.__cause__ if error.__cause__ is not None or error.__suppress_context__ else error.__context__
        if id(error) not in seen:
            at = [f" at {_put_on_one_line(_write_frame(*frame, 0))}" for frame in _find_frames(error)[-1:]]
            yield f"{why} {_shorten(_say_error(error), LINE_LENGTH)}{''.join(at)}"


def _write_frame(frame: types.FrameType, line: int, around: int) -> str:
    code = frame.f_code
    place = "" if _CELL_FILE.search(code.co_filename) else f"{os.path.basename(code.co_filename)}, "
    inside = "" if code.co_name.startswith("<") else f", in {code.co_name}"
    lines = enumerate(linecache.getlines(code.co_filename, frame.f_globals), 1)
    near = [(n, _shorten(text.rstrip(), LINE_LENGTH)) for n, text in lines if abs(n - line) <= around]
    shown = [f"{'>' if n == line else ' '} {n} | {text}" for n, text in near]
    return "\n".join([f"{place}line {line}{inside}:", *shown])


def _attempt(do: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return do()
    except Exception:  # a user's object raises whatever it likes, and a library's may be broken
        return otherwise


def _say(value: Any, write: Callable[[Any], Any] = repr) -> Any:
    return _attempt(lambda: write(value), f"{_with_article(type(value).__name__)} that cannot be shown")


def _say_briefly(value: Any, depth: int = 3) -> str:
    """A repr on one line, bounded in depth and width: a list that contains itself has an end too."""
    kind = type(value)
    if issubclass(kind, (str, bytes, bytearray)):
        return _say((str.__str__(value) if issubclass(kind, str) else value)[:200]) + "…" * (len(value) > 200)
    if is_mapping := issubclass(kind, dict):
        value = dict.items(value)
    elif kind not in _BRACKETS:
        if kind.__module__.partition(".")[0] in ("numpy", "pandas", "polars", "torch") and getattr(value, "shape", ()):
            return f"<{kind.__name__} of shape {tuple(value.shape)}>"
        return _shorten(_put_on_one_line(_say(value)), LINE_LENGTH)
    if not depth:
        return "…"
    first = itertools.islice(value, 8)
    parts = [": ".join(_say_briefly(part, depth - 1) for part in (pair if is_mapping else [pair])) for pair in first]
    left, right = _BRACKETS.get(kind, "{}")
    return left + ", ".join([*parts, "…"] if len(value) > 8 else parts) + right


def _cell(value: Any) -> str:
    """A value in a table; nothing where it is missing."""
    kind = type(value)
    if value is None or kind.__name__ in ("NAType", "NaTType") or (issubclass(kind, float) and value != value):
        return ""
    if issubclass(kind, float):
        return f"{value:.6g}"
    if issubclass(kind, (list, tuple, set, frozenset, dict)):
        return _shorten(_say_briefly(value), CELL_LENGTH)
    return _shorten(_put_on_one_line(_say(value, str)).removesuffix(" 00:00:00"), CELL_LENGTH)


def _quote(value: Any) -> str:
    """A name or a value in a list: a text as it is, unless one could not see where it ends."""
    text = _cell(value)
    is_plain = issubclass(type(value), str) and text and "," not in text and text == value
    return text if is_plain or len(text) == CELL_LENGTH else _shorten(_say_briefly(value), CELL_LENGTH)


def _name_types(values: Iterable[Any]) -> str:
    names = list(dict.fromkeys(type(value).__name__ for value in values))
    return ", ".join(names[:5]) + ", …" * (len(names) > 5)


def _put_on_one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: repr(match[0])[1:-1], " ".join(text[:2000].split()))


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _number_of(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _size(frame: Any) -> str:
    return f" of {_number_of(frame.shape[0], 'row')} and {_number_of(frame.shape[1], 'column')}"


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiouAEIOU" else f"a {noun}"


def _is_from(kind: type, module: str, *names: str) -> bool:
    """Whether it is one of a library's types; the library is not loaded for that."""
    return issubclass(kind, tuple(getattr(sys.modules.get(module), name, ()) for name in names))
