"""The import graph is the architecture: no cycle, and a file imports only what stands below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "llm_magic"

# top down, the way of a prompt; an entry is a module or a folder
ORDER = [
    "__main__", "autoload", "__init__", "magics", "completion", "verbs", "inputs", "grammar", "screens", "interrupts",
    "notebook", "chats", "widgets", "ghost", "views", "llm", "work", "records", "rows", "tasks", "options", "given",
    "interpolate", "study", "backends", "weights", "engine", "text", "progress", "generation", "comparison",
    "choices", "form", "pycode", "frames", "faces", "subshells", "history", "templates", "scrub", "errors", "folders",
    "visible",
]  # fmt: skip
UNRELATED = {("text", "engine"), ("engine", "text")}  # text knows no torch, the engine knows no text


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


def imports_of(source: str, known: set[str]) -> set[str]:
    """Modules of this package that a source imports anywhere, but for those it needs for its types alone."""
    found = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in known - {
            "llm_magic"
        }:  # the name of a module that is imported later
            found.add(node.value)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known or {node.module} & known
    return found


def graph() -> dict[str, set[str]]:
    known = set(modules())
    return {name: imports_of(path.read_text(encoding="utf-8"), known) - {name} for name, path in modules().items()}


def place(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_the_import_graph_has_no_cycle():
    list(TopologicalSorter(graph()).static_order())  # raises CycleError


def test_every_import_points_down():
    upward = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if ORDER.index(place(module)) > ORDER.index(place(other)) or (place(module), place(other)) in UNRELATED
    ]
    assert not upward


def test_an_upward_import_would_be_seen():
    planted = imports_of("def f():\n    from llm_magic.magics import load", {"llm_magic.magics"})
    assert planted == {"llm_magic.magics"}


@pytest.mark.parametrize("folder, banned", [("views", "IPython"), ("text", "torch"), ("engine", "tokenizers")])
def test_a_room_does_not_know_a_library(folder, banned):
    for path in (PACKAGE / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == banned for name in names), f"{path.name} imports {banned}"


@pytest.mark.parametrize("module", ["llm_magic", "llm_magic.magics"])
def test_importing_loads_no_torch(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'tokenizers', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_file_hides_two_ideas():
    long = {name: n for name, path in modules().items() if (n := len(path.read_text().splitlines())) > 500}
    assert not long
