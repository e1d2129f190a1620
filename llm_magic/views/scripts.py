"""The view modules as one script: a widget's page takes a single module, and a bundler would be a tool to install."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "script"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=const|class|function)", re.MULTILINE)
_DEFAULT = re.compile(r"^export default (?=.*;\n\Z)", re.MULTILINE)
# a page gets a widget's code with each widget: what the first one made of it serves all, compiled and warm
_SHARED = """\
function define() {{
{script}
addStyles({styles});
return {default};
}}
export default (globalThis[Symbol.for("{key}")] ??= define());
"""


@cache
def read_script(entry: str) -> str:
    """A module with all that it imports before it, each once; all share one scope."""
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", _read(name))) for name in order_modules(entry))


@cache
def read_widget(entry: str) -> str:
    """The same as a widget's module; its code and styles are made once a page, whatever the number of widgets."""
    script, styles = read_script(entry), json.dumps(_read("answer.css"))
    script, default = _DEFAULT.split(script)
    key = f"llm_magic {hashlib.sha256((script + styles).encode()).hexdigest()}"
    return _SHARED.format(script=script.rstrip(), styles=styles, default=default.rstrip().rstrip(";"), key=key)


def order_modules(entry: str, done: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names of a module's imports, theirs before them, and its own."""
    for name in _IMPORT.findall(_read(entry)):
        if name not in done:
            done = order_modules(name, done)
    return (*done, entry)


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
