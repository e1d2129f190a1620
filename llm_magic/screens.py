"""Where answers appear: under a notebook's cell, or in a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from IPython.display import display

from llm_magic.generation import FACES, Generation, Samples, Token
from llm_magic.progress import follow_steps, format_bar, show_progress
from llm_magic.views import answer, columns
from llm_magic.views.safe import escape_text

if TYPE_CHECKING:
    from llm_magic.backends.stream import Batch, Stream

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

    def follow_samples(self, batch: Batch, is_streamed: bool, notes: Sequence[str]) -> Samples:
        """Show several generations side by side while they are made; returns them when they are done."""
        handle, drawn_at = None, 0.0
        for _ in batch:
            now = time.monotonic()
            if is_streamed and now - drawn_at >= UPDATE_S:
                runs = [(stream.prompt, stream.tokens) for stream in batch.streams]
                handle = _draw(handle, columns.render_running_text(runs), columns.render_running_html(runs))
                drawn_at = now
        samples = Samples(batch.generations)
        _draw(handle, columns.render_text(samples, notes), columns.render_html(samples, notes))
        return samples

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

    def follow_samples(self, batch: Batch, is_streamed: bool, notes: Sequence[str]) -> Samples:
        """Show several generations, one below the other, each when it and those before it are done."""
        render, n_shown = answer.render_ansi if self.has_colours else answer.render_plain, 0

        def write_done() -> None:
            nonlocal n_shown
            while n_shown < len(batch.streams) and batch.streams[n_shown].finish_reason != "interrupted":
                self._write_sample(batch.streams[n_shown].generation, render)
                n_shown += 1

        for _ in batch:
            if is_streamed:
                write_done()
        samples = Samples(batch.generations)
        for generation in samples[n_shown:]:
            self._write_sample(generation, render)
        lines = _bracket([columns.describe_samples(samples), *notes])
        self._write("".join(self._dim(line) + "\n" for line in lines))
        return samples

    def _write_sample(self, generation: Generation, render: Callable[[Token], str]) -> None:
        self._write(self._dim(columns.name_sample(generation)) + "\n")
        self._write(self._dim(answer.show_controls(answer.continued_text(generation.prompt))))
        self._write("".join(map(render, generation.tokens)) + "\n" + self._dim(answer.render_status(generation)) + "\n")

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

    def follow_samples(self, batch: Batch, is_streamed: bool, notes: Sequence[str]) -> Samples:
        batch.finish()
        return Samples(batch.generations)

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
