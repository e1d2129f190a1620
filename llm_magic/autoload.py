"""`python -m llm_magic enable`: one line in the user's IPython profile loads the extension; `disable` takes it out."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

LINE = b'c.InteractiveShellApp.extensions.append("llm_magic")  # python -m llm_magic enable'
PROFILE = "default"


def profile_file() -> Path:
    """The configuration of IPython's default profile, which kernels read too."""
    from IPython.paths import get_ipython_dir

    return Path(get_ipython_dir()) / f"profile_{PROFILE}" / "ipython_config.py"


def enable(path: Path) -> bool:
    """Put the line behind all others; False where it is there already. Nothing else of the file is touched."""
    before = _read(path)
    if LINE in _lines(before):
        return False
    ending = b"\r\n" if b"\r\n" in before else b"\n"
    is_whole = not before or before.endswith(b"\n")
    _write(path, before + (LINE + ending if is_whole else ending + LINE))
    return True


def disable(path: Path) -> bool:
    """Take the line out; False where it is not there. A file that held nothing else goes."""
    before = _read(path)
    lines = before.splitlines(keepends=True)
    after = b"".join(line for line in lines if line.strip() != LINE)
    if lines and lines[-1] == LINE:  # it was put behind a line without an end
        after = after.removesuffix(b"\n").removesuffix(b"\r")
    if after == before:
        return False
    if after:
        _write(path, after)
    else:
        path.unlink()
    return True


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _lines(data: bytes) -> list[bytes]:
    return [line.strip() for line in data.splitlines()]


def _write(path: Path, data: bytes) -> None:
    """All or nothing, and where the file is a link, what that points to."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(draft, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
