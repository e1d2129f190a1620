"""Stop texts in a stream of tokens: found also where they span tokens, and never shown in part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from llm_magic.generation import Token


class StopFinder:
    """Holds tokens back while their text could be the beginning of a stop text.

    `push` returns the tokens that are free to be shown; `is_found` says that a stop text came: then
    what was returned is all, and the token in which it began keeps what stands before it.
    """

    def __init__(self, stop_texts: Sequence[str]):
        self._stop_texts = stop_texts
        self._held: list[Token] = []
        self.is_found = False

    def push(self, token: Token) -> list[Token]:
        self._held.append(token)
        if not self._stop_texts:
            return self.flush()
        text = "".join(held.text for held in self._held)
        starts = [start for stop in self._stop_texts if (start := text.find(stop)) >= 0]
        if starts:
            self.is_found = True
            return _cut(self._take(len(self._held)), min(starts))
        free, n_characters = 0, len(text) - self._overlap(text)
        for held in self._held:
            n_characters -= len(held.text)
            if n_characters < 0:
                break
            free += 1
        return self._take(free)

    def flush(self) -> list[Token]:
        """What is still held back, at the end."""
        return self._take(len(self._held))

    def _take(self, n: int) -> list[Token]:
        taken, self._held = self._held[:n], self._held[n:]
        return taken

    def _overlap(self, text: str) -> int:
        """How much of the text's end is the beginning of a stop text."""
        longest = max(map(len, self._stop_texts)) - 1
        for n in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-n:]) for stop in self._stop_texts):
                return n
        return 0


def _cut(tokens: list[Token], n_characters: int) -> list[Token]:
    """The tokens of the first characters; the last may keep a part of its text, and of its bytes."""
    kept: list[Token] = []
    open_bytes = 0  # of a character whose last byte has not come: its text stands at a later token
    for token in tokens:
        if len(token.text) > n_characters:
            text = token.text[:n_characters]
            if text:
                data = token.bytes[: max(0, len(text.encode()) - open_bytes)]
                return [*kept, dataclasses.replace(token, text=text, bytes=data)]
            break
        n_characters -= len(token.text)
        open_bytes = 0 if token.text else open_bytes + len(token.bytes)
        kept.append(token)
    while kept and not kept[-1].text:  # bytes of a character that was cut off
        kept.pop()
    return kept
