"""What is wrong in Python that a model wrote, told from the live namespace: nothing of it is run or imported."""

from __future__ import annotations

import ast
import builtins
import codeop
import difflib
import importlib.util
import re
import sys
import warnings
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, chain
from os.path import commonprefix
from types import ModuleType
from typing import Any, NamedTuple

# what IPython puts into every namespace, and Python into every module; `__file__` is in no notebook
_GIVEN = re.compile(
    r"_{1,3}|_i{1,3}|_i?\d+|_[iod]h|In|Out|get_ipython|display|exit|quit|"
    r"__(?:name|doc|package|loader|spec|builtins?|annotations)__"
)
_BINDERS = {"exec", "globals", "locals", "get_ipython", "global_enum", "_convert_"}  # of these any name may come
_SWITCHES = {"version_info", "platform", "TYPE_CHECKING"}  # an `if` about these has a branch that is not for here
_ALL_GUARDS = frozenset({"ImportError", "AttributeError", "NameError", "KeyError"})
_TITLES = {"posixpath": "os.path", "ntpath": "os.path"}
_MAX_SUGGESTIONS, _MAX_KNOWN, _MAX_SHOWN = 64, 5000, 240  # of one code; words to choose from; characters of a text

_FENCE = re.compile(  # a closing one may stand behind the last line of code, or be missing
    r"(?:^(?P<indent>[ \t]*)```+[^\n`]*|```+\w*[ \t\r]*)\n(?P<code>.*?)"
    r"(?:^(?:(?P=indent)| {0,3})```+[ \t\r]*$|(?<=[^\s`])```+[ \t\r]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_FOREIGN_CELL = re.compile(r"\s*%%(?!(?:time|timeit|capture|prun)\b)\w")
_LINE_MAGIC = re.compile(r"[ \t]*(?P<magic>[%!?](?:\\\r?\n|[^\r\n])*|[\w.*%\[\]]+\?\??[ \t]*(?![^\r\n]))")
_PIECE = re.compile(  # enough of Python's tokens to see where a statement begins
    r"""\#[^\r\n]*|(?P<quotes>\"{3}|'{3})(?:\\.|.)*?(?:(?P=quotes)|\Z)|"(?:\\.|[^"\\\r\n])*"?|'(?:\\.|[^'\\\r\n])*'?
    |(?P<open>[(\[{])|(?P<close>[)\]}])|\\(?:\r\n?|\n)|(?P<newline>\r\n?|\n)
    |(?<![=!<>:+\-*/%&|^@])=[ \t]*(?P<magic>[%!](?:\\\r?\n|[^\r\n])*)|[^\#"'()\[\]{}\\\r\n=]+|.""",
    re.DOTALL | re.VERBOSE,
)
_OUT = re.compile(r"(?:-o|--out(?:put)?)(?:\s+|=)(\w+)")
_OPENING_MAGIC = re.compile(r"%(?:run|pylab|store|macro|recall|rerun|load)\b|%%\w+[ \t]+[^\s-]")
_INSTALL = re.compile(r"^(?!\s*#).*\b(?:pip3?|conda|mamba|uv)\b\W.*\b(?:install|add)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with `code[start:end]`; `line` counts from 1, `text` is one line."""

    start: int
    end: int
    line: int
    text: str


def strip_fences(text: str) -> str:
    r"""The code of a text that a model wrote: what its first fence holds, or all of it where there is no fence.

    >>> strip_fences("Here it is:\n```python\nif x:\n    print(x)\n```\nIt prints x.")
    'if x:\n    print(x)'
    """
    if "```" in text and isinstance(_parse(_Source.of(text)), Problem):  # Python's own strings may hold fences
        text = next((fence["code"] for fence in _FENCE.finditer(text) if fence["code"].strip()), text)
    return re.sub(r"\A(?:[ \t]*(?:\r\n?|\n))+", "", text).rstrip()


def find_problems(code: str, namespace: Mapping[str, Any]) -> tuple[Problem, ...]:
    """What would fail if the code ran in this namespace, as far as that can be told without running it.

    >>> [problem.text for problem in find_problems("total = sum(prices) + pirce", {"price": 3, "prices": [1, 2]})]
    ['`pirce` exists nowhere: the nearest are price, prices']
    >>> find_problems("import math\\nmath.squrt(4)", {})[0].text
    '`squrt` is not in math: the nearest are sqrt, isqrt'
    """
    if _FOREIGN_CELL.match(code):
        return ()
    source = _Source.of(code)
    tree = _parse(source)
    if isinstance(tree, Problem):
        return (tree,)
    reading = _read(tree)
    for magic in source.magics:
        reading.is_open |= bool(_OPENING_MAGIC.match(magic))
        for name in _OUT.findall(magic):
            reading.module.bind(name)
    findings: dict[tuple[int, int], _Finding] = {}
    for judge in (_wrong_imports, _wrong_names, _wrong_attributes, _wrong_columns):
        for finding in judge(reading, namespace):
            if not (finding.text.startswith("no module") and _INSTALL.search(code)):
                findings.setdefault(source.place(finding), finding)
    texts: dict[str, str] = {}
    for finding in findings.values():
        if finding.text not in texts:
            hint = _suggest(finding.word, finding.known) if len(texts) < _MAX_SUGGESTIONS else ""
            texts[finding.text] = finding.text + hint
    return tuple(source.problem(start, end, texts[findings[start, end].text]) for start, end in sorted(findings))


@dataclass(frozen=True, slots=True)
class _Source:
    """The code as given, and as Python is to read it: without what IPython takes off."""

    code: str
    text: str
    lines: list[str]  # of the text
    starts: list[int]  # of these lines in the code
    magics: list[str]

    @classmethod
    def of(cls, code: str) -> _Source:
        lines = _LINE.findall(code) or [""]
        indent = re.escape(commonprefix([re.match(r"[ \t]*", line)[0] for line in lines if line.strip()]))
        indent += r"(?:(?:>>>|\.\.\.) ?)?" if code.lstrip().startswith(">>>") else ""
        cut = [match.end() if (match := re.match(indent, line)) else 0 for line in lines]
        text, magics = _hide_magics("".join(line[n:] for line, n in zip(lines, cut, strict=True)))
        starts = [start + n for start, n in zip(accumulate(map(len, lines), initial=0), cut, strict=False)]
        return cls(code, text, _LINE.findall(text) or [""], starts, magics)

    def offset(self, line: int | None, column: int, *, is_bytes: bool = False) -> int:
        """Where in the code as given a column of a line is; a syntax tree's columns are bytes of UTF-8."""
        index, column = max(line or 1, 1) - 1, max(column, 0)
        if index >= len(self.lines):
            return len(self.code)
        if is_bytes and not self.lines[index].isascii():
            column = len(self.lines[index].encode()[:column].decode(errors="ignore"))
        return min(self.starts[index] + column, len(self.code))

    def place(self, finding: _Finding) -> tuple[int, int]:
        """Where the wrong word stands."""
        node = finding.use.node
        start = self.offset(node.lineno, node.col_offset, is_bytes=True)
        end = self.offset(node.end_lineno, node.end_col_offset, is_bytes=True)
        if isinstance(node, ast.Attribute):
            name = re.search(r"\w+\Z", self.code[start:end])
            start += name.start() if name else 0
        elif isinstance(node, ast.ImportFrom):
            start += len(re.match(r"(?:from[\s\\]*)?", self.code[start:end])[0])
        if isinstance(node, ast.ImportFrom | ast.alias):
            end = min(start + len(finding.word), end)
        return start, end

    def problem(self, start: int, end: int, text: str) -> Problem:
        if start >= len(self.code):
            start = end = max(len(self.code.rstrip()) - 1, 0)
        end = min(max(end, start + 1), len(self.code))
        return Problem(start, end, max(bisect_right(self.starts, start), 1), " ".join(text.split())[:_MAX_SHOWN])


def _hide_magics(text: str) -> tuple[str, list[str]]:
    """The text with IPython's own lines replaced by a `0` of the same length, and what they were."""
    pieces, magics = [], []
    place, depth, is_start = 0, 0, True
    while place < len(text):
        match = _LINE_MAGIC.match(text, place) if is_start and not depth else None
        if match is None:
            match = _PIECE.match(text, place)
            is_start = bool(match["newline"])
            depth = max(depth + bool(match["open"]) - bool(match["close"]), 0)
        if match["magic"] and not depth:
            magics.append(match["magic"])
            pieces += [text[place : match.start("magic")], "0", re.sub(r"[^\r\n]", " ", match["magic"][1:])]
        else:
            pieces.append(match[0])
        place = match.end()
    return "".join(pieces), magics


def _parse(source: _Source) -> ast.Module | Problem:
    if bad := re.search("[\0\ud800-\udfff]", source.code):
        return source.problem(bad.start(), bad.end(), f"syntax: {bad[0]!r} cannot stand in code")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        is_tree = False
        try:
            tree = ast.parse(source.text)
            is_tree = True
            compile(tree, "<code>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            return tree
        except SyntaxError as error:
            return _explain(source, error, is_tree)
        except Exception as error:
            is_deep = isinstance(error, RecursionError | MemoryError)
            text = "the code is nested too deeply to be read" if is_deep else str(error)
    return source.problem(0, len(source.code), f"syntax: {text}")


def _explain(source: _Source, error: SyntaxError, is_tree: bool) -> Problem:
    start = source.offset(error.lineno, (error.offset or 1) - 1, is_bytes=is_tree)
    end = source.offset(error.end_lineno or error.lineno, (error.end_offset or 0) - 1, is_bytes=is_tree)
    is_cut_off = error.msg == "invalid syntax" and start >= len(source.code.rstrip())
    try:  # whether it would ask for more lines
        flags = ast.PyCF_ONLY_AST | codeop.PyCF_ALLOW_INCOMPLETE_INPUT
        compile(source.text, "<code>", "exec", flags, dont_inherit=True)
    except Exception as other:
        is_cut_off |= getattr(other, "msg", "") == "incomplete input"
    if is_cut_off:
        return source.problem(len(source.code), len(source.code), "the code is cut off here")
    line = source.lines[error.lineno - 1] if 0 < (error.lineno or 0) <= len(source.lines) else ""
    if error.text and error.text.rstrip("\r\n") not in line:  # before 3.12: an f-string's, counted from its brace
        inner = error.text.strip().removeprefix("(").removesuffix(")")
        start = source.offset(error.lineno, max(line.find(inner), 0))
        end = start + len(inner if inner in line else line.rstrip())
    return source.problem(start, end, f"syntax: {error.msg}")


@dataclass(slots=True, eq=False)
class _Scope:
    """Names by what binds them: the module and attribute of an import, `None` for anything else."""

    kind: str  # module, function, class, comprehension, or type (that of type parameters)
    parent: _Scope | None = None
    bound: dict[str, set[tuple[str, str | None] | None]] = field(default_factory=dict)
    declared: dict[str, _Scope] = field(default_factory=dict)  # whose `global` or `nonlocal` names are

    def bind(self, name: str | None, origin: tuple[str, str | None] | None = None) -> None:
        if name in self.declared:
            self.declared[name].bind(name, origin)
        elif name is not None:
            self.bound.setdefault(name, set()).add(origin)

    def nearest(self, *kinds: str) -> _Scope:
        while self.kind not in (*kinds, "module"):
            self = self.parent
        return self

    def in_reach(self) -> Iterator[_Scope]:
        """The scopes whose names can be read here, from within; a class's own are not read in its functions."""
        scope, sees_class = self, True
        while scope is not None:
            if scope.kind != "class" or sees_class:
                yield scope
            sees_class = sees_class and scope.kind == "type"
            scope = scope.parent

    def home(self, name: str) -> _Scope | None:
        """The scope whose binding of the name reaches this one, if the code has any."""
        for scope in self.in_reach():
            if name in scope.declared:
                return scope.declared[name].home(name)
            if name in scope.bound:
                return scope
        return None


class _Use(NamedTuple):  # a node with what surrounds it
    node: Any
    scope: _Scope
    guards: frozenset[str] = frozenset()  # exceptions that are caught there


class _Finding(NamedTuple):
    use: _Use
    text: str
    word: str
    known: Iterable[str]


@dataclass(slots=True)
class _Reading:
    module: _Scope
    uses: dict[type, list[_Use]] = field(default_factory=lambda: defaultdict(list))  # by the kind of node
    stored: set[str] = field(default_factory=set)  # attributes and keys that are set, or asked for before use
    reshaped: set[str] = field(default_factory=set)  # names of frames whose columns may change
    is_open: bool = False  # whether any names may come to exist
    places: dict[ast.AST, _Scope] = field(default_factory=dict)  # nodes that are not of the scope above them
    guards: dict[ast.AST, frozenset[str]] = field(default_factory=dict)

    def open_scope(self, kind: str, parent: _Scope, nodes: Iterable[ast.AST]) -> _Scope:
        scope = _Scope(kind, parent)
        self.places.update(dict.fromkeys(nodes, scope))
        return scope


def _read(tree: ast.Module) -> _Reading:
    """Walks without recursion, since trees are deeper than Python's stack; in the code's order, `global` before use."""
    reading = _Reading(_Scope("module"))
    waiting = [_Use(tree, reading.module)]
    while waiting:
        use = waiting.pop()
        _note(use, reading)
        for child in reversed(list(ast.iter_child_nodes(use.node))):
            scope = reading.places.get(child, use.scope)
            waiting.append(_Use(child, scope, reading.guards.get(child, use.guards)))
    return reading


def _note(use: _Use, reading: _Reading) -> None:
    """Notes what the node itself binds and reads, and which nodes below it belong elsewhere."""
    node, scope = use.node, use.scope
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            scope.bind(name)
        case ast.Name(id=name):  # one that is deleted must exist, too
            reading.uses[ast.Name].append(use)
            reading.is_open |= name in _BINDERS
        case ast.Attribute(attr=attr, ctx=ast.Load()):
            reading.uses[ast.Attribute].append(use)
            reading.is_open |= attr in _BINDERS
        case ast.Attribute(value=base, attr=attr):
            reading.stored.add(attr)
            reading.reshaped |= _words_of(base)
        case ast.Subscript(slice=ast.Constant(value=str(key)), ctx=ctx):
            if isinstance(ctx, ast.Load):
                reading.uses[ast.Subscript].append(use)
            elif isinstance(ctx, ast.Store):
                reading.stored.add(key)
        case ast.Subscript(value=base, ctx=ast.Store()):
            reading.reshaped |= _words_of(base)
        case ast.Call(func=ast.Name(id="hasattr"), args=[_, ast.Constant(value=str(name))]):
            reading.stored.add(name)
        case ast.Call(func=ast.Attribute(value=base, attr=attr), keywords=keywords):
            if attr == "insert" or any(keyword.arg == "inplace" for keyword in keywords):
                reading.reshaped |= _words_of(base)
        case ast.Compare(left=ast.Constant(value=str(name)), ops=[ast.In() | ast.NotIn()]):
            reading.stored.add(name)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() | ast.ClassDef():
            scope.bind(getattr(node, "name", None))
            outer = reading.open_scope("type", scope, ast.iter_child_nodes(node))
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            inner = reading.open_scope(kind, outer, node.body if isinstance(node.body, list) else [node.body])
            if args := getattr(node, "args", None):
                for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
                    inner.bind(arg and arg.arg)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            reading.open_scope("comprehension", scope, ast.iter_child_nodes(node))
            reading.places[node.generators[0].iter] = scope
        case ast.NamedExpr(target=target):
            reading.places[target] = scope.nearest("function", "class")
        case ast.AugAssign(target=target):
            target.ctx = ast.Load()  # it must exist, and does not make it
        case ast.AnnAssign(target=ast.Name(id=name), value=None):
            node.target = ast.Constant(name)  # it makes nothing
        case ast.Import(names=aliases):
            reading.uses[type(node)].append(use)
            for alias in aliases:
                top = alias.name.partition(".")[0]
                scope.bind(alias.asname or top, (alias.name if alias.asname else top, None))
        case ast.ImportFrom(names=aliases, module=module, level=level):
            reading.uses[type(node)].append(use)
            for alias in aliases:
                scope.bind(alias.asname or alias.name, None if level else (module, alias.name))
        case ast.Global(names=names) if scope.parent:
            scope.declared.update(dict.fromkeys(names, reading.module))
        case ast.Nonlocal(names=names):
            scope.declared.update(dict.fromkeys(names, scope.parent.nearest("function")))
        case ast.AST(name=str(name)) if not isinstance(node, ast.alias):  # `except`, `match`, type parameters
            scope.bind(name)
        case ast.MatchMapping(rest=str(name)):
            scope.bind(name)
        case ast.Try() | ast.TryStar():
            # within the handlers, too: what replaces a module that is missing may be missing
            caught = use.guards.union(*(_words_of(handler.type) for handler in node.handlers))
            reading.guards.update(dict.fromkeys((*node.body, *node.handlers), caught))
        case ast.If(test=test):
            if not _SWITCHES.isdisjoint(words := _words_of(test)) or {"os", "name"} <= words:
                reading.guards.update(dict.fromkeys((*node.body, *node.orelse), _ALL_GUARDS))
        case _ if type(node).__name__ == "TypeAlias":
            reading.open_scope("type", scope, (*node.type_params, node.value))


def _words_of(node: ast.AST | None) -> set[str]:
    """The names and attributes in an expression such as `df.loc` or `(ImportError, errors.Missing)`."""
    return {getattr(part, "attr", getattr(part, "id", "")) for part in ast.walk(node)} if node else set()


def _wrong_names(reading: _Reading, namespace: Mapping[str, Any]) -> Iterator[_Finding]:
    stars = [use.node for use in reading.uses[ast.ImportFrom] if use.node.names[0].name == "*"]
    if reading.is_open or any(star.level or _missing_part(star.module) is None for star in stars):
        return
    for use in reading.uses[ast.Name]:
        name = use.node.id
        is_class_name = name.startswith("__") and use.scope.nearest("class") is not reading.module  # or mangled there
        if is_class_name or name in namespace or name in vars(builtins) or _GIVEN.fullmatch(name):
            continue
        if "NameError" in use.guards or use.scope.home(name):
            continue
        known = chain(*(scope.bound for scope in use.scope.in_reach()), namespace, vars(builtins))
        yield _Finding(use, f"`{name}` exists nowhere", name, known)


def _wrong_imports(reading: _Reading, namespace: Mapping[str, Any]) -> Iterator[_Finding]:
    for use in (*reading.uses[ast.Import], *reading.uses[ast.ImportFrom]):
        node = use.node
        if not use.guards.isdisjoint(("ImportError", "ModuleNotFoundError")) or getattr(node, "level", 0):
            continue
        is_from = isinstance(node, ast.ImportFrom)
        for place, name in [(node, node.module)] if is_from else [(alias, alias.name) for alias in node.names]:
            if (part := _missing_part(name)) and name not in reading.stored:
                known = (*sys.modules, *sys.stdlib_module_names)
                yield _Finding(use._replace(node=place), f"no module `{part}` can be imported", part, known)
            for alias in node.names if is_from and not part else ():
                if alias.name != "*":
                    yield from _wrong_member(use._replace(node=alias), sys.modules.get(name), alias.name)


def _wrong_attributes(reading: _Reading, namespace: Mapping[str, Any]) -> Iterator[_Finding]:
    for use in reading.uses[ast.Attribute]:
        if use.node.attr not in reading.stored and "AttributeError" not in use.guards:
            yield from _wrong_member(use, _module_at(use.node.value, use.scope, reading, namespace), use.node.attr)


def _wrong_member(use: _Use, module: Any, name: str) -> Iterator[_Finding]:
    """A name that a module surely lacks; a module of a class of its own, or with `__getattr__`, may have any."""
    if type(module) is not ModuleType or hasattr(ModuleType, name):
        return
    members, title = vars(module), _title_of(module)
    if name in members or "__getattr__" in members or title == "__main__":
        return
    if sys.modules.get(title) is not module or _missing_part(f"{title}.{name}"):  # it may be a submodule
        yield _Finding(use, f"`{name}` is not in {_TITLES.get(title, title) or 'that module'}", name, members)


def _wrong_columns(reading: _Reading, namespace: Mapping[str, Any]) -> Iterator[_Finding]:
    columns: dict[str, list[str] | None] = {}
    for use in reading.uses[ast.Subscript]:
        frame, key = getattr(use.node.value, "id", ""), use.node.slice.value
        if frame not in namespace or frame in reading.reshaped or use.scope.home(frame) or "KeyError" in use.guards:
            continue
        if frame not in columns:
            columns[frame] = _columns_of(namespace[frame])
        known = columns[frame]
        if known is not None and key not in known and key not in reading.stored:
            yield _Finding(use._replace(node=use.node.slice), f"`{frame}` has no column {key!r}", key, known)


def _module_at(node: ast.expr, scope: _Scope, reading: _Reading, namespace: Mapping[str, Any]) -> ModuleType | None:
    """The module that `pd` or `np.linalg` is; types are compared, since a user's object may lie about its class."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or not reading.stored.isdisjoint(attributes):
        return None
    home = scope.home(node.id)
    value = namespace.get(node.id) if home is None else None
    if home and len(origins := home.bound[node.id]) == 1 and (origin := next(iter(origins))):
        value = sys.modules.get(origin[0])
        attributes += [origin[1]] if origin[1] else []
    while attributes and type(value) is ModuleType:
        name = attributes.pop()
        value = vars(value)[name] if name in vars(value) else sys.modules.get(f"{_title_of(value)}.{name}")
    return None if attributes or type(value) is not ModuleType else value


def _title_of(module: ModuleType) -> str:
    title = vars(module).get("__name__")
    return title if type(title) is str else ""


def _missing_part(name: str) -> str | None:
    """The first part of a module's name that cannot be imported; what is not imported yet is not looked into."""
    for end in (match.start() for match in re.finditer(r"\.|\Z", name)):
        part = name[:end]
        if part not in sys.modules:
            try:
                return None if importlib.util.find_spec(part) else part
            except ModuleNotFoundError:  # what it is to be part of is no package
                return part
            except Exception:  # a finder's own trouble
                return None
        if sys.modules[part] is None:  # how an import is forbidden
            return part
    return None


def _columns_of(frame: Any) -> list[str] | None:
    """The text columns of a pandas frame; `None` for all else, and where a text may mean a label of another type."""
    pandas = sys.modules.get("pandas")
    if type(pandas) is not ModuleType or type(frame) is not vars(pandas).get("DataFrame"):
        return None
    try:
        labels = [label[0] if type(label) is tuple and label else label for label in frame.columns]
    except Exception:  # a frame that is half made
        return None
    is_plain = all(issubclass(type(label), str | int | float) for label in labels)
    return [str.__str__(label) for label in labels if issubclass(type(label), str)] if is_plain else None


def _suggest(word: str, known: Iterable[str]) -> str:
    """The end of a message: the known words that are close, or nothing."""
    words = [k for k in list(known) if type(k) is str and k.isprintable() and k != word]
    words = [k for k in dict.fromkeys(words) if word.startswith("_") or not k.startswith("_")][:_MAX_KNOWN]
    close = difflib.get_close_matches(word, words, 3, cutoff=0.7)
    close = close or [k for k in words if k.lower() == word.lower()][:3]
    return f": the nearest are {', '.join(close)}" if close else ""
