"""Ghost text in terminal IPython: what was typed before first, then the model; taken with the keys that IPython has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from IPython.terminal.shortcuts.auto_suggest import NavigableAutoSuggestFromHistory
from prompt_toolkit.auto_suggest import Suggestion
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document

from llm_magic.ghost.request import Request
from llm_magic.ghost.worker import Make, Worker

PAUSE_S = 0.2  # of typing, before the model is asked
LOOK_S = 0.05  # how often it is looked whether the text is still the same
N_INPUTS = 30  # earlier ones that the model sees


class TerminalGhost:
    """Ghost text in one terminal shell."""

    where = "in this terminal: a pause of typing shows it, the right arrow key takes it"

    def __init__(self, shell: Any, make: Make):
        self._shell, self._make = shell, make
        self._suggester: _Suggester | None = None
        self._before: Any = None

    @property
    def is_on(self) -> bool:
        return self._suggester is not None

    def switch_on(self) -> None:
        """Put the model behind IPython's own suggestions."""
        if not self.is_on:
            self._before = self._shell.auto_suggest
            self._suggester = _Suggester(self._shell, Worker(self._make))
            self._put(self._suggester)

    def switch_off(self) -> None:
        """Put back what was there before."""
        if self._suggester is not None:
            self._suggester.worker.close()
            self._suggester = None
            self._put(self._before)

    remove = switch_off

    def _put(self, suggester: Any) -> None:
        shell = self._shell
        if isinstance(shell.auto_suggest, NavigableAutoSuggestFromHistory):
            shell.auto_suggest.disconnect()
        shell.auto_suggest = shell.pt_app.auto_suggest = suggester
        if isinstance(suggester, NavigableAutoSuggestFromHistory):
            suggester.connect(shell.pt_app)


class _Suggester(NavigableAutoSuggestFromHistory):
    """History first, then the model."""

    def __init__(self, shell: Any, worker: Worker):
        super().__init__()
        self.worker = worker
        self._ipython = shell

    async def get_suggestion_async(self, buffer: Buffer, document: Document) -> Suggestion | None:
        found = self.get_suggestion(buffer, document)
        if found or not document.text.strip() or not document.is_cursor_at_the_end:
            return found
        await asyncio.sleep(PAUSE_S)
        if buffer.document != document:
            return None
        suggestion = None
        async for text in self._ask(buffer, document):
            suggestion = buffer.suggestion = Suggestion(text)
            buffer.on_suggestion_set.fire()
        return suggestion

    async def _ask(self, buffer: Buffer, document: Document) -> AsyncIterator[str]:
        """The model's suggestions, as long as nothing is typed."""
        loop, texts = asyncio.get_running_loop(), asyncio.Queue()

        def deliver(text: str, is_done: bool) -> None:
            if not loop.is_closed():  # IPython makes a loop for each prompt
                loop.call_soon_threadsafe(texts.put_nowait, (text, is_done))

        inputs = self._ipython.history_manager.input_hist_raw[1:][-N_INPUTS:]
        self.worker.ask(Request(before=document.text, cells=tuple(inputs)), deliver)
        is_done = False
        try:
            while not is_done and buffer.document == document:
                try:
                    text, is_done = await asyncio.wait_for(texts.get(), LOOK_S)
                except TimeoutError:
                    continue
                line = text.split("\n", 1)[0]  # a terminal's suggestion is of one line
                if line and buffer.document == document:
                    yield line
        finally:
            if not is_done:
                self.worker.cancel()
