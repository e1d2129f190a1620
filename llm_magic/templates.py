"""Prompts that are saved under a name, with their options and holes: a JSON file each."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm_magic.errors import OptionError, nearest
from llm_magic.folders import data_folder

VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,59}")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)  # of Windows, whatever the ending


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt to be asked again; `holes` are the expressions of its text that must have a value by then."""

    name: str
    verb: str = ""
    text: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    holes: tuple[str, ...] = ()


def save(template: Template, folder: Path | None = None) -> Path:
    """Write a template, in place of one of the same name. Returns its file.

    >>> folder = Path(tempfile.mkdtemp())
    >>> path = save(Template("weather", text="How is {city}?", holes=("city",)), folder)
    >>> load("weather", folder).text, names(folder)
    ('How is {city}?', ['weather'])
    """
    folder = _folder(folder)
    target = folder / f"{_check_name(template.name)}.json"
    content = {"version": VERSION} | asdict(template)
    try:
        written = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"the template {template.name!r} cannot be saved ({error})", "give plain options") from None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = [path for path in _files(folder) if path.stem.lower() == template.name.lower() and path != target]
        handle, draft = tempfile.mkstemp(prefix=".", suffix=".draft", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(written.encode("utf-8", "backslashreplace"))  # half a surrogate pair, as JSON escapes it
            os.replace(draft, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        for other in others:  # the name in other letters: one template on any file system
            if not other.samefile(target):
                other.unlink(missing_ok=True)
    except OSError as error:
        raise OptionError(
            f"the template {template.name!r} cannot be saved in {folder} ({error.strerror or error})",
            "set LLM_MAGIC_DATA to a folder that can be written and has room",
        ) from None
    return target


def load(name: str, folder: Path | None = None) -> Template:
    """The template of that name, in capitals or not."""
    path = _find(name, folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, verb, text, options, holes = (content[key] for key in ("version", "verb", "text", "options", "holes"))
        if version != VERSION:
            raise ValueError(f"its version is {version!r}, not {VERSION}")
        if not (isinstance(verb, str) and isinstance(text, str) and isinstance(options, dict)):
            raise ValueError("verb and text must be texts, options an object")
        if not (isinstance(holes, list) and all(isinstance(hole, str) for hole in holes)):
            raise ValueError("holes must be a list of texts")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise OptionError(f"the template {path.stem!r} cannot be read ({why})", f"mend or remove {path}") from None
    return Template(path.stem, verb, text, options, tuple(holes))


def names(folder: Path | None = None) -> list[str]:
    """Of all templates, sorted."""
    return sorted(path.stem for path in _files(_folder(folder)))


def remove(name: str, folder: Path | None = None) -> None:
    """Delete a template."""
    path = _find(name, folder)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OptionError(f"{path} cannot be removed ({error.strerror or error})", "check its folder") from None


def check_filled(template: Template, put_in: Sequence[str]) -> None:
    """Raise where a hole of the template got no value; `put_in` are those that did.

    >>> check_filled(Template("weather", text="How is {city}?", holes=("city",)), ())
    Traceback (most recent call last):
    llm_magic.errors.OptionError: the template 'weather' lacks a value for {city}: set it first: city = …
    """
    for hole in template.holes:
        if hole not in put_in:
            variable = re.split(r"[.\[]", hole, maxsplit=1)[0]
            raise OptionError(
                f"the template {template.name!r} lacks a value for {{{hole}}}", f"set it first: {variable} = …"
            )


def _folder(folder: Path | None) -> Path:
    return data_folder() / "templates" if folder is None else Path(folder)


def _check_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(
            f"{str(name)[:80]!r} is no name for a template",
            "take up to 60 letters (a to z), digits, '-', '_' and '.', with a letter, digit or '_' first",
        )
    if _DEVICE.fullmatch(name):
        raise OptionError(f"{name!r} is no name for a template", "Windows keeps it for a device: take another")
    return name


def _files(folder: Path) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.suffix == ".json" and path.is_file()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OptionError(f"{folder} cannot be read ({error.strerror or error})", "check LLM_MAGIC_DATA") from None
    return [path for path in found if _NAME.fullmatch(path.stem)]


def _find(name: str, folder: Path | None) -> Path:
    _check_name(name)
    files = _files(_folder(folder))
    for path in sorted(files, key=lambda path: path.stem != name):  # the very name first
        if path.stem.lower() == name.lower():
            return path
    known = nearest(name, sorted(path.stem for path in files))
    raise OptionError(
        f"there is no template {name!r}", f"the nearest are {known}" if known else "none is saved here yet"
    )
