"""The live answer: a widget that follows what is generated, stops and steers it, and branches from any token."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anywidget
import traitlets
from IPython.display import display
from ipywidgets import VBox, Widget

from llm_magic.backends.stream import Stream
from llm_magic.errors import LLMError
from llm_magic.generation import Generation, Samples, Sampling, Score, replace_sampling
from llm_magic.subshells import answer_on_subshells
from llm_magic.views import answer
from llm_magic.views.bundle import make_bundle
from llm_magic.views.compare import find_differences
from llm_magic.views.feed import Feed, Part
from llm_magic.views.safe import show_controls
from llm_magic.views.scripts import read_widget
from llm_magic.widgets.pace import Pace

READY_WITHIN_S = 0.4  # a page says so, unless its messages wait for the cell to end
EXACT_TOKENS = 64  # of an exact distribution are sent


@dataclass(slots=True)
class _Node:
    """A text of the view: running while its stream is, then a value."""

    key: int
    name: str
    value: Stream | Generation | Score
    parent: int | None = None
    index: int | None = None  # of the token that stands in another's place
    n_sent: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_running(self) -> bool:
        return isinstance(self.value, Stream)

    @property
    def text(self) -> Generation | Score:
        """What there is by now."""
        value = self.value  # read once: a thread beside may settle it
        return value.generation if isinstance(value, Stream) else value

    def settle(self) -> None:
        """Its stream has ended."""
        self.value = self.text

    def describe(self) -> dict[str, Any]:
        """What a page is told of it beside its tokens."""
        is_running, value = self.is_running, self.text
        is_score = isinstance(value, Score)
        status = " · ".join(answer.status_parts(value, is_running=is_running))
        return {
            "key": self.key,
            "name": show_controls(self.name),
            "parent": self.parent,
            "index": self.index,
            "before": "" if is_score else show_controls(answer.continued_text(value.prompt)),
            "status": [
                show_controls(line) for line in (status, *answer.problem_lines(value), *self.notes, self.error) if line
            ],
            "problems": [[index, show_controls(text)] for index, text in answer.find_marked(value).items()],
            "is_running": is_running,
            "count": self.n_sent,
        }


class AnswerView(anywidget.AnyWidget):
    """A generation, several samples or a score, alive: `g.view()`.

    Branches are made by a click, or by `branch()`; `generations` has all by their names. `what_if` redraws under other
    settings, such as `{"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}`; empty shows what was sampled.
    """

    _esm = read_widget("widget.js")
    session = traitlets.Unicode().tag(sync=True)
    header = traitlets.Dict().tag(sync=True)
    snapshot = traitlets.Bytes().tag(sync=True)
    what_if = traitlets.Dict().tag(sync=True)

    def __init__(self, value: Stream | Generation | Score | Samples | Sequence[Stream], notes: Sequence[str] = ()):
        values = [value] if isinstance(value, Stream | Generation | Score) else list(value)
        names = ["answer"] if len(values) == 1 else [f"sample {i}" for i in range(len(values))]
        self._nodes = {i: _Node(i, name, value) for i, (name, value) in enumerate(zip(names, values, strict=True))}
        self._nodes[0].notes = tuple(notes)
        self._shown = list(self._nodes)
        self._can_branch = not any(isinstance(value, Score) for value in values)
        self._feed, self._lock, self._snapshot_at = Feed(), threading.RLock(), 1
        self._made_at = self._called_at = time.monotonic()
        self._pace, self._flushed_at = Pace(), 0.0
        self._pages: set[str] = set()  # that have said that they hear messages
        self._is_drawn = threading.Event()
        self._compared: int | None = None
        self._n_snapshots = 0
        self._displays: list[Any] = []
        self._companions: list[Widget] = []
        header, records = self._make_snapshot()
        super().__init__(session=secrets.token_hex(8), header=header, snapshot=records)
        answer_on_subshells(self.comm)
        self.on_msg(self._hear)

    # what is shown

    @property
    def generations(self) -> dict[str, Generation | Score]:
        """All texts by their names: what was generated, and its branches."""
        return {node.name: node.text for node in list(self._nodes.values())}

    @property
    def generation(self) -> Generation | Score:
        """The text that is shown first."""
        return self._nodes[self._shown[0]].text

    def flush(self, is_due: bool = False) -> None:
        """Send what is new, if it is due. To be called between tokens, by whoever iterates."""
        now = time.monotonic()
        self._pace.note_step(now - self._called_at)
        self._called_at = now
        is_waited_for = not self._pages and now - self._made_at < READY_WITHIN_S
        if not is_due and (is_waited_for or now - self._flushed_at < self._pace.interval_s):
            return
        with self._lock:
            self._flushed_at = now
            self._pace.note_message()
            n_tokens = sum(len(node.value.tokens) for node in self._nodes.values())
            if not self._pages and n_tokens >= self._snapshot_at:
                # a page that is not there yet hears no messages, but finds the latest values
                self._snapshot_at = 2 * n_tokens
                self._send_snapshot()
                return
            parts = [Part(n.key, n.n_sent, n.value.tokens[n.n_sent :]) for n in self._nodes.values()]
            header, records = self._feed.news([part for part in parts if part.tokens])
            for part in parts:
                self._nodes[part.key].n_sent += len(part.tokens)
            self.send({"kind": "tokens", **header, **self._describe()}, [records])

    def _send_snapshot(self) -> None:
        with self._lock, self.hold_sync():
            self.header, self.snapshot = self._make_snapshot()

    def _make_snapshot(self) -> tuple[dict[str, Any], bytes]:
        """All that there is."""
        parts = [Part(n.key, 0, list(n.value.tokens)) for n in self._nodes.values()]
        header, records = self._feed.snapshot(parts)
        for part in parts:
            self._nodes[part.key].n_sent = len(part.tokens)
        self._n_snapshots += 1  # a page hears of a header that differs, also where no token came
        return {**header, **self._describe(), "number": self._n_snapshots}, records

    def _describe(self) -> dict[str, Any]:
        nodes = [node.describe() for node in self._nodes.values()]
        return {"nodes": nodes, "keys": list(self._nodes), "shown": self._shown, "can_branch": self._can_branch}

    def wait_for_page(self) -> None:
        """Give the page a moment to draw the view, where it would have to share the model's cores for that.

        Together both take longer than one after the other: threads of a step wait for each other.
        """
        import torch  # here: the panel needs this module, and no torch

        if (os.cpu_count() or 1) <= torch.get_num_threads():
            self._is_drawn.wait(READY_WITHIN_S)

    def finish(self) -> None:
        """All that was generated is there."""
        with self._lock:
            for node in self._nodes.values():
                node.settle()
            self._send_snapshot()

    # what is asked

    def stop(self) -> None:
        """End what is running, and keep what is there."""
        for node in list(self._nodes.values()):
            if isinstance(stream := node.value, Stream):
                stream.stop()

    def branch(self, index: int, token: str | int, text: int | None = None, **changes) -> None:
        """Put another token at an index of the shown text (or of another one, by its number), and go on from there.

        Runs beside other cells; the branch comes into `generations`.
        """
        parent = self._nodes[self._shown[0] if text is None else text]
        if not isinstance(parent.value, Generation) or parent.value.maker is None:
            raise LLMError("this text cannot branch", "it needs a generation that is done, and its model")
        stream = parent.value.maker.start_branch(parent.value, index, token, **changes)
        with self._lock:
            key = max(self._nodes) + 1
            n_before = sum(node.parent is not None for node in self._nodes.values())
            name = self._name(key, f"branch {n_before + 1}")
            node = _Node(key, name, stream, parent.key, len(stream.tokens))
            self._nodes[key], self._shown, self._compared = node, [key], None
            self.send({"kind": "marks", "marks": None, "compared": None})
        threading.Thread(target=self._run, args=(node,), daemon=True).start()

    def _name(self, key: int, wanted: str) -> str:
        """The name itself, or with a number behind it where another text has it."""
        taken = {node.name for node in self._nodes.values() if node.key != key}
        names = itertools.chain([wanted], (f"{wanted} ({i})" for i in itertools.count(2)))
        return next(name for name in names if name not in taken)

    def _run(self, node: _Node) -> None:
        """Generate a branch."""
        stream = node.value
        try:
            self.flush(is_due=True)
            for _ in stream:
                self.flush()
        except Exception as error:  # of a thread of its own: nobody else would tell the user
            node.error = f"{type(error).__name__}: {error}"
        finally:
            with self._lock:
                node.settle()
                self._send_snapshot()
            if self._compared is not None:
                self.compare(self._compared)

    @traitlets.validate("what_if")
    def _check_what_if(self, proposal) -> dict[str, float]:
        """What is not named stays as it was sampled."""
        if not proposal["value"]:
            return {}
        value = self.generation
        settings = replace_sampling(getattr(value, "sampling", Sampling()), dict(proposal["value"]))
        return {name: getattr(settings, name) for name in _WHAT_IF}

    def follow(self, streams: Sequence[Stream], before: Sampling, after: Sampling) -> None:
        """The controls above were moved: steer what is running, redraw what is done."""
        changes = {n: v for n, v in dataclasses.asdict(after).items() if v != getattr(before, n)}
        for stream in streams:
            stream.steer(**changes)
        self.redraw(after)

    def redraw(self, settings: Sampling) -> None:
        """Show what the tokens would be under other settings; of texts that are done."""
        if any(node.is_running for node in list(self._nodes.values())):
            return
        asked, own = ([getattr(s, name) for name in _WHAT_IF] for s in (settings, self.generation.sampling))
        is_own = all(math.isclose(a, b, abs_tol=1e-9) for a, b in zip(asked, own, strict=True))
        self.what_if = {} if is_own else dict(zip(_WHAT_IF, asked, strict=True))

    def compare(self, text: int | None) -> None:
        """Show another text, by its number, beside the one that is shown; None shows that one alone again."""
        first = self._shown[0]
        self._shown, self._compared = [first] if text is None else [first, text], text
        self.flush(is_due=True)
        marks = None
        if text is not None:
            pair = (first, text)
            found = find_differences(*(self._nodes[key].value.tokens for key in pair))
            marks = [[key, sorted(indexes)] for key, indexes in zip(pair, found, strict=True)]
        self.send({"kind": "marks", "marks": marks, "compared": text})

    def settle(self) -> None:
        """Leave text in the place of this view, and free it."""
        self.replace(self.make_static())

    def replace(self, bundle: Mapping[str, Any]) -> None:
        """Leave a bundle of MIME types in the place of this view, and free it."""
        for shown in self._displays:
            shown.update(bundle, raw=True)
        self.close()

    def make_static(self) -> dict[str, Any]:
        """What is saved of it."""
        nodes = list(self._nodes.values())
        texts = [node.text for node in nodes]
        if len(texts) > 1 and all(isinstance(text, Generation) for text in texts):
            numbered = tuple(dataclasses.replace(text, sample=i) for i, text in enumerate(texts))
            notes = [f"sample {i} is {node.name}" for i, node in enumerate(nodes) if node.name != f"sample {i}"]
            return make_bundle(Samples(numbered), [", ".join(notes)] if notes else ())
        return make_bundle(self.generation, nodes[0].notes)

    def close(self) -> None:
        """Free the widget in the kernel and in the page."""
        for node in list(self._nodes.values()):
            if node.parent is not None and isinstance(stream := node.value, Stream):  # all else is its cell's
                stream.stop()
        layout = self.layout
        super().close()
        layout.close()
        for widget in self._companions:
            widget.layout.close()
            widget.close()

    def show(self, above: Widget | None = None) -> None:
        """Display it, below another widget, with the static face beside it for where neither can live."""
        shown = self if above is None else VBox([above, self])
        if above is not None:
            answer_on_subshells(shown.comm)
            self._companions = [shown, above]
        bundle = self.make_static() | _describe_view(shown)
        self.leave_in(display(bundle, raw=True, display_id=True))

    _ipython_display_ = show

    def leave_in(self, output: Any) -> None:
        """Leave text in an output, by its `update`, when the view is closed."""
        self._displays.append(output)

    def describe_view(self) -> dict[str, Any]:
        """What a page draws the widget by, by its MIME type."""
        return _describe_view(self)

    # messages of the page

    def _hear(self, _, message: Mapping[str, Any], buffers) -> None:
        """A page asks. This may run on a thread beside the one that generates."""
        kind = message.get("kind")
        try:
            if kind == "stop":
                self.stop()
                self.send({"kind": "ack"})
            elif kind == "ready" and message["page"] not in self._pages:  # it may be late, or one of several
                self._pages.add(message["page"])
                self._is_drawn.set()
                self.send({"kind": "heard", "page": message["page"]})
                self._send_snapshot()
            elif kind == "resend":
                self._send_snapshot()
            elif kind == "branch":
                self._nodes[message["node"]].error = ""
                token = message["id"] if "id" in message else message["text"]
                self.branch(message["index"], token, message["node"])
            elif kind == "show":
                self._shown, self._compared = [message["node"]], None
                self.send({"kind": "marks", "marks": None, "compared": None})
                self.flush(is_due=True)
            elif kind == "rename":
                self._nodes[message["node"]].name = self._name(message["node"], str(message["name"]))
                self.flush(is_due=True)
            elif kind == "compare":
                self.compare(message["node"])
            elif kind == "exact":
                threading.Thread(target=self._tell_exactly, args=(message,), daemon=True).start()
            elif kind == "close":
                self.settle()
        except LLMError as error:
            self._nodes[self._shown[0]].error = str(error)
            self.flush(is_due=True)

    def _tell_exactly(self, message: Mapping[str, Any]) -> None:
        """The exact distribution behind a token, under its settings or others."""
        value, index = self._nodes[message["node"]].value, message["index"]
        if not isinstance(value, Generation) or value.maker is None:
            return
        changes = {name: message["settings"][name] for name in _WHAT_IF} if message["settings"] else {}
        try:
            found = value.distribution(index, k=EXACT_TOKENS, **changes)
        except (LLMError, RuntimeError):  # the model was unloaded, or has no room: what is shown stays approximate
            return
        reply = {key: message[key] for key in ("node", "index", "request")}
        probabilities = [[other.id, other.probability] for other in found]
        self.send({"kind": "exact", **reply, "probabilities": probabilities, "kept": found.kept_tokens})


_OWN = ("text/plain", "text/html")
_WHAT_IF = ("temperature", "top_k", "top_p", "min_p")


def _describe_view(widget: Widget) -> dict[str, Any]:
    data = widget._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data or {}
    return {kind: value for kind, value in data.items() if kind not in _OWN}
