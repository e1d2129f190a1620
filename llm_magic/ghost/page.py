"""Ghost text in a notebook's page: a comm on which the page asks at each pause of typing.

Either side may open it: the kernel on `%llm complete on`, the page where its setting says so. The page sends an `id`
and fields of `Request`; it hears `{"id", "text", "is_done"}`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from comm import create_comm

from llm_magic.ghost.request import Request
from llm_magic.ghost.worker import Make, Worker
from llm_magic.subshells import answer_on_subshells

TARGET = "llm_magic.complete"
SEND_S = 0.05  # texts that grow are sent at most so often
_NUMBERS = {
    "max_tokens": (int, 1, 256),
    "max_lines": (int, 1, 20),
    "context_tokens": (int, 16, 4096),
    "least_probability": (float, 0.0, 1.0),
}


class PageGhost:
    """Ghost text in the pages of one kernel."""

    where = "in this notebook: a pause of typing shows it, Tab takes it (where the page has llm_magic's extension)"

    def __init__(self, kernel: Any, make: Make):
        self._kernel, self._make = kernel, make
        self._worker: Worker | None = None
        self._comms: dict[str, Any] = {}
        kernel.comm_manager.register_target(TARGET, self._take)

    @property
    def is_on(self) -> bool:
        return bool(self._comms)

    def switch_on(self) -> None:
        """Let pages ask."""
        if not self.is_on:
            self._listen(create_comm(target_name=TARGET))

    def switch_off(self) -> None:
        """Hear no more of pages, and end the worker."""
        comms, self._comms = self._comms, {}
        for comm in comms.values():
            comm.close()
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def remove(self) -> None:
        """Nothing is left of it in the kernel."""
        self.switch_off()
        self._kernel.comm_manager.unregister_target(TARGET, self._take)

    def _take(self, comm: Any, message: Mapping[str, Any]) -> None:
        """A page has opened a comm: its setting says so."""
        self._listen(comm)

    def _listen(self, comm: Any) -> None:
        self._worker = self._worker or Worker(self._make)
        self._comms[comm.comm_id] = comm
        answer_on_subshells(comm)
        comm.on_msg(lambda message: self._hear(comm, message["content"]["data"]))
        comm.on_close(lambda message: self._comms.pop(comm.comm_id, None))

    def _hear(self, comm: Any, data: Mapping[str, Any]) -> None:
        """May run on a thread beside the one that runs cells; returns at once."""
        if self._worker is None:
            return
        sent_at = 0.0

        def deliver(text: str, is_done: bool) -> None:
            nonlocal sent_at
            now = time.monotonic()
            if is_done or now - sent_at >= SEND_S:
                sent_at = now
                comm.send({"id": data["id"], "text": text, "is_done": is_done})

        self._worker.ask(_read_request(data), deliver)


def _read_request(data: Mapping[str, Any]) -> Request:
    """A page's request, its numbers brought into range: a page's settings are whatever the user typed."""
    fields: dict[str, Any] = {name: str(data.get(name, "")) for name in ("before", "after")}
    fields["cells"] = tuple(map(str, data.get("cells", ())))
    for name, (kind, least, most) in _NUMBERS.items():
        if isinstance(value := data.get(name), int | float):
            fields[name] = kind(max(least, min(most, value)))
    return Request(**fields)
