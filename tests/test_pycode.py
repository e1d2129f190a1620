"""Code that a model wrote is judged against the namespace, and none of it runs: the oracle is CPython."""

from __future__ import annotations

import ast
import builtins
import math
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.pycode import Problem, find_problems, strip_fences

FRAME = pd.DataFrame({"price": [1.0], "qty": [2], "city name": ["Ulm"]})
NAMES = {"df": FRAME, "pd": pd, "math": math, "os": os, "rows": [1, 2], "total": 3}


def texts(code: str, namespace: dict | None = None) -> list[str]:
    return [problem.text for problem in find_problems(code, NAMES if namespace is None else namespace)]


def places(code: str, namespace: dict | None = None) -> list[str]:
    return [code[p.start : p.end] for p in find_problems(code, NAMES if namespace is None else namespace)]


# --- fences


@pytest.mark.parametrize("text, code", [
    ("x = 1\n", "x = 1"),
    ("", ""),
    ("\n \n    x = 1\n    y = 2 \n\n", "    x = 1\n    y = 2"),
    ("```python\nx = 1\n```", "x = 1"),
    ("```\nx = 1\n```\n", "x = 1"),
    ("Sure:\n\n```py title=a\r\n\r\n  x = 1\r\n```\r\nDone.", "  x = 1"),
    ("```python\nfor x in y:\n    print(", "for x in y:\n    print("),
    ("```python\n```\nor\n```python\nx = 1\n```", "x = 1"),
    ("```python\nx = 1\n```\n```python\ny = 2\n```", "x = 1"),
    ("Use ```python\nx = 1\n```", "x = 1"),
    ("```python\nprint(1)```\nIt prints.", "print(1)"),
    ("- so:\n\n  ```python\n  x = 1\n  ```\n  and", "  x = 1"),
    ("```python", "```python"),
    ("No code at all.", "No code at all."),
    ('def f():\n    """Like so:\n\n    ```\n    f()\n    ```\n    """', None),
    ('```python\ndef f():\n    """So:\n\n    ```\n    f()\n    ```\n    """\n```',
     'def f():\n    """So:\n\n    ```\n    f()\n    ```\n    """'),
])  # fmt: skip
def test_the_code_is_taken_out_of_its_fence(text, code):
    assert strip_fences(text) == (text if code is None else code)


@given(st.text(alphabet="`\n py\t#x\r~'\"", max_size=60))
def test_whatever_is_stripped_has_no_blank_edges(text):
    code = strip_fences(text)
    assert code == code.rstrip() and (not code or code.splitlines()[0].strip())


# --- syntax


@pytest.mark.parametrize("code, place, text", [
    ("x = (1, 2\ny = 3\n", "(", "syntax: '(' was never closed"),
    ("é = '日本'; x = )", ")", "syntax: unmatched ')'"),
    ("é = '日本'; return 5", "return 5", "syntax: 'return' outside function"),
    ("def f():\n\té = '日'; nonlocal é", "nonlocal é", "syntax: "),
    ("if x:\n\ty = '日' 1", "1", "syntax: invalid syntax"),
    ("'日'\nx = 1\n    y = 2", None, "syntax: unexpected indent"),
    ("if 1:\n    x = 1\n  y = 2", None, "syntax: unindent does not match any outer indentation level"),
    ("'日'; x = f'é {a b}'", "a b", "invalid syntax. Perhaps you forgot a comma?"),
    ("'日'; x\0 = 1", "\0", "syntax: '\\x00' cannot stand in code"),
    ("x = '\ud800'", "\ud800", "syntax: '\\ud800' cannot stand in code"),
    ("'日'; print 'x'", "print 'x'", "syntax: Missing parentheses in call to 'print'"),
    ("x = 5 5 5\ny = (", None, "syntax: "),
    ("async def f():\n    pass\ndef g():\n    await f()", "await f()", "syntax: 'await' outside async function"),
])  # fmt: skip
def test_a_syntax_error_stands_where_it_is(code, place, text):
    (problem,) = find_problems(code, {})
    assert text in problem.text
    assert problem.line == code.count("\n", 0, problem.start) + 1
    assert place in (None, code[problem.start : problem.end])


@pytest.mark.parametrize("code", [
    "print((1", "foo(a, ", "def f():", "def f():\n", "if rows:\n    if total:\n", "x = '''abc\nde", "x = [1,\n2,\n",
    "try:\n    x = 1", "@cached", "x = 1 + \\", "x = ", "x = 1 +", "df.", "%time x\nfoo(",
])  # fmt: skip
def test_code_that_ends_too_early_is_cut_off(code):
    (problem,) = find_problems(code, NAMES)
    assert problem.text == "the code is cut off here"
    assert problem.end == len(code.rstrip()) and problem.end == problem.start + 1


@pytest.mark.parametrize("code", [
    "(" * 5000, "-" * 200_000 + "1", "x" + ".x" * 100_000, "[" * 150 + "]" * 150, "not " * 50_000 + "1",
    "lambda: " * 5000 + "1", "if 1:\n" + "".join(" " * n + "if 1:\n" for n in range(1, 200)) + " " * 200 + "x",
    "x = " + "1 + " * 5000 + "zz", "f(" * 90 + "zz" + ")" * 90, "x = [" + "zz, " * 20_000 + "]",
    "x = " + "9" * 10_000, "{" * 150,
])  # fmt: skip
def test_absurd_code_is_a_problem_and_no_crash(code):
    begin = time.perf_counter()
    for problem in find_problems(code, {}):
        assert 0 <= problem.start < problem.end <= len(code)
    assert time.perf_counter() - begin < 10


def test_code_that_is_nested_too_deeply_is_told():
    code = "  x" + ".x" * 100_000
    assert find_problems(code, {}) == (Problem(0, len(code), 1, "syntax: the code is nested too deeply to be read"),)


SNIPPET = """\
import math as m

def area(r, *, unit="cm²"):
    '''Größe'''
    return f"{m.pi * r ** 2:.2f} {unit}"

@property
class Shape:
    sizes: list[int] = [1, 2, *range(3)]
    def __init__(self, é=None):
        self.é = {k: v for k, v in (é or {}).items() if v}

try:
    print(area(2), [x for x in "日本" if (y := x)])
except (ValueError, TypeError) as error:
    raise SystemExit(1) from error
"""


@pytest.mark.filterwarnings("ignore")  # of the oracle
@given(
    st.integers(0, len(SNIPPET)), st.integers(0, 3), st.sampled_from(["", "(", ")", "'", "é", ":", "\n", "    ", "1"])
)
@settings(max_examples=100)
def test_a_syntax_error_is_told_where_python_finds_one(at, length, inserted):
    code = SNIPPET[:at] + inserted + SNIPPET[at + length :]
    try:
        compile(code, "<code>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        is_code = True
    except SyntaxError:
        is_code = code[:1] in "\t " or "\nimport" in code[:8]
    told = [text for text in texts(code, {}) if text.startswith(("syntax", "the code is cut"))]
    assert len(told) == (not is_code) or code[:1].isspace()


@given(st.text() | st.text(alphabet="ab=.()[]{}'\"\\\n\r\t #:%!?fé日@`,0", max_size=80))
@settings(max_examples=150)
def test_any_text_is_judged_and_every_place_is_within_it(code):
    for problem in find_problems(code, NAMES):
        assert 0 <= problem.start < problem.end <= len(code)
        assert problem.line >= 1 and "\n" not in problem.text and problem.text.strip()


# --- names: each code runs, in a fresh module, up to its NameError if it has one


RUNNABLE = [
    "x = 1; x", "x", "print(len([]))", "def f(a, /, b, *c, d=1, **e): return a, b, c, d, e\nf(1, 2)",
    "def f(): return inner\nf()", "def f(): return later\nlater = 1\nf()", "def f(a=missing): pass",
    "def f(a: missing): pass", "def f() -> missing: pass", "x: missing = 1", "x: int\nx", "x: 'missing' = 1",
    "[x for x in [1] if x]", "[y for x in [1]]", "[x for x in [1]]; x", "[x for x in x]", "{a: b for a, b in [(1, 2)]}",
    "list(x + n for x in [1] for n in [x])", "[x for x in [1] for y in zz]", "[(w := x) for x in [1]]; w",
    "def f():\n    [(w := x) for x in [1]]\n    return w\nf()", "def f():\n    (w := 1)\nf(); w",
    "class A:\n    n = 1\n    m = n\n    def f(self): return n\nA().f()",
    "class A:\n    n = 2\n    k = [1 for _ in range(n)]",
    "class A:\n    n = 2\n    k = [n for _ in range(2)]",
    "class A:\n    n = 1\n    def f(self, k=n): return k\nA().f()",
    "class A:\n    def f(self): return __class__\nA().f()", "class A:\n    q = __qualname__, __module__",
    "__qualname__",
    "class A(Missing): pass", "class A(metaclass=missing): pass", "@missing\ndef f(): pass",
    "class A:\n    class B:\n        x = 1\n        y = x\n    z = B.y",
    "class A:\n    x = 1\n    class B:\n        y = x",
    "f = lambda a, *b, c=1: (a, b, c)\nf(1)", "f = lambda: inner\nf()", "f = lambda a=missing: a",
    "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    error", "try:\n    1 / 0\nexcept Missing:\n    pass",
    "import os.path as p, sys\np, sys", "import os.path\nos", "import os.path\npath", "from os import path as q\nq",
    "from os import path as q\npath", "import os\nwith open(os.devnull) as f, f as g:\n    f, g",
    "for a, (b, *c) in [(1, (2, 3))]: a, b, c", "a, *b = c = 1, 2\na, b, c",
    "def f():\n    global g\n    g = 1\nf()\ng", "def f():\n    global g\n    g += 1\nf()",
    "def f():\n    g = 1\nf()\ng", "global g\ng = 1\ng",
    "def f():\n    n = 1\n    def h():\n        nonlocal n\n        n = 2\n        return n\n    return h()\nf()",
    "def f():\n    def h():\n        return n\n    n = 1\n    return h()\nf()",
    "def f():\n    n = 1\n    class A:\n        m = n\n        def g(self): return n\n    return A().g()\nf()",
    "def f():\n    global g\n    def h():\n        return g\n    return h()\nf()",
    "def f():\n    g = 1\n    def h():\n        global g\n        return g\n    return h()\nf()",
    "def f():\n  n = 1\n  def g():\n    nonlocal n\n    def h():\n      nonlocal n\n      n = 2\n    h()\n  g()\nf()",
    "n += 1", "n = 1\nn += 1", "del n",
    "match [1, 2]:\n    case [a, *b]: a, b", "match {'k': 1, 'j': 2}:\n    case {'k': v, **rest}: v, rest",
    "match 1:\n    case int() as i: i", "match 1:\n    case Missing(): pass", "match 1:\n    case str(s) | s: s",
    "x = 1\nf'{x} {x:>{x}} {x!r:x}' if 0 else f'{x:>{x}}'", "f'{missing}'", "f'a {1:>{missing}}'", "print(__name__)",
    "__doc__",
    "assert missing", "print(end=missing)", "a = [1]\na[missing]", "True and None", "...", "exec('z = 1'); z",
    "globals()['z'] = 1; z", "try:\n    missing\nexcept NameError:\n    pass", "NotImplemented, __debug__, __import__",
    "from math import *\npi", "from os.path import *\njoin", "raise missing", "x = yy = 1; yy", "def f(): f\nf()",
    "__class__",
    "class A:\n    def f(self): return A\nA().f()", "print(*missing)", "print(**missing)", "x = missing.a.b",
    "async def f():\n    async with missing as m: m\nimport asyncio\nasyncio.run(f())",
    "async def f():\n    return [x async for x in missing]\nimport asyncio\nasyncio.run(f())",
]  # fmt: skip
SINCE_312 = [
    "def f[T](a: T) -> T:\n    x: T\n    return T\nf(1)", "def f[T](a: T): pass\nT",
    "class A[T]:\n    def f(self): return T\nA().f()",
    "class A[T](list[T]): pass", "type P[T] = list[T]\nP.__value__", "type P = list[missing]\nP.__value__",
    "class A[*S, **K]: x = S, K",
    "def f[T: missing](): pass\nf.__type_params__[0].__bound__",
    "class A:\n    n = int\n    def f[T](self, x: n): pass",
    "class A:\n    n = int\n    def f[T](self): return n\nA().f()", "f'{'a' + f'{missing}'}'", "x = 1\nf'{f'{x}'}'",
]  # fmt: skip


@pytest.mark.parametrize("code", RUNNABLE + SINCE_312 * (sys.version_info >= (3, 12)))
def test_a_name_is_told_where_running_the_code_misses_it(code):
    missed = []
    try:
        exec(compile(code, "<code>", "exec", dont_inherit=True), {"__name__": "made", "__doc__": None})
    except NameError as error:
        missed = [error.name]
    assert places(code, {}) == missed


@pytest.mark.parametrize("code", [
    "df, rows, total", "get_ipython().system('ls')", "display(df)", "In[1], Out[2], _, __, ___, _1, _i2, _ih, _dh, _oh",
    "for row in rows: print(row)", "await rows", "async for x in rows: x", "[x async for x in rows]", "__builtins__",
    "class Tree:\n    __left = None\n    def f(self): return __helper()",
    "if 'other' in globals(): other", "import enum\n@enum.global_enum\nclass C(enum.Enum):\n    RED = 1\nRED",
    "    x = 1\n    if x:\n        x\n    x", "\n\t\tx = 1\n\t\tx", ">>> x = 1\n>>> if x:\n...     x\n...",
])  # fmt: skip
def test_what_a_notebook_has_is_no_problem(code):
    assert texts(code) == []


def test_a_name_is_told_at_each_place():
    code = "dff.head()\né = dff\nprint(é, f'日本 {dff!r} {{dff}}')"
    assert places(code) == ["dff"] * 3
    assert [problem.line for problem in find_problems(code, NAMES)] == [1, 2, 3]
    assert set(texts(code)) == {"`dff` exists nowhere: the nearest are df"}
    assert places(">>> é = dff\n>>> print(é,\n...   dfg)") == ["dff", "dfg"]


@pytest.mark.parametrize("code", [
    "f'日 {dff:>{dfg}} { dfh !r}'", "x = '日'  f'é {dff}' 'dfg'\nrows", "f'''\n日 {dff}\n{\n  dfg}'''",
    "f'{rows:{dff}}'", "f'dff {dff}'", "f'{rows[dff]} {pd.dff}'", 'f"{df[\'dff\']} é {df[\'dfg\']}"',
])  # fmt: skip
def test_places_within_an_f_string_are_right(code):
    asked = [n for n in ast.walk(ast.parse(code)) if getattr(n, "id", getattr(n, "attr", n)) in ("dff", "dfg", "dfh")]
    found = places(code)
    assert all(word.strip("'") in ("dff", "dfg", "dfh") for word in found)
    assert len(found) == len(asked) or code.count("df[") == len(found) > 0
    for problem in find_problems(code, NAMES):
        assert code[: problem.start].endswith(("{", "{ ", ".", "[", "{\n  "))


def test_no_unrelated_names_are_suggested():
    assert texts("qqqqq") == ["`qqqqq` exists nowhere"]
    assert texts("pd.qqqqq") == ["`qqqqq` is not in pandas"]
    assert texts("df['zzzz']") == ["`df` has no column 'zzzz'"]
    assert texts("Rows", {"rows": 1, "_Rows": 1}) == ["`Rows` exists nowhere: the nearest are rows"]
    assert texts("DF", {"df": 1}) == ["`DF` exists nowhere: the nearest are df"]
    assert texts("tables", {"table\x1b": 1, 7: 1, "table": 1}) == ["`tables` exists nowhere: the nearest are table"]


def test_names_that_only_another_function_has_are_not_suggested():
    assert texts("def f():\n    result_1 = 1\ndef g():\n    return result_2") == ["`result_2` exists nowhere"]


@given(
    st.text(alphabet="aé日 \t", max_size=12),
    st.sampled_from(["missing", "größe", "変数"]),
    st.sampled_from(["", "  ", "\t"]),
)
def test_a_place_is_counted_in_characters(before, name, indent):
    code = f"{indent}'{before}'\n{indent}if '{before}': '{before}', {name}, [{name}.x]"
    assert places(code, {}) == [name, name]


def test_the_standard_library_has_no_unknown_names():
    files = sorted(Path(os.__file__).parent.glob("*.py"), key=lambda path: path.name)[::4]
    begin, known = time.perf_counter(), {"__file__": "", "__path__": []}  # which no notebook has
    for path in files:
        problems = find_problems(path.read_text(encoding="utf-8"), known)
        assert [p for p in problems if "exists nowhere" in p.text or "syntax" in p.text] == [], path
    assert len(files) >= 30 and time.perf_counter() - begin < 30


def test_each_name_that_is_taken_from_a_library_is_missed():
    for module, names in {"textwrap": ["TextWrapper", "re"], "fnmatch": ["os", "filter", "_compile_pattern"]}.items():
        source = (Path(os.__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        for name in names:
            uses = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name) and n.id == name]
            gone = re.sub(rf"^(class|def) {name}\b", r"\1 gone", source, flags=re.MULTILINE)
            gone = re.sub(rf"^import {name}$", "import sys", gone, flags=re.MULTILINE)
            is_builtin = hasattr(builtins, name)
            assert places(gone, {}) == ([] if is_builtin else [name] * len(uses)) and uses + [is_builtin]


# --- modules


@pytest.mark.parametrize("code, place, text", [
    ("import foo_nowhere.bar as b", "foo_nowhere", "no module `foo_nowhere` can be imported"),
    ("é = 1; from  foo_nowhere import x, y\nx", "foo_nowhere", "no module `foo_nowhere` can be imported"),
    ("import os, pandsa as p", "pandsa", "no module `pandsa` can be imported: the nearest are pandas"),
    ("from foo_nowhere import *\nzz = 1", "foo_nowhere", "no module `foo_nowhere` can be imported"),
    ("import json.decodr", "json.decodr",
    "no module `json.decodr` can be imported: the nearest are json.decoder, json.encoder"),
    ("import math.pi", "math.pi", "no module `math.pi` can be imported: the nearest are math"),
    ("from math import (pi,\n    squrt as s)", "squrt", "`squrt` is not in math: the nearest are sqrt, isqrt"),
    ("'日'; pd.reed_csv('x')", "reed_csv", "`reed_csv` is not in pandas: the nearest are read_csv"),
    ("def f():\n    return math . squrt(2)", "squrt", "`squrt` is not in math: the nearest are sqrt, isqrt"),
    ("import math as m\nm.squrt", "squrt", "`squrt` is not in math: the nearest are sqrt, isqrt"),
    ("os.path.jion('a')", "jion", "`jion` is not in os.path: the nearest are join"),
    ("import os.path\nos.path.jion('a')", "jion", "`jion` is not in os.path: the nearest are join"),
    ("from os import path\npath.jion('a')", "jion", "`jion` is not in os.path: the nearest are join"),
    ("import os.path as p\np.jion('a')", "jion", "`jion` is not in os.path: the nearest are join"),
    ("f'{math.squrt(2)}'", "squrt", "`squrt` is not in math: the nearest are sqrt, isqrt"),
    ("math.squrt += 1", "squrt", "`squrt` is not in math: the nearest are sqrt, isqrt"),
])  # fmt: skip
def test_what_a_module_lacks_is_told(code, place, text):
    (problem,) = find_problems(code, NAMES)
    assert (code[problem.start : problem.end], problem.text) == (place, text)


@pytest.mark.parametrize("code", [
    "import os.path, xml.dom.minidom, this", "from os import path", "from xml import sax", "import xml\nxml.sax",
    "try:\n    import foo_nowhere\nexcept ImportError:\n    foo_nowhere = None",
    "try:\n    import tomllib\nexcept ModuleNotFoundError:\n    import foo_nowhere as tomllib",
    "try:\n    math.tau2\nexcept (KeyError, AttributeError):\n    pass", "if hasattr(math, 'tau2'): math.tau2",
    "import sys\nif sys.version_info > (3, 99):\n    import foo_nowhere", "if os.name == 'nt': os.startfiles('x')",
    "%pip install foo_nowhere\nimport foo_nowhere", "!pip3 -q install foo_nowhere\nimport foo_nowhere",
    "os.system('pip install foo_nowhere')\nimport foo_nowhere",
    "import sys\nif 'foo_nowhere.colab' in sys.modules:\n    import foo_nowhere.colab", "math.extra = 1\nmath.extra",
    "os.path = rows\nos.path.jion",
    "from . import *\nother", "from .made import *\nother", "import __main__\n__main__.other", "math = 3\nmath.real",
    "def f(math): return math.real",
    "import json as math\nmath.dumps", "for pd in rows: pd.real", "[math.real for math in rows]",
    "math.__name__, math.__dict__",
    "from . import x\nfrom .y import z",
    "from .os import path\npath.jion", "from __future__ import annotations", "del pd.reed_csv",
    "pd.read_csv.anything",
    "import math\nif total:\n    math = None\nmath.real",
])  # fmt: skip
def test_what_may_be_there_is_no_problem(code):
    assert texts(code) == []


def test_an_install_that_is_only_a_comment_helps_nothing():
    assert texts("# pip install foo_nowhere\nimport foo_nowhere") == ["no module `foo_nowhere` can be imported"]


def test_a_module_that_makes_its_names_when_asked_is_not_judged(monkeypatch):
    lazy, odd = types.ModuleType("lazy_made"), type("Odd", (types.ModuleType,), {})("odd_made")
    lazy.__getattr__ = lambda name: pytest.fail("was asked")
    monkeypatch.setitem(sys.modules, "lazy_made", lazy)
    monkeypatch.setitem(sys.modules, "odd_made", odd)
    code = (
        "from lazy_made import a\nimport lazy_made, odd_made\nlazy_made.b, odd_made.c, x.d, y.e\nfrom odd_made import f"
    )
    assert texts(code, {"x": lazy, "y": odd}) == []
    del lazy.__getattr__
    assert texts(code, {"x": lazy, "y": odd}) == [
        "`a` is not in lazy_made",
        "`b` is not in lazy_made",
        "`d` is not in lazy_made",
    ]


def test_a_module_that_is_forbidden_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "colorsys", None)
    (text,) = texts("import colorsys")
    assert text.startswith("no module `colorsys` can be imported")


def test_a_module_without_a_spec_can_be_imported(monkeypatch):
    made = types.ModuleType("made_here")
    made.value = 1
    monkeypatch.setitem(sys.modules, "made_here", made)
    assert texts("from made_here import value\nimport made_here") == []
    assert texts("import made_here.sub") == ["no module `made_here.sub` can be imported: the nearest are made_here"]


def test_a_finder_that_fails_proves_nothing(monkeypatch):
    class Broken:
        @staticmethod
        def find_spec(name, path=None, target=None):
            raise OSError("no")

    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    assert texts("import foo_nowhere\nfrom bar_nowhere import x") == []


def test_judging_imports_nothing(tmp_path):
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "__init__.py").write_text("raise SystemExit('was imported')")
    code = "import trap, trap.sub\nfrom trap import x\nfrom trap.sub import *\ntrap.y\nimport colorsys, wave\nwave.z"
    script = f"""if 1:
        import sys
        from llm_magic.pycode import find_problems
        sys.path.insert(0, {str(tmp_path)!r})
        before = set(sys.modules)
        print(find_problems({code!r}, {{}}), set(sys.modules) - before)"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "() set()"


# --- columns


@pytest.mark.parametrize("code, place, text", [
    ("'日'; df['prize'].mean()", "'prize'", "`df` has no column 'prize': the nearest are price"),
    ('df[df["prise"] > 1]', '"prise"', "`df` has no column 'prise': the nearest are price"),
    ("df['city_name']", "'city_name'", "`df` has no column 'city_name': the nearest are city name"),
    ("df['n'] += 1", "'n'", "`df` has no column 'n'"),
    ("def f():\n    return df['n']", "'n'", "`df` has no column 'n'"),
    ("df['a\\nb']", "'a\\nb'", "`df` has no column 'a\\nb'"),
])  # fmt: skip
def test_a_column_that_a_frame_lacks_is_told(code, place, text):
    (problem,) = find_problems(code, NAMES)
    assert (code[problem.start : problem.end], problem.text) == (place, text)


@pytest.mark.parametrize("code", [
    "df['price'], df[['n']], df[0], df[rows], df.n", "df['n'] = 1\ndf['n']", "df['n']; df['n'] = 1",
    "df = df.dropna()\ndf['n']",
    "def f(df): return df['n']", "for df in rows: df['n']", "[df['n'] for df in rows]", "del df['n']", "rows['n']",
    "df.columns = ['n']\ndf['n']", "df.rename(columns={'price': 'n'}, inplace=True)\ndf['n']",
    "df.insert(0, 'n', 1)\ndf['n']",
    "df[['n', 'm']] = 1\ndf['n']", "df.loc[:, 'n'] = 1\ndf['n']", "if 'n' in df: df['n']",
    "if 'n' in df.columns: df['n']",
    "try:\n    df['n']\nexcept KeyError:\n    pass", "other = df\nother['n'] = 1\ndf['n']",
    "for c in rows: df[c] = 1\ndf['n']",
    "with open(df['price']) as df['n']: df['n']", "df['price'], df['n'] = 1, 2\ndf['n']",
])  # fmt: skip
def test_a_column_that_may_be_there_is_no_problem(code):
    assert texts(code) == []


def test_odd_columns_are_not_misjudged():
    days = pd.DataFrame([[1, 2]], columns=pd.to_datetime(["2020-01-01", "2020-02-01"]))
    levels = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]))
    names = {
        "days": days,
        "levels": levels,
        "numbers": pd.DataFrame([[1]]),
        "empty": pd.DataFrame(),
        "hidden": {"a": 1},
    }
    names["hurt"] = pd.DataFrame.__new__(pd.DataFrame)
    names["series"] = pd.Series({"a": 1})
    assert texts("days['2020-01'], levels['a'], levels['a']['z'], hidden['z'], hurt['z'], series['z']", names) == []
    assert texts("levels['x']; numbers['a']; empty['a']", names) == [
        "`levels` has no column 'x'", "`numbers` has no column 'a'", "`empty` has no column 'a'",
    ]  # fmt: skip


def test_pandas_is_not_needed():
    script = (
        "import sys; from llm_magic.pycode import find_problems; "
        "print(find_problems('df[\"a\"]', {'df': 1}), 'pandas' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "() False"


class Hostile:
    """Tells when it is touched."""

    def _fail(self, *_):
        raise AssertionError("was touched")

    __class__ = property(_fail)
    __getattr__ = __getitem__ = __eq__ = __hash__ = __repr__ = __str__ = __bool__ = __len__ = __iter__ = __call__ = (
        _fail
    )
    __getattribute__ = _fail


def test_the_objects_of_the_namespace_are_not_touched():
    names = {"thing": Hostile(), "df": Hostile(), "thinks": Hostile()}
    code = (
        "thing.size, thing['a'], thing(), thing.a.b, df['a'], df.columns, thimk, f'{thing}', thing == df\nthing.x = 1"
    )
    assert texts(code, names) == ["`thimk` exists nowhere: the nearest are thinks"]


def test_hostile_members_of_a_module_are_not_touched(monkeypatch):
    made = types.ModuleType("made_here")
    made.thing, made.__name__, made.__path__ = Hostile(), Hostile(), Hostile()
    monkeypatch.setitem(sys.modules, "made_here", made)
    assert texts("import made_here\nmade_here.thing.x, made_here.thin\nfrom made_here import thing, thong") == [
        "`thin` is not in that module: the nearest are thing", "`thong` is not in that module: the nearest are thing",
    ]  # fmt: skip


# --- IPython's own lines


@pytest.mark.parametrize("code", [
    "%matplotlib inline\ndf", "!ls -l | grep 'x\ndf", "files = !ls\nfiles", "answer = %llm what's (this\nanswer",
    "df?", "df.head??",
    "?df", "%%timeit\ntotal", "%%bash\nif [ -f x ]; then y; fi", "%%llm\nwhat is (this", "%%writefile x.py\ndff",
    "\n%%html\n<b>",
    "if total:\n    %time total\n    !ls", "!ls \\\n  -l 'x\ntotal", "%llm -o poem write one\npoem",
    "%run other.py\nfrom_other",
    "%%capture out\n1\nout", "%%time\ntotal", "x = (total\n  % total)", "total % \\\n  total",
    "s = '''\n%time (\n!ls (\n'''",
    "x = [\n  total\n  %total\n]", "%time\r\n!ls 'x\r\ntotal", "rows[0] = !ls", "a = b = %time total\na, b",
    "# it's\n!ls (",
    "df.price?\n%time\ntotal", "x = total  # see: = %time (\nx", "total != rows, total == rows", "f'{total=!r}'",
    "%cd '",
    "    %time total\n    !ls",
])  # fmt: skip
def test_a_line_of_ipython_is_no_problem(code):
    assert texts(code) == []


def test_magics_do_not_move_what_stands_behind_them():
    code = "%matplotlib inline\nfiles = !ls -é '日\nif files:\n    %time (\n    é = dff, files"
    assert places(code) == ["dff"]
    assert find_problems(code, NAMES)[0].line == 5


@pytest.mark.parametrize("code, place", [
    ("%%time\ndff", "dff"), ("%%timeit -n 10\ntotal\ndff", "dff"), ("  %%capture\n  dff", "dff"),
    ("x = total %\n", "%"),
    ("x = (total\n% dff)", "dff"), ("total\n  !ls", " "),
])  # fmt: skip
def test_python_next_to_magics_is_judged(code, place):
    assert places(code)[0].strip(" ") in place


def test_what_ipython_would_make_of_it_is_python(monkeypatch):
    """IPython's own transformer is the oracle: what it turns into Python, we find no syntax error in."""
    from IPython.core.inputtransformer2 import TransformerManager

    codes = [
        "%time x", "!ls (", "x = !ls (", "x = %time (", "x?", "x.y??", "?x", "    x = 1\n    y = 2",
        "\n\n  x = 1\ny = 2", "!!ls (",
        "if 1:\n    %time (\n    x = !ls '", "x = (1\n%time y)", "a = '''\n!ls\n'''", "x = 1 ?", "1 + %time x",
        "for x in !ls: x",
        "%time \\\n (\nx", "x[0]?", "*int*?", "%time?", "def f():\n    !ls '\n    return %time", "%%time\n(x\n)",
        "x == !ls",
        "f(x = !ls)", "f(x = !ls\n)", "x = (1\n  % 2)\n!ls (", "x = [\n  1,\n  !ls\n]", "  x = 1\n y = 2",
        ">>> x = 1\n>>> y = (2,\n... 3)", ">>>x",
        ">>> x\n1\n>>> y", "    >>> x\n    >>> y", "x += !ls", "x: int = !ls",
    ]  # fmt: skip
    for code in codes:
        try:
            ast.parse(TransformerManager().transform_cell(code))
            is_code = True
        except SyntaxError:
            is_code = False
        told = [text for text in texts(code, {}) if text.startswith(("syntax", "the code"))]
        assert bool(told) != is_code, code


# --- the answer


def test_problems_come_in_the_order_of_the_code_and_once_each():
    code = "zz1; import foo_nowhere\nmath.zz2; df['zz3']; zz4\nzz1"
    problems = find_problems(code, NAMES)
    assert [code[p.start : p.end] for p in problems] == ["zz1", "foo_nowhere", "zz2", "'zz3'", "zz4", "zz1"]
    assert len({(p.start, p.end) for p in problems}) == len(problems)
    assert problems[0] == Problem(0, 3, 1, "`zz1` exists nowhere")


def test_a_huge_code_is_judged_in_time():
    code = "\n".join(f"unknown_{n} = wanted_{n} + '日'" for n in range(5000))
    begin = time.perf_counter()
    assert len(find_problems(code, NAMES)) == 5000
    assert len(find_problems("x = [" + ", ".join(f"'日' + w{n}" for n in range(2000)) + "]", NAMES)) == 2000
    assert time.perf_counter() - begin < 5


def test_a_very_long_name_is_told_in_one_short_line():
    (text,) = texts("n" * 100_000)
    assert len(text) < 300 and text.startswith("`nnn")


def test_judging_warns_of_nothing_and_prints_nothing(recwarn, capsys):
    names = set(vars(builtins))
    assert texts("x = '\\d'\n1 is 1\nassert (x, 'y')") == []
    assert not recwarn.list and capsys.readouterr() == ("", "")
    assert set(vars(builtins)) == names
