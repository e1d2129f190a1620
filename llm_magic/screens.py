"""Where answers appear: under a notebook's cell, or in a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from IPython import get_ipython
from IPython.display import display

from llm_magic.errors import OptionError
from llm_magic.faces import FACES
from llm_magic.generation import Generation, Samples, Token
from llm_magic.progress import follow_steps, format_bar, show_progress
from llm_magic.views import answer, columns
from llm_magic.views.bundle import make_bundle
from llm_magic.views.safe import escape_text

if TYPE_CHECKING:
    from llm_magic.backends.stream import Batch, Stream

UPDATE_S = 0.1  # a notebook's running answer is drawn anew at most so often


class NotebookScreen:
    """Below the cell: a live view, or HTML that is replaced as the answer grows. What is left in the end is static.

    `is_live` says that a page is there to draw a widget.
    """

    def __init__(self, is_live: bool = False):
        self.is_live = is_live

    def follow(self, stream: Stream, is_streamed: bool, notes: Sequence[str], has_ui: bool = False) -> Generation:
        """Show a generation while it is made; returns it when it is done."""
        if has_ui or (is_streamed and self.is_live):
            return self._follow_live(stream, stream, lambda: stream.generation, notes, has_ui)
        handle, drawn_at = None, 0.0
        for _ in stream:
            now = time.monotonic()
            if is_streamed and now - drawn_at >= UPDATE_S:
                text = answer.show_controls("".join(token.text for token in stream.tokens))
                html = answer.render_running_html(stream.prompt, stream.tokens)
                handle = _draw(handle, {"text/plain": text, "text/html": html})
                drawn_at = now
        generation = stream.generation
        _draw(handle, make_bundle(generation, notes))
        return generation

    def follow_samples(self, batch: Batch, is_streamed: bool, notes: Sequence[str], has_ui: bool = False) -> Samples:
        """Show several generations side by side while they are made; returns them when they are done."""
        if has_ui or (is_streamed and self.is_live):
            return self._follow_live(batch.streams, batch, lambda: Samples(batch.generations), notes, has_ui)
        handle, drawn_at = None, 0.0
        for _ in batch:
            now = time.monotonic()
            if is_streamed and now - drawn_at >= UPDATE_S:
                runs = [(stream.prompt, stream.tokens) for stream in batch.streams]
                text, html = columns.render_running_text(runs), columns.render_running_html(runs)
                handle = _draw(handle, {"text/plain": text, "text/html": html})
                drawn_at = now
        samples = Samples(batch.generations)
        _draw(handle, make_bundle(samples, notes))
        return samples

    def _follow_live(
        self,
        streams: Stream | Sequence[Stream],
        steps: Iterable[Token],
        read_result: Callable[[], Any],
        notes: Sequence[str],
        has_ui: bool,
    ) -> Any:
        """Run `steps` behind a live view; with the panel it stays, else it leaves the static face."""
        from llm_magic.backends.stream import Stream  # here, since they bring torch and ipywidgets
        from llm_magic.widgets.answer import AnswerView

        view = AnswerView(streams, notes=notes)
        if has_ui:
            from llm_magic.widgets.panel import SamplingPanel

            running = [streams] if isinstance(streams, Stream) else list(streams)
            panel = SamplingPanel(start=running[0].sampling)
            panel.observe(lambda change: view.follow(running, change["old"], change["new"]), "value")
            view.show(above=panel)
        else:
            view.show()
        view.wait_for_page()
        try:
            for _ in steps:
                view.flush()
        finally:
            result = read_result()
            if has_ui:
                view.finish()
            else:
                view.replace(make_bundle(result, notes))
        return result

    def show(self, value: Any, notes: Sequence[str] = ()) -> None:
        """Show a value, with notes below it."""
        _draw(None, make_bundle(value, notes))

    def make_view(self, value: Any) -> Any:
        """A live view of a value."""
        return value.view()

    def make_panel(self, controls: Any) -> Any:
        """The sampling controls of an object's traits."""
        from llm_magic.widgets.panel import SamplingPanel

        return SamplingPanel(controls)

    def show_widget(self, widget: Any) -> None:
        """Show a widget."""
        display(widget)

    def insert(self, code: str, is_replacing: bool) -> None:
        """Put code into a new cell below, or into the running one; it is not run."""
        _insert(code, is_replacing)

    def show_probabilities(self, value: Any) -> None:
        """Show a table of a text's tokens."""
        text, html = answer.render_probabilities_text(value), answer.render_probabilities_html(value)
        _draw(None, {"text/plain": text, "text/html": html})

    def say(self, text: str) -> None:
        """Show a line."""
        text = answer.show_controls(text)
        html = f'<div style="white-space:pre-wrap">{escape_text(text)}</div>'
        _draw(None, {"text/plain": text, "text/html": html})

    def track(self, label: str, steps: Generator[float, None, Any]) -> Any:
        """Run `steps` behind a progress bar; returns its value."""
        handle = None

        def draw(share: float, elapsed_s: float) -> None:
            nonlocal handle
            bar = f'{escape_text(label)} <progress value="{share:.3f}"></progress> {share:.0%}'
            handle = _draw(handle, {"text/plain": format_bar(label, share, elapsed_s).rstrip(), "text/html": bar})

        def leave(line: str) -> None:
            _draw(handle, {"text/plain": line, "text/html": escape_text(line)})

        return follow_steps(label, steps, draw, leave)


class TerminalScreen:
    """Text as it comes, tinted where the terminal has colours."""

    def __init__(self, has_colours: bool | None = None):
        is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.has_colours = is_terminal and "NO_COLOR" not in os.environ if has_colours is None else has_colours

    def follow(self, stream: Stream, is_streamed: bool, notes: Sequence[str], has_ui: bool = False) -> Generation:
        """Show a generation while it is made; returns it when it is done."""
        _refuse_widgets(has_ui)
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

    def follow_samples(self, batch: Batch, is_streamed: bool, notes: Sequence[str], has_ui: bool = False) -> Samples:
        """Show several generations, one below the other, each when it and those before it are done."""
        _refuse_widgets(has_ui)
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

    def make_view(self, value: Any) -> Any:
        """There are no widgets in a terminal."""
        _refuse_widgets(True)

    make_panel = make_view

    def show_widget(self, widget: Any) -> None:
        """Never reached: none is made."""

    def insert(self, code: str, is_replacing: bool) -> None:
        """Put code where the next input is typed; it is not run."""
        _insert(code, is_replacing)

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
        self.track, self.make_view, self.make_panel = screen.track, screen.make_view, screen.make_panel

    def follow(self, stream: Stream, is_streamed: bool, notes: Sequence[str], has_ui: bool = False) -> Generation:
        for _ in stream:
            pass
        return stream.generation

    def follow_samples(self, batch: Batch, is_streamed: bool, notes: Sequence[str], has_ui: bool = False) -> Samples:
        batch.finish()
        return Samples(batch.generations)

    def show(self, value: Any, notes: Sequence[str] = ()) -> None:
        pass

    def show_widget(self, widget: Any) -> None:
        pass

    def insert(self, code: str, is_replacing: bool) -> None:
        _insert(code, is_replacing)

    def show_probabilities(self, value: Any) -> None:
        pass

    def say(self, text: str) -> None:
        pass


Screen = NotebookScreen | TerminalScreen | QuietScreen


def _insert(code: str, is_replacing: bool) -> None:
    get_ipython().set_next_input(code, replace=is_replacing)


def _refuse_widgets(are_asked_for: bool) -> None:
    if are_asked_for:
        raise OptionError("a terminal shows no widgets", "use a notebook; %llm next and --probs show the same as text")


def _bracket(notes: Sequence[str]) -> list[str]:
    return [f"[{answer.show_controls(note)}]" for note in notes]


def _draw(handle, bundle: dict[str, Any]):
    """Show a bundle of MIME types, or put it in the place of an earlier one."""
    if handle is None:
        return display(bundle, raw=True, display_id=True)
    handle.update(bundle, raw=True)
    return handle
