"""What one notebook remembers: models, defaults, conversations, the latest result. The only long-lived state."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_magic.chats import Place, Turn, find_place
from llm_magic.choices import Choices, Ranking
from llm_magic.errors import LLMError, OptionError
from llm_magic.generation import Comparison, Distribution, Generation, Samples, Sampling, Score
from llm_magic.tasks import Parts

if TYPE_CHECKING:
    from llm_magic.backends.stream import Stream
    from llm_magic.llm import LLM
    from llm_magic.progress import Track

Result = Generation | Samples | Score | Distribution | Comparison | Choices | Ranking | Parts


@dataclass(slots=True)
class Notebook:
    """`default_model` and `defaults` are what a call uses that does not say otherwise."""

    default_model: str | None = None
    default_sampling: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    models: dict[str, LLM] = field(default_factory=dict)
    chats: dict[str, tuple[Turn, ...]] = field(default_factory=dict)
    conversation: tuple[Turn, ...] = ()  # the latest, named or not
    place: Place = Place()  # of the latest prompt in its conversation, with the cell and run that asked
    place_cell: str | None = None
    place_run: int = 0
    cell: str | None = None  # the running cell's id, where the frontend tells it
    run: int = 0  # how many cells have run
    latest: Result | None = None
    latest_generation: Generation | None = None
    latest_model: str = ""  # that made the latest generation
    latest_chat: str | None = None
    error: BaseException | None = None  # that a cell failed with last, and the cell as it was typed
    error_cell: str | None = None
    shown: Any = None  # what the running cell has shown already, so that it is not shown twice
    was_interrupted: bool = False  # in the running cell
    keeps_history: bool = True
    latest_command: Any = None  # the latest prompt as it was typed, and what was put into its holes
    latest_put_in: tuple[str, ...] = ()
    controls: Any = None  # the object whose traits are the defaults
    ghost: Any = None  # ghost text of this shell's kind: `is_on`, `switch_on()`, `switch_off()`
    running: list[Stream] = field(default_factory=list)  # generations that the controls may steer

    @property
    def defaults(self) -> Sampling:
        """The sampling settings of calls that name none; raises where one was set out of range."""
        return Sampling(**self.default_sampling)

    def model(self, name: str | None, track: Track) -> LLM:
        """The model of that name, or the default one; loaded if it is not yet."""
        key = name or self.default_model or ""
        if key not in self.models:
            from llm_magic.llm import load  # here, since it brings torch

            self.models[key] = load(key or None, track=track)
        return self.models[key]

    def find_model(self, name: str) -> str:
        """The key of a loaded model that calls itself so; else the name."""
        return next((key for key, llm in self.models.items() if llm.name == name), name)

    def unload(self) -> list[str]:
        """Free all models' memory. Returns their names."""
        unloaded = list(self.models.values())
        self.models.clear()
        for llm in unloaded:
            llm.unload()
        return [llm.name for llm in unloaded]

    def remember(self, result: Result) -> None:
        """Keep a result as the latest one; an answer becomes the last turn of its conversation."""
        self.latest = result
        if isinstance(result, Generation):
            self.latest_generation = result
            if result.messages and result.tokens:
                self.conversation = self.place.fill(result.messages, self.place_cell, self.place_run)
                if self.latest_chat is not None:
                    self.chats[self.latest_chat] = self.conversation

    def begin_prompt(self, model: str | None, chat: str | None, place: Place = Place()) -> None:
        """A prompt begins: what comes of it, and of going on from it, belongs to this model, chat and place."""
        self.latest_model, self.latest_chat = model or self.default_model or "", chat
        self.place, self.place_cell, self.place_run = place, self.cell, self.run

    def find_place(self, chat: str | None, is_continued: bool) -> Place:
        """Where the running cell's prompt goes in a conversation: in the place of what the cell asked before."""
        if chat is None and is_continued and not self.conversation:
            raise OptionError("there is no conversation to go on with", "ask something first, without -c")
        turns = self.chats.get(chat, ()) if chat is not None else self.conversation if is_continued else ()
        return find_place(turns, self.cell, self.run)

    def begin_cell(self, cell: str | None) -> None:
        """A cell runs: what was remembered of the one before ends with it."""
        self.cell, self.run = cell, self.run + 1
        self.shown, self.was_interrupted = None, False

    def steer(self, name: str, value: Any) -> None:
        """A default has changed: the tokens to come of what is running follow it."""
        for stream in tuple(self.running):
            with contextlib.suppress(LLMError):  # half typed
                stream.steer(**{name: value})

    def reset(self) -> None:
        """Forget conversations, results and prefixes; models and defaults stay."""
        self.chats.clear()
        self.conversation, self.latest, self.latest_generation, self.shown = (), None, None, None
        self.latest_chat, self.place, self.error, self.error_cell, self.latest_command = None, Place(), None, None, None
        for llm in self.models.values():
            llm.forget()
