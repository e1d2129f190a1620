"""Stop texts in a stream of tokens: found also where they span tokens, and never shown in part.

A token that ends in half a character is held back too, until the character is whole or the text ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from llm_magic.generation import Token


class StopFinder:
    """Holds tokens back while their text could be the beginning of a stop text, or is half a character.

    `push` returns the tokens that are free to be shown; `is_found` says that a stop text came: then
    what was returned is all, and the token in which it began keeps what stands before it.
    """

    def __init__(self, stop_texts: Sequence[str]):
        self._stop_texts = stop_texts
        self._held: list[tuple[Token, int]] = []  # with the bytes of an unfinished character behind each
        self.is_found = False

    def push(self, token: Token, open_bytes: int) -> list[Token]:
        """Take one more token, behind which `open_bytes` of an unfinished character are waiting."""
        self._held.append((token, open_bytes))
        text = "".join(held.text for held, _ in self._held)
        starts = [start for stop in self._stop_texts if (start := text.find(stop)) >= 0]
        if starts:
            self.is_found = True
            return _cut(self._held, min(starts))
        free, n_characters = 0, len(text) - self._overlap(text)
        for count, (held, open_behind) in enumerate(self._held, 1):
            n_characters -= len(held.text)
            if n_characters < 0:
                break
            if open_behind == 0:
                free = count
        return self._take(free)

    def flush(self) -> list[Token]:
        """What is still held back, at the end."""
        return self._take(len(self._held))

    def _take(self, n: int) -> list[Token]:
        taken, self._held = self._held[:n], self._held[n:]
        return [token for token, _ in taken]

    def _overlap(self, text: str) -> int:
        """How much of the text's end is the beginning of a stop text."""
        longest = max(map(len, self._stop_texts), default=1) - 1
        for n in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-n:]) for stop in self._stop_texts):
                return n
        return 0


def _cut(held: list[tuple[Token, int]], n_characters: int) -> list[Token]:
    """The tokens of the first characters; the last may keep a part of its text, and of its bytes."""
    kept: list[Token] = []
    open_bytes = 0
    for token, open_behind in held:
        text = token.text[:n_characters]
        if len(text) < len(token.text):
            if text:
                data = token.bytes[: max(0, len(text.encode()) - open_bytes)]
                return [*kept, dataclasses.replace(token, text=text, bytes=data)]
            break
        n_characters -= len(text)
        open_bytes = open_behind
        kept.append(token)
    while open_bytes and kept:  # the beginning of a character that was cut off
        last = kept.pop()
        if len(last.bytes) > open_bytes:
            kept.append(dataclasses.replace(last, bytes=last.bytes[:-open_bytes]))
        open_bytes = max(0, open_bytes - len(last.bytes))
    return kept
