"""A download in a process of its own: its progress is the growth of a folder, and a stop ends it at once."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Generator
from pathlib import Path

POLL_S = 0.1


def run_watched(
    command: list[str], environment: dict[str, str], folder: Path, total_bytes: int
) -> Generator[float, None, tuple[int, list[str]]]:
    """Run a command that writes `total_bytes` below `folder`; yields the share that is there.

    Returns the exit status, and the lines that it said.
    """
    before_bytes = _bytes_below(folder)
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                yield min(0.99, (_bytes_below(folder) - before_bytes) / max(total_bytes, 1))
                time.sleep(POLL_S)
        except BaseException:
            process.kill()
            raise
        reader.join()
    return process.returncode, [line.strip() for line in said if line.strip()]


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
        except OSError:  # gone between the listing and the look
            pass
    return total
