"""What was asked and answered, in a SQLite file of this machine: without secrets, and never above a size."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from llm_magic.errors import OptionError
from llm_magic.scrub import scrub_value, write_text

VERSION = 1
WAIT_SECONDS = 10.0
_TEXTS = ("question", "prompt", "answer", "model", "verb", "finish_reason", "mode", "sha256")
_JSON = ("sampling", "form", "extra")
_COLUMNS = ("at", "is_scrubbed", "prompt_ids", "token_ids", *_TEXTS, *_JSON)
_CREATE = f"CREATE TABLE records (number INTEGER PRIMARY KEY AUTOINCREMENT, {', '.join(_COLUMNS)})"
_INSERT = f"INSERT INTO records ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SELECT = f"SELECT number, {', '.join(_COLUMNS)} FROM records"
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """One question with its answer; `is_scrubbed` says that a secret was removed, and the ids with it."""

    number: int
    at: str
    model: str
    verb: str
    question: str
    prompt: str
    answer: str
    finish_reason: str
    sampling: dict[str, Any]
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    form: dict[str, Any] | None
    mode: str
    sha256: str | None
    is_scrubbed: bool
    extra: dict[str, Any]


class _Unreadable(Exception):
    """The file is no history that this version reads; why."""


class History:
    """The records in the file `path`; above `limit_bytes` the oldest go.

    All state is in the file, which several processes may share; it is open only during a call. A file that cannot be
    read is kept beside it under another name, which `take_notice` tells.

    >>> import tempfile
    >>> history = History(Path(tempfile.mkdtemp()) / "history.sqlite")
    >>> history.add(question="Why?", answer="Therefore.")
    1
    >>> history.find("WHY")[0].answer
    'Therefore.'
    """

    def __init__(self, path: Path, limit_bytes: int = 50 << 20):
        self.path, self.limit_bytes = Path(path), limit_bytes
        self.notice = ""

    @property
    def n_bytes(self) -> int:
        """What the file takes, with its journal where one is written."""
        return sum(_size(self.path.with_name(self.path.name + end)) for end in ("", "-journal", "-wal"))

    def take_notice(self) -> str:
        """What is to be told once, or nothing."""
        notice, self.notice = self.notice, ""
        return notice

    def add(
        self,
        *,
        question: str = "",
        prompt: str = "",
        answer: str = "",
        model: str = "",
        verb: str = "",
        finish_reason: str = "",
        sampling: Mapping[str, Any] | None = None,
        prompt_ids: Iterable[int] = (),
        token_ids: Iterable[int] = (),
        form: Mapping[str, Any] | None = None,
        mode: str = "",
        sha256: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> int:
        """Keep a record, without its secrets. Returns its number."""
        texts = {"question": question, "prompt": prompt, "answer": answer, "model": model, "verb": verb}
        texts |= {"finish_reason": finish_reason, "mode": mode}
        values = {"sampling": sampling or {}, "form": form, "extra": extra or {}, "sha256": sha256}
        kept, n_removed = scrub_value({name: write_text(text) for name, text in texts.items()} | values)
        kept |= {name: json.dumps(kept[name]) for name in _JSON if kept[name] is not None}
        kept |= {"prompt_ids": b"", "token_ids": b""}
        if not n_removed:  # they would spell the secret
            kept |= {"prompt_ids": _pack(prompt_ids), "token_ids": _pack(token_ids)}
        kept = _fit(kept, max(1024, (self.limit_bytes - 32768) * 3 // 4))  # the file needs room for more
        kept |= {"is_scrubbed": int(n_removed > 0), "at": datetime.now().astimezone().isoformat(timespec="seconds")}

        def insert(connection: sqlite3.Connection) -> int:
            number = connection.execute(_INSERT, [kept[name] for name in _COLUMNS]).lastrowid
            self._trim(connection, number)
            return number

        return self._write(insert)

    def find(self, term: str = "", limit: int = 20) -> list[Record]:
        """The newest records whose question, prompt or answer have all words of `term`, in any case."""
        words = _fold(term).split()
        found: list[Record] = []

        def look(connection: sqlite3.Connection) -> list[Record]:
            found.clear()
            for row in connection.execute(f"{_SELECT} ORDER BY number DESC"):
                if len(found) >= limit:
                    break
                record = _as_record(row)
                text = _fold("\0".join((record.question, record.prompt, record.answer))) if words else ""
                if all(word in text for word in words):
                    found.append(record)
            return found

        return self._read(look, [])

    def get(self, number: int) -> Record:
        """The record of that number."""
        wanted = number if isinstance(number, int) and 0 < number < 1 << 63 else 0

        def look(connection: sqlite3.Connection) -> tuple[Record | None, tuple]:
            row = connection.execute(f"{_SELECT} WHERE number = ?", (wanted,)).fetchone()
            known = connection.execute("SELECT count(*), min(number), max(number) FROM records").fetchone()
            return _as_record(row) if row else None, known

        record, (n, first, last) = self._read(look, (None, (0, 0, 0)))
        if record is not None:
            return record
        there_are = f"there is {first}" if n == 1 else f"there are {n}, from {first} to {last}"
        raise OptionError(f"there is no record {str(number)[:40]}", there_are if n else "the history is empty")

    def clear(self) -> int:
        """Forget all records. Returns how many there were; their numbers are not given again."""

        def delete(connection: sqlite3.Connection) -> int:
            n = connection.execute("DELETE FROM records").rowcount
            _give_back(connection)
            return n

        return self._write(delete) if os.path.exists(self.path) else 0

    def _trim(self, connection: sqlite3.Connection, newest: int) -> None:
        """Drop the oldest records until the file is small enough, and give their space back."""
        page_bytes = _pragma(connection, "page_size")
        oldest = "DELETE FROM records WHERE number = (SELECT min(number) FROM records) AND number < ?"
        while True:
            n_used = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
            if n_used * page_bytes <= self.limit_bytes or not connection.execute(oldest, (newest,)).rowcount:
                break
        if _pragma(connection, "page_count") * page_bytes > self.limit_bytes:
            _give_back(connection)

    def _read(self, look: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        def read(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN")
            return look(connection) if _is_begun(connection) else nothing

        return self._open(read, "read") if os.path.exists(self.path) else nothing

    def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        def write(connection: sqlite3.Connection) -> T:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # is heeded before there is a table
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            if not _is_begun(connection):
                connection.execute(_CREATE)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            result = change(connection)
            connection.execute("COMMIT")
            return result

        return self._open(write, "written")

    def _open(self, work: Callable[[sqlite3.Connection], T], done: str) -> T:
        """Do some work on the open file; once more with a new one where it cannot be read."""
        for attempt in itertools.count(1):
            seen = None
            try:
                self._make_file()
                seen = _identify(self.path)
                with contextlib.closing(_connect(self.path)) as connection:
                    return work(connection)
            except (_Unreadable, OSError, sqlite3.Error) as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if attempt > 3 or isinstance(error, OSError):
                    raise self._explain(done, error) from None
                if _identify(self.path) != seen:
                    continue  # another process has put it aside
                if code not in _DAMAGE and not isinstance(error, _Unreadable):
                    raise self._explain(done, error) from None
                try:
                    self._set_aside(seen, error)
                except (OSError, sqlite3.Error) as problem:
                    raise self._explain(done, f"{error}; it cannot be put aside: {problem}") from None

    def _make_file(self) -> None:
        """An empty file that only its owner reads, if there is none."""
        if not os.path.exists(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        if os.name == "posix" and self.path.is_file() and self.path.stat().st_mode & 0o077:
            with contextlib.suppress(OSError):  # it may belong to another
                self.path.chmod(0o600)

    def _set_aside(self, seen: tuple[int, int], why: Exception) -> None:
        """Give the file another name, unless another process has done it: hence the lock, which any system has."""
        with contextlib.closing(_connect(self.path.with_suffix(".lock"), "rwc")) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            if _identify(self.path) != seen:
                return
            n = 1
            while (kept := self.path.with_name(f"{self.path.stem}.damaged-{n}{self.path.suffix}")).exists():
                n += 1
            for end in ("-journal", "-wal", "-shm"):  # first, since a new file would be mended with them
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{end}", f"{kept}{end}")
            os.rename(self.path, kept)
        self.notice = f"the history could not be read ({why}): it is kept as {kept.name}, and a new one was begun"

    def _explain(self, done: str, why: Exception | str) -> OptionError:
        advice = (
            "try again" if "locked" in str(why) else "set LLM_MAGIC_DATA to a folder that can be written and has room"
        )
        return OptionError(f"the history {self.path} cannot be {done} ({why})", advice)


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=WAIT_SECONDS, isolation_level=None
    )
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return connection


def _is_begun(connection: sqlite3.Connection) -> bool:
    """Whether there is a table of records yet; raises where the file is something else."""
    version = _pragma(connection, "user_version")
    if version == VERSION:
        return True
    if version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise _Unreadable("a newer version wrote it" if version > VERSION else "it is of another program")
    return False


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _give_back(connection: sqlite3.Connection) -> None:
    """Cut the free pages off the file: one for each call, as Python runs this statement."""
    for _ in range(_pragma(connection, "freelist_count")):
        connection.execute("PRAGMA incremental_vacuum")


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _fit(row: dict[str, Any], room_bytes: int) -> dict[str, Any]:
    """The row as it is, or with its texts cut where it is too large; ids of a cut text are of no use."""
    if sum(len(v.encode() if isinstance(v, str) else v) for v in row.values() if v is not None) <= room_bytes:
        return row
    cut = {name: row[name] and _cut(row[name], room_bytes // 64) for name in _TEXTS}
    cut |= {name: _cut(row[name], room_bytes // 4) for name in ("question", "prompt", "answer")}
    for name in _JSON:
        cut[name] = row[name] if len(row[name] or "") <= room_bytes // 20 else '{"cut": true}'
    return cut | {"prompt_ids": b"", "token_ids": b""}


def _cut(text: str, limit_bytes: int) -> str:
    kept = text.encode()[:limit_bytes].decode("utf-8", "ignore")
    return text if len(kept) == len(text) else f"{kept}\n[cut: {len(kept)} of {len(text)} characters are kept]"


def _pack(ids: Iterable[int]) -> bytes:
    ids = tuple(ids)
    try:
        return zlib.compress(struct.pack(f"<{len(ids)}I", *ids), 1) if ids else b""
    except (struct.error, TypeError) as error:
        raise OptionError(f"the ids cannot be kept ({error})", "give whole numbers from 0 to 4294967295") from None


def _unpack(data: Any) -> tuple[int, ...]:
    try:
        raw = zlib.decompress(data) if data else b""
        return struct.unpack(f"<{len(raw) // 4}I", raw)
    except (zlib.error, struct.error, TypeError):
        return ()


def _as_record(row: tuple) -> Record:
    values = dict(zip(("number", *_COLUMNS), row, strict=True))
    for name in _JSON:
        try:
            values[name] = json.loads(values[name]) if values[name] is not None else None
        except (ValueError, TypeError):
            values[name] = None if name == "form" else {}
    for name in ("at", *_TEXTS):
        values[name] = None if name == "sha256" and values[name] is None else write_text(values[name])
    for name in ("prompt_ids", "token_ids"):
        values[name] = _unpack(values[name])
    return Record(**values | {"is_scrubbed": bool(values["is_scrubbed"])})


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", str(text)).casefold()
