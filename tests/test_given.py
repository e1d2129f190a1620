"""What a prompt is given: names read and found, values and errors described within a budget."""

from __future__ import annotations

import collections
import dataclasses
import enum
import io
import itertools
import linecache
import math
import re
import sys
import threading
import time
import traceback
import types
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.errors import OptionError
from llm_magic.given import (
    Given,
    describe,
    describe_all,
    describe_error,
    failing_source,
    find,
    join_given,
    read_names,
)


def count_words(text):
    return len(text.split())


def count_bytes(text):
    return len(text.encode())  # refuses half characters, as tokenizers do


COUNTERS = {"words": count_words, "characters": len, "bytes": count_bytes}


def tell(value, budget_tokens=1000, name="x"):
    return describe(name, value, budget_tokens, count_words).text


# names


@pytest.mark.parametrize("text, names", [
    ("df", ("df",)),
    ("df, In[3],Out[4],Err, config.model, rows[0]['a,b']",
     ("df", "In[3]", "Out[4]", "Err", "config.model", "rows[0]['a,b']")),
    ('a["x]y"], b[x y].c,_3', ('a["x]y"]', "b[x y].c", "_3")),
    ("größe.länge, In[-1]", ("größe.länge", "In[-1]")),
    ("df,df", ("df",)),
])  # fmt: skip
def test_names_are_read(text, names):
    assert read_names(text) == names


@pytest.mark.parametrize("text, message", [
    ("df.head()", r"'df\.head\(\)' cannot be given: give a variable, In\[n\], Out\[n\] or Err; nothing is called"),
    ("x, f(1, 2)", r"'f\(1, 2\)' cannot"),
    ("df._mgr", "'df._mgr' cannot"),
    ("a.b.__class__", "cannot"),
    ("1", "'1' cannot"),
    ("a+b", "cannot"),
    ("a[]", "cannot"),
    ("a['b]", "cannot"),
    ("it's,b", 'it\'s" cannot'),
    ("a b", "'a b' cannot"),
    ("", "a name is empty in ''"),
    ("df,", "a name is empty"),
    ("df,,x", "a name is empty in 'df,,x'"),
])  # fmt: skip
def test_what_is_no_name_is_refused(text, message):
    with pytest.raises(OptionError, match=message):
        read_names(text)


@given(st.text() | st.text("ab.,[]'\"()_ 1"))
def test_any_text_is_read_or_refused_and_what_is_read_is_read_again(text):
    try:
        names = read_names(text)
    except OptionError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert read_names(",".join(names)) == names


class Thing:
    size = 3

    @property
    def broken(self):
        raise ValueError("no")


NAMESPACE = {
    "thing": Thing(), "rows": [10, {"a,b": 20}], "table": {"a": "x", 0: "zero", "b]": "y"}, "_hidden": 1,
    "In": ["", "a = 1", "a"], "Out": {2: "one"}, "prices": pd.DataFrame({"price": [1.5]}),
}  # fmt: skip


@pytest.mark.parametrize("name, value", [
    ("thing.size", 3),
    ("rows[-2]", 10),
    ("rows[1]['a,b']", 20),
    ("table[a]", "x"),
    ("table[0]", "zero"),
    ("table['b]']", "y"),
    ("In[1]", "a = 1"),
    ("In[-1]", "a"),
    ("Out[2]", "one"),
    ("prices.price[0]", 1.5),
])  # fmt: skip
def test_a_value_is_found(name, value):
    assert read_names(name) == (name,)
    assert find(name, NAMESPACE) == value


@pytest.mark.parametrize("name, message", [
    ("tabel", "there is no variable tabel: the nearest is table"),
    ("thing.sizes", r"thing has no \.sizes: the nearest is size"),
    ("thing.broken", r"thing\.broken cannot be read: ValueError: no"),
    ("rows[7]", r"rows has no \[7\]: it has 2 items"),
    ("rows[x]", r"rows has no \[x\]"),
    ("rows[1]['a']", r"rows\[1\] has no \['a'\]: the nearest is a,b"),
    ("prices[prise]", r"prices has no \[prise\]: the nearest is price"),
    ("In[9]", r"there is no In\[9\]: there is In\[1\], In\[2\]"),
    ("Out[1]", r"there is no Out\[1\]: there is Out\[2\]"),
    ("Err", "there is no Err: .*none has failed yet"),
])  # fmt: skip
def test_what_is_not_found_is_named_with_the_nearest(name, message):
    with pytest.raises(OptionError, match=message):
        find(name, NAMESPACE)


def test_looking_a_key_up_does_not_make_it():
    made = collections.defaultdict(list)
    with pytest.raises(OptionError):
        find("made[new]", {"made": made})
    assert not made


# the budget


def test_an_object_may_say_what_it_is():
    class Own:
        def _repr_llm_(self):
            return "a small thing"

    assert tell(Own()) == "a small thing"
    assert "class Own" in tell(Own)  # the class is not one of its objects


@pytest.mark.parametrize("answer", [None, 3, b"bytes"])
def test_an_object_that_says_no_text_is_an_error(answer):
    own = type("Own", (), {"_repr_llm_": lambda self: answer})()
    with pytest.raises(OptionError, match=r"shop\.own cannot be given: its _repr_llm_\(\) gives no text"):
        describe("shop.own", own, 100, count_words)


def test_an_object_that_raises_as_it_says_what_it_is_is_an_error():
    own = type("Own", (), {"_repr_llm_": lambda self: 1 / 0})()
    with pytest.raises(OptionError, match="x cannot be given: .*ZeroDivisionError"):
        tell(own)


def test_a_text_keeps_its_beginning_and_says_what_is_left_out():
    text = "".join(f"line {n}\n" for n in range(1000))
    cut = describe("s", text, 40, count_words)
    kept, _, left = cut.text.rpartition("\n")
    assert cut.is_cut and cut.tokens <= 40 and text.startswith(kept) and len(kept) > 120
    assert left == f"… {len(text) - len(kept):,} more characters"
    assert describe("s", text, 2000, count_words) == Given("s", text, 2000, False)


def test_a_huge_text_is_neither_counted_in_full_nor_often():
    counted = []
    describe("s", "word " * 5_000_000, 500, lambda text: counted.append(len(text)) or count_words(text))
    assert len(counted) < 40 and max(counted) < 20_000


def test_half_a_character_does_not_reach_the_tokenizer():
    assert describe("s", "a\ud800b", 100, count_bytes).text == "a\ufffdb"
    assert describe("s", ["a\ud800b"], 100, count_bytes).text


VALUES = [
    "a text of some words, and more", "", "one\n\n\ntwo" * 50, 3, -2.5, True, None, 10**5000, 1j, b"abc" * 1000, [], (),
    set(), {}, [1, 2, 3], list(range(10_000)), {"a": 1, "b": [1, {"c": 2}]}, {"k" * 500: "v" * 5000}, {1, "a", None},
    [{"a": n, "b": "t" * 500} for n in range(2000)], collections.Counter("hello"), collections.deque([1], 3), range(3),
    math, math.sin, len, pytest.raises, collections.OrderedDict, Thing, Thing(), ValueError("x" * 5000), print, np.add,
    np.zeros((3, 4, 5)), np.array(3), np.array([]), np.array([1, "a", None], object), np.float64(2.5), pd.NaT,
    np.array([np.nan]), np.zeros(2, [("a", int), ("b", "U3")]), np.ma.array([1, 2], mask=[0, 1]), pd.Series([1, None]),
    pd.DataFrame(), pd.DataFrame({"a": []}), pd.DataFrame(index=range(3)), pd.Index([1, 2]), pd, lambda: 0, object(),
    MagicMock(), threading.Lock(), (n for n in "ab"), enum.Enum("E", "a b").a, io.StringIO("x"),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_no_value_exceeds_any_budget(value):
    for budget_tokens, count in itertools.product((0, 1, 3, 9, 40, 333, 5000), COUNTERS.values()):
        told = describe("x", value, budget_tokens, count)
        assert told.tokens == count(told.text) <= budget_tokens
        assert told.is_cut or told.text
        assert not told.is_cut or "…" in told.text or not told.text


@given(st.lists(st.tuples(st.text("abc`\n ", min_size=1), st.text(max_size=400) | st.integers() | st.lists(st.text()))),
       st.integers(0, 400), st.sampled_from(list(COUNTERS)))  # fmt: skip
def test_together_they_keep_to_the_budget_wherever_their_names_do(items, budget_tokens, counter):
    items = [(name, repr(value)) for name, value in items]
    told = describe_all(items, budget_tokens, COUNTERS[counter])
    assert [each.name for each in told] == [name for name, _ in items]
    around = COUNTERS[counter](join_given([Given(name, "…", 1, True) for name, _ in items]))
    assert sum(each.tokens for each in told) <= max(0, budget_tokens - around)


def test_what_a_small_value_leaves_goes_to_the_large_ones():
    words = "word " * 1000
    small, large, other = describe_all({"small": 1, "large": words, "other": words}, 200, count_words)
    assert (small.text, small.is_cut) == ("small = 1", False)
    assert large.is_cut and other.is_cut and abs(large.tokens - other.tokens) <= 5
    assert 180 <= count_words(join_given([small, large, other])) <= 200
    alone = describe_all([("large", words)], 200, count_words)[0]
    assert alone.tokens > 180


def test_the_order_stays_and_nothing_gives_nothing():
    told = describe_all([("b", "word " * 99), ("a", 1), ("a", 2)], 60, count_words)
    assert [each.name for each in told] == ["b", "a", "a"] and told[2].text == "a = 2"
    assert describe_all({}, 10, count_words) == () and join_given([]) == ""


def test_names_are_kept_where_there_is_no_room():
    told = describe_all({"df": pd.DataFrame({"a": [1]}), "text": "hello"}, 0, count_words)
    assert join_given(told) == "df: …\n\ntext: …"


def test_an_error_among_the_values_is_described_as_one():
    assert "ValueError: bad" in describe_all({"Err": ValueError("bad")}, 50, count_words)[0].text


# joining


def test_a_cell_is_fenced_as_python_and_all_else_plainly():
    joined = join_given([Given("In[3]", "x = 1", 3, False), Given("df", "df: a table", 3, False)])
    assert joined == "In[3]:\n```python\nx = 1\n```\n\ndf:\n```\ndf: a table\n```"


@given(st.lists(st.text("`~a\n ", min_size=1), min_size=1, max_size=4))
def test_no_content_closes_its_fence(texts):
    from markdown_it import MarkdownIt  # the oracle: CommonMark

    blocks = MarkdownIt().parse(join_given([Given("x", text, 1, False) for text in texts]))
    assert [block.content for block in blocks if block.type == "fence"] == [text + "\n" for text in texts]


# tables


def test_a_frame_is_told_in_plain_words():
    frame = pd.DataFrame({
        "count": [3, 1, 2] * 599, "kind": ["cat", "dog", None] * 599, "price": [0.5, np.nan, 2] * 599,
        "size": pd.Categorical(["S", "M", "S"] * 599), "is_sold": [True, False, True] * 599,
        "day": pd.date_range("2024-01-01", periods=1797), "note": [f"note {n}, with a comma" for n in range(1797)],
    })  # fmt: skip
    assert tell(frame, name="df").split("\n") == [
        "df: a pandas DataFrame of 1,797 rows and 7 columns",
        "count: whole numbers, 1 to 3",
        "kind: text, 599 missing, values: cat, dog",
        "price: numbers, 599 missing, 0.5 to 2",
        "size: 2 categories, values: M, S",
        "is_sold: true/false",
        "day: dates, 2024-01-01 to 2028-12-01",
        "note: text",
        "first rows:",
        "count,kind,price,size,is_sold,day,note",
        '3,cat,0.5,S,True,2024-01-01,"note 0, with a comma"',
        '1,dog,,M,False,2024-01-02,"note 1, with a comma"',
        '2,,2,S,True,2024-01-03,"note 2, with a comma"',
        '3,cat,0.5,S,True,2024-01-04,"note 3, with a comma"',
        '1,dog,,M,False,2024-01-05,"note 4, with a comma"',
        "… 1,792 more rows",
    ]


def test_a_smaller_budget_takes_rows_then_values_then_columns():
    frame = pd.DataFrame({f"c{n}": list("abcdefg") * 10 for n in range(8)})

    def shape(budget_tokens):
        text = tell(frame, budget_tokens)
        lines = text.split("first rows:")[0].split("\n")
        columns = [line for line in lines if re.match(r"c\d: ", line)]
        n_values = max((line.count(", ") for line in columns), default=0)
        return text.count("\na,a,"), n_values, len(columns)

    shapes = list(dict.fromkeys(shape(n) for n in range(200, 12, -1)))
    full = [(rows, 7, 8) for rows in (1, 1, 1, 0)]
    assert shapes == [*dict.fromkeys(full), (0, 5, 8), (0, 0, 8), *((0, 0, n) for n in range(7, -1, -1))]
    assert shapes == sorted(shapes, reverse=True)
    assert tell(frame, 25).endswith("\nc4: text\n… 3 more columns")


def test_fewer_rows_are_shown_where_five_have_no_room():
    frame = pd.DataFrame({"a": ["word " * 5] * 4})
    shown = [tell(frame, budget_tokens).count("word " * 4) for budget_tokens in range(60, 8, -1)]
    assert list(dict.fromkeys(shown)) == [5, 4, 2, 1, 0]  # with the one among the values


def test_an_index_is_shown_unless_it_only_counts():
    frame = pd.DataFrame({"a": [1, 2]})
    assert "\na\n1\n2" in tell(frame)
    assert "\nindex,a\nx,1\ny,2" in tell(frame.set_axis(["x", "y"]))
    assert "\nindex,a\n1,2" in tell(frame[1:])
    both = pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["k", None])
    assert "\nk,index,a\nx,1,1\n" in tell(frame.set_axis(both))


def test_names_of_columns_are_told_from_each_other():
    assert "\n0: numbers, 1 to 1\n" in tell(pd.DataFrame({0: [1.0]}))
    assert "\n('a', 1): whole numbers" in tell(pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", 1)])))
    twins = tell(pd.DataFrame([[1, "x"]], columns=["a", "a"]))
    assert "\na: whole numbers, 1 to 1\na: text, values: x\n" in twins
    odd = tell(pd.DataFrame([[1, 2, 3]], columns=["", "a, b", "c\nd"]))
    assert [line.split(":")[0] for line in odd.split("\n")[1:4]] == ["''", "'a, b'", r"'c\nd'"]


@pytest.mark.parametrize("values, line", [
    ([1, "a", None], "a: values of type int, str, 1 missing"),
    ([[1], {"a": 2}, [3]], "a: values of type list, dict"),
    (["x", ["y"]], "a: values of type str, list"),
    ([None, None], "a: no values, 2 missing"),
    (pd.Series([1, None], dtype="Int64"), "a: whole numbers, 1 missing, 1 to 1"),
    (pd.Series([True, None], dtype="boolean"), "a: true/false, 1 missing"),
    (pd.Series([0.25, None], dtype="Float32"), "a: numbers, 1 missing, 0.25 to 0.25"),
    (pd.Series([pd.NA, "x"], dtype="string"), "a: text, 1 missing, values: x"),
    (pd.Series([np.nan, np.inf]), "a: numbers, 1 missing, inf to inf"),
    (pd.Series([np.nan]), "a: numbers, 1 missing"),
    (pd.date_range("2024-01-01", periods=2, tz="Asia/Tokyo"),
     "a: dates, in the time zone Asia/Tokyo, 2024-01-01 00:00:00+09:00 to 2024-01-02 00:00:00+09:00"),
    (pd.to_timedelta([1, 2], unit="h"), "a: durations, 0 days 01:00:00 to 0 days 02:00:00"),
    (pd.period_range("2024-01", periods=2, freq="M"), "a: periods"),
    (pd.Categorical([2, 1]), "a: 2 categories, values: 1, 2"),
    (pd.Categorical([str(n) for n in range(50)]), "a: 50 categories"),
    (["a, b", " c", "x" * 99], f"a: text, values: 'a, b', ' c', {'x' * 59}…"),
    ([1 + 2j], "a: values of type complex"),
])  # fmt: skip
def test_a_column_is_told(values, line):
    assert tell(pd.DataFrame({"a": values})).split("\n")[1] == line


def test_values_of_a_part_of_the_rows_are_told_as_such():
    frame = pd.DataFrame({"a": ["x", "y"] * 10_000})
    assert "a: text, values in the first 10,000 rows: x, y" in tell(frame)


def test_a_cell_stays_on_its_line_and_is_short():
    text = tell(pd.DataFrame({"a": ["x\ny\r\tz\x1b[31m\x00", "w" * 5000, list(range(9999)), 3]}))
    assert r"x y z\x1b[31m\x00" in text and "w" * 59 + "…" in text and len(text) < 400
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)


def test_objects_in_cells_are_not_compared_or_hashed():
    class Touchy:
        __hash__ = None

        def __eq__(self, other):
            raise AssertionError("compared")

        def __repr__(self):
            return "touchy"

    assert "a: values of type Touchy\nfirst rows:\na\ntouchy" in tell(pd.DataFrame({"a": [Touchy(), Touchy()]}))


def test_a_series_is_told():
    assert tell(pd.Series([1, 2, 3], name="n")) == (
        "x: a pandas Series of 3 values\nn: whole numbers, 1 to 3\nfirst rows:\nn\n1\n2\n3"
    )
    assert "value: text, values: a\nfirst rows:\nindex,value\nk,a" in tell(pd.Series(["a"], index=["k"]))


def make_large(n_rows, n_columns):
    kinds = [
        np.arange(n_rows), np.random.default_rng(0).random(n_rows), np.array(["abc", "def"] * (n_rows // 2), object),
        pd.Categorical(["x", "y"] * (n_rows // 2)), pd.Series(range(n_rows), dtype="Int64"),
    ]  # fmt: skip
    return pd.DataFrame({f"column {n}": kinds[n % len(kinds)] for n in range(n_columns)})


@pytest.mark.parametrize("n_rows, n_columns", [(100_000, 200), (100, 2000)])
@pytest.mark.parametrize("budget_tokens", [100, 2000, 100_000])
def test_a_large_frame_is_told_at_once(n_rows, n_columns, budget_tokens):
    frame, counted = make_large(n_rows, n_columns), []
    started = time.process_time()
    told = describe("df", frame, budget_tokens, lambda text: counted.append(text) or count_words(text))
    assert time.process_time() - started < 1
    assert told.tokens <= budget_tokens and len(counted) < 40
    assert told.is_cut == ("more column" in told.text)


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=80), st.datetimes(), st.just(pd.NA),
    st.just(pd.NaT), st.lists(st.integers(), max_size=3), st.dictionaries(st.text(), st.integers(), max_size=2),
    st.decimals(), st.binary(max_size=9), st.just(object()), st.complex_numbers(),
)  # fmt: skip
LABELS = st.one_of(st.text(max_size=9), st.integers(), st.none(), st.tuples(st.text(), st.integers()), st.floats())


@st.composite
def frames(draw):
    n_rows = draw(st.integers(0, 8))
    one_kind = st.sampled_from([
        st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.text(max_size=80), CELLS,
        st.sampled_from("ab"),
    ]).flatmap(lambda cells: st.lists(cells, min_size=n_rows, max_size=n_rows))  # fmt: skip
    columns = [pd.Series(cells, dtype=object) for cells in draw(st.lists(one_kind, max_size=6))]
    columns = [column.infer_objects() if draw(st.booleans()) else column for column in columns]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(n_rows))
    labels = draw(st.lists(LABELS, min_size=len(columns), max_size=len(columns)))
    frame.columns = pd.Index(labels, dtype=object, tupleize_cols=False)
    return frame.iloc[::-1] if draw(st.booleans()) else frame


@settings(deadline=None, max_examples=40)
@given(frames(), st.integers(0, 150) | st.integers(0, 2000), st.sampled_from(list(COUNTERS)))
def test_any_frame_keeps_to_any_budget(frame, budget_tokens, counter):
    told = describe("df", frame, budget_tokens, COUNTERS[counter])
    assert told.tokens == COUNTERS[counter](told.text) <= budget_tokens
    whole = describe("df", frame, 10**6, COUNTERS[counter])
    assert whole.text.startswith("df: a pandas DataFrame of ") and not whole.is_cut
    assert "cannot be read" not in whole.text
    assert len(whole.text.split("\n")) <= 1 + len(frame.columns) + 2 + 5 + 1


@settings(deadline=None, max_examples=40)
@given(frames())
def test_the_first_rows_are_csv_with_all_columns(frame):
    import csv  # the oracle

    text = tell(frame, 10**6)
    if len(frame) and len(frame.columns):
        rows = text.split("first rows:\n")[1].split("\n… ")[0]
        parsed = list(csv.reader(io.StringIO(rows)))
        assert len(parsed) == 1 + min(5, len(frame))
        assert {len(row) for row in parsed} in ({len(frame.columns)}, {len(frame.columns) + 1})


def test_a_polars_frame_is_told(monkeypatch):
    class DataFrame:
        shape, schema = (7, 2), {"a": "Int64", "b": "String"}

        def __len__(self):
            return 7

        def head(self, n):
            return types.SimpleNamespace(rows=lambda: [(1, "x"), (2, None)])

    monkeypatch.setitem(sys.modules, "polars", types.SimpleNamespace(DataFrame=DataFrame))
    assert tell(DataFrame()) == (
        "x: a polars DataFrame of 7 rows and 2 columns\na: Int64\nb: String\nfirst rows:\na,b\n1,x\n2,\n… 2 more rows"
    )


# all else


@pytest.mark.parametrize("value, text", [
    ("as it\n is", "as it\n is"),
    ("", "x: an empty text"),
    (3, "x = 3"),
    (None, "x = None"),
    ([1, 2.5, None], "x: a list of 3 items (int, float, NoneType)\n1, 2.5, None"),
    (["a", "b"], "x: a list of 2 items (str)\n'a'\n'b'"),
    ({"a": 1, "b": [1, {"c": (2,)}]}, "x: a dict of 2 items (str to int, list)\n'a': 1\n'b': [1, {'c': (2)}]"),
    (collections.Counter("aab"), "x: a Counter of 2 items (str to int)\n'a': 2\n'b': 1"),
    ([], "x: a list, empty"),
    ({7}, "x: a set of 1 item (int)\n7"),
    (np.arange(6).reshape(2, 3), "x: a numpy array of shape (2, 3), whole numbers (int64), 0 to 5\n0, 1, 2, 3, 4, 5"),
    (np.array([np.nan, 1.5]), "x: a numpy array of shape (2,), numbers (float64), 1 missing, 1.5 to 1.5\nmissing, 1.5"),
    (math, "x: a module\nmath\nThis module provides access to the mathematical functions"),
    (len, "x: a function\nlen(obj, /)\nReturn the number of items in a container."),
    (10**5000, "x: an int that cannot be shown"),
    (range(3), "x: a range\nrange(0, 3)"),
    ([pd.DataFrame({"a": [1]}), np.zeros(3)],
     "x: a list of 2 items (DataFrame, ndarray)\n<DataFrame of shape (1, 1)>\n<ndarray of shape (3,)>"),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_a_value_is_told(value, text):
    assert tell(value) == text


def test_a_long_container_says_how_much_is_left_out():
    text = tell(list(range(1000)), 20)
    assert re.fullmatch(r"x: a list of 1,000 items \(int\)\n(\d+, )*\d+\n… 9\d\d more items", text)
    assert tell(np.arange(1000), 20).endswith(" more values")


def test_a_container_that_contains_itself_has_an_end():
    loop = []
    loop += [loop] * 1000
    table = {}
    table["self"] = table
    assert len(tell(loop, 10_000)) < 100_000
    assert tell(table) == "x: a dict of 1 item (str to dict)\n'self': {'self': {'self': {'self': …}}}"


class Broken:
    """Raises whatever one asks of it."""

    def __getattribute__(self, name):
        raise RuntimeError("asked")

    __repr__ = __str__ = __len__ = __iter__ = __eq__ = __hash__ = __bool__ = lambda self, *rest: 1 / 0


def test_an_object_whose_methods_raise_cannot_be_shown():
    assert tell(Broken()) == "x: a Broken that cannot be shown"
    assert "a Broken that cannot be shown" in tell([Broken()])
    assert "a Broken that cannot be shown" in tell({"a": {"b": Broken()}})
    liar = type("Liar", (list,), {"__len__": lambda self: -1, "__iter__": lambda self: 1 / 0})
    assert tell(liar([1])) == "x: a Liar that cannot be shown"


def test_an_object_with_attributes_alone_tells_them():
    config = Thing()
    config.model, config._secret = "tiny", 1
    assert tell(config) == "x: a Thing of 2 attributes (str, int)\nmodel: 'tiny'\n_secret: 1"
    assert tell(dataclasses.make_dataclass("Point", ["left"])(3)) == "x: a Point\nPoint(left=3)"


def test_a_proxy_is_not_asked_what_it_is():
    class Proxy:
        asked = False

        @property
        def __class__(self):
            Proxy.asked = True
            return str

        def __repr__(self):
            return "a proxy"

    assert tell(Proxy()) == "x: a Proxy\na proxy" and not Proxy.asked


def test_a_function_is_given_with_its_source():
    assert tell(count_words) == "x: a function\ndef count_words(text):\n    return len(text.split())"
    assert "size = 3" in tell(Thing)
    assert tell(traceback) == "x: a module\ntraceback\n" + traceback.__doc__.strip().split("\n")[0]


# errors


def run_cell(source, number=1, namespace=None):
    """Runs a cell as ipykernel does: under a file name that only the line cache knows. Returns its error."""
    name = f"/tmp/ipykernel_4242/{number}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    try:
        exec(compile(source, name, "exec"), namespace if namespace is not None else {"__name__": "__main__"})
    except BaseException as error:
        return error


def tell_error(error, budget_tokens=1000):
    return describe_error(error, budget_tokens, count_words).text


def test_an_error_shows_the_lines_of_the_cells():
    source = "import json\n\ndef f(x):\n    return json.loads(x)\n\nf('no')\n"
    assert tell_error(run_cell(source)).split("\n") == [
        "line 6:",
        "  4 |     return json.loads(x)",
        "  5 | ",
        "> 6 | f('no')",
        "line 4, in f:",
        "  2 | ",
        "  3 | def f(x):",
        "> 4 |     return json.loads(x)",
        "  5 | ",
        "  6 | f('no')",
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
    ]  # fmt: skip
    assert describe_error(run_cell(source), 1000, count_words).name == "Err"


def test_a_smaller_budget_keeps_the_message_then_the_innermost_line():
    error = run_cell("def f():\n    1 / 0\n\nf()\n")
    assert tell_error(error, 3).startswith("ZeroDivisionError: division")
    assert tell_error(error, 18).split("\n") == [
        "… 1 more frame", "line 2, in f:", "> 2 |     1 / 0", "ZeroDivisionError: division by zero",
    ]  # fmt: skip


def test_an_error_outside_of_cells_shows_its_last_line():
    with pytest.raises(ValueError) as raised:
        math.sqrt(-1)
    assert re.search(r"test_given\.py, line \d+, in test_an_error_outside[\s\S]*> \d+ \|         math\.sqrt\(-1\)",
                     tell_error(raised.value))  # fmt: skip
    assert failing_source(raised.value) is None


def test_a_syntax_error_shows_its_line_and_caret():
    error = run_cell("a = 1\nb = (2\n")
    assert tell_error(error) == "line 2:\n    b = (2\n        ^\nSyntaxError: '(' was never closed"
    assert failing_source(error) == "a = 1\nb = (2\n"


def test_causes_are_told_shortly():
    caused = run_cell("try:\n    {}['a']\nexcept KeyError as error:\n    raise ValueError('bad') from error\n")
    assert tell_error(caused).endswith("ValueError: bad\ncaused by KeyError: 'a' at line 2: > 2 | {}['a']")
    handled = run_cell("try:\n    {}['a']\nexcept KeyError:\n    int('x')\n")
    assert "while handling KeyError: 'a' at line 2" in tell_error(handled)
    hidden = run_cell("try:\n    {}['a']\nexcept KeyError:\n    raise ValueError from None\n")
    assert tell_error(hidden).endswith("\nValueError")
    assert tell_error(caused, 12).endswith("… 1 more error behind it")


def test_causes_in_a_circle_have_an_end():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert tell_error(first).count("caused by") == 1


def test_errors_of_a_group_are_told():
    assert "one of them: KeyError: 'a'" in tell_error(ExceptionGroup("two", [KeyError("a"), ValueError("b")]))


def test_endless_recursion_has_an_end():
    text = tell_error(run_cell("def f():\n    f()\nf()\n"))
    assert re.match(r"… \d{2,} more frames\n", text) and text.count("line 2, in f:") == 10


def test_no_colours_are_left():
    assert tell_error(ValueError("\x1b[31mred\x1b[0m")) == "ValueError: red"


def test_an_error_that_cannot_say_what_it_is_is_named():
    assert "Mute" in tell_error(type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})())


def test_notes_of_an_error_are_told():
    error = ValueError("bad")
    error.add_note("try 3")
    assert tell_error(error) == "ValueError: bad\ntry 3" == "".join(traceback.format_exception_only(error)).strip()


def test_a_long_message_is_whole_where_there_is_room():
    error = run_cell("raise ValueError('so ' * 200)")
    assert tell_error(error, 500).count("so ") >= 199
    assert 50 < tell_error(error, 100).count("so ") < 100


def test_the_failing_source_is_that_of_the_innermost_cell():
    namespace = {}
    source = "def f():\n    return 1 / 0\n"
    assert run_cell(source, 1, namespace) is None
    error = run_cell("f()\n", 2, namespace)
    assert failing_source(error) == source
    assert failing_source(ValueError("raised nowhere")) is None


def test_a_class_of_a_cell_is_given_with_its_methods():
    namespace = {"__name__": "__main__"}
    source = "class Own:\n    'Says things.'\n    def say(self):\n        return 'hello'\n"
    assert run_cell(source, 3, namespace) is None
    text = tell(namespace["Own"])
    assert "Own()\nSays things.\n    def say(self):\n        return 'hello'" in text


def test_a_real_shell_is_understood():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    result = shell.run_cell("def g(x):\n    return [1][x]\ng(5)", store_history=True, silent=False)
    text = tell_error(result.error_in_exec)
    assert text.startswith("line 3:\n") and "line 2, in g:\n  1 | def g(x):\n> 2 |     return [1][x]\n" in text
    assert text.endswith("\nIndexError: list index out of range")
    assert failing_source(result.error_in_exec).startswith("def g(x):\n")
    broken = shell.run_cell("x = (1", store_history=True)
    assert failing_source(broken.error_before_exec).strip() == "x = (1"
    assert find("In[1]", shell.user_ns).startswith("def g(x)")
