"""Where answers appear: under a notebook's cell, or in a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from IPython.display import display

from llm_magic.generation import FACES, Generation
from llm_magic.progress import follow_steps, format_bar, show_progress
from llm_magic.views import answer
from llm_magic.views.safe import escape_text

if TYPE_CHECKING:
    from llm_magic.backends.stream import Stream

UPDATE_S = 0.1  # a notebook's running answer is drawn anew at most so often


class NotebookScreen:
    """HTML under the cell, replaced as the answer grows; the last state is what a saved notebook keeps."""

    def follow(self, stream: Stream, is_streamed: bool, notes: Sequence[str]) -> Generation:
        """Show a generation while it is made; returns it when it is done."""
        handle, drawn_at = None, 0.0
        for _ in stream:
            now = time.monotonic()
            if is_streamed and now - drawn_at >= UPDATE_S:
                text = answer.show_controls("".join(token.text for token in stream.tokens))
                handle = _draw(handle, text, answer.render_running_html(stream.prompt, stream.tokens))
                drawn_at = now
        generation = stream.generation
        _draw(handle, answer.render_text(generation, notes), answer.render_html(generation, notes))
        return generation

    def show(self, value: Any, notes: Sequence[str] = ()) -> None:
        """Show a value, with notes below it."""
        face = FACES[type(value)]
        html = face.html(value) + answer.render_lines(notes)
        _draw(None, "\n".join([face.text(value), *_bracket(notes)]), html)

    def show_probabilities(self, value: Any) -> None:
        """Show a table of a text's tokens."""
        _draw(None, answer.render_probabilities_text(value), answer.render_probabilities_html(value))

    def say(self, text: str) -> None:
        """Show a line."""
        text = answer.show_controls(text)
        _draw(None, text, f'<div style="white-space:pre-wrap">{escape_text(text)}</div>')

    def track(self, label: str, steps: Generator[float, None, Any]) -> Any:
        """Run `steps` behind a progress bar; returns its value."""
        handle = None

        def draw(share: float, elapsed_s: float) -> None:
            nonlocal handle
            bar = f'{escape_text(label)} <progress value="{share:.3f}"></progress> {share:.0%}'
            handle = _draw(handle, format_bar(label, share, elapsed_s).rstrip(), bar)

        return follow_steps(label, steps, draw, lambda line: _draw(handle, line, escape_text(line)))


class TerminalScreen:
    """Text as it comes, tinted where the terminal has colours."""

    def __init__(self, has_colours: bool | None = None):
        is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.has_colours = is_terminal and "NO_COLOR" not in os.environ if has_colours is None else has_colours

    def follow(self, stream: Stream, is_streamed: bool, notes: Sequence[str]) -> Generation:
        """Show a generation while it is made; returns it when it is done."""
        render = answer.render_ansi if self.has_colours else answer.render_plain
        self._write(self._dim(answer.show_controls(answer.continued_text(stream.prompt))))
        self._write("".join(map(render, stream.tokens)))  # those that were given, where it continues
        n_written = len(stream.tokens)
        for token in stream:
            if is_streamed:
                self._write(render(token))
                n_written += 1
        generation = stream.generation
        self._write("".join(map(render, generation.tokens[n_written:])))
        self._write(
            ("" if generation.text.endswith("\n") else "\n") + self._dim(answer.render_status(generation, notes))
        )
        self._write("\n")
        return generation

    def show(self, value: Any, notes: Sequence[str] = ()) -> None:
        """Show a value, with notes below it."""
        if self.has_colours and hasattr(value, "tokens"):
            text = "".join(map(answer.render_ansi, value.tokens)) + "\n" + self._dim(answer.render_status(value))
        else:
            text = FACES[type(value)].text(value)
        self._write("\n".join([text, *map(self._dim, _bracket(notes))]) + "\n")

    def show_probabilities(self, value: Any) -> None:
        """Show a table of a text's tokens."""
        self._write(answer.render_probabilities_text(value) + "\n")

    def say(self, text: str) -> None:
        """Show a line."""
        self._write(answer.show_controls(text) + "\n")

    def track(self, label: str, steps: Generator[float, None, Any]) -> Any:
        """Run `steps` behind a progress bar; returns its value."""
        return show_progress(label, steps)

    def _write(self, text: str) -> None:
        if not text:
            return
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:  # a terminal whose encoding lacks a character
            sys.stdout.write(text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding))
        sys.stdout.flush()

    def _dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self.has_colours and text else text


class QuietScreen:
    """Shows nothing but progress."""

    def __init__(self, screen: Screen):
        self.track = screen.track

    def follow(self, stream: Stream, is_streamed: bool, notes: Sequence[str]) -> Generation:
        for _ in stream:
            pass
        return stream.generation

    def show(self, value: Any, notes: Sequence[str] = ()) -> None:
        pass

    def show_probabilities(self, value: Any) -> None:
        pass

    def say(self, text: str) -> None:
        pass


Screen = NotebookScreen | TerminalScreen | QuietScreen


def _bracket(notes: Sequence[str]) -> list[str]:
    return [f"[{answer.show_controls(note)}]" for note in notes]


def _draw(handle, text: str, html: str):
    """Show a bundle, or put it in the place of an earlier one."""
    bundle = {"text/plain": text, "text/html": html}
    if handle is None:
        return display(bundle, raw=True, display_id=True)
    handle.update(bundle, raw=True)
    return handle
