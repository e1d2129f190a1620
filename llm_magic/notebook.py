"""What one notebook remembers: models, defaults, conversations, the latest result. The only long-lived state."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_magic.errors import LLMError, OptionError
from llm_magic.generation import Comparison, Distribution, Generation, Message, Samples, Sampling, Score

if TYPE_CHECKING:
    from llm_magic.backends.stream import Stream
    from llm_magic.llm import LLM, Track

Result = Generation | Samples | Score | Distribution | Comparison


@dataclass(slots=True)
class Notebook:
    """`default_model` and `defaults` are what a call uses that does not say otherwise."""

    default_model: str | None = None
    default_sampling: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    models: dict[str, LLM] = field(default_factory=dict)
    chats: dict[str, tuple[Message, ...]] = field(default_factory=dict)
    conversation: tuple[Message, ...] = ()
    latest: Result | None = None
    latest_generation: Generation | None = None
    latest_model: str = ""  # that made the latest generation
    latest_chat: str | None = None
    shown: Any = None  # what the running cell has shown already, so that it is not shown twice
    was_interrupted: bool = False  # in the running cell
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
                self.conversation = result.messages
                if self.latest_chat is not None:
                    self.chats[self.latest_chat] = result.messages

    def begin_prompt(self, model: str | None, chat: str | None) -> None:
        """A prompt begins: what comes of it, and of going on from it, belongs to this model and chat."""
        self.latest_model, self.latest_chat = model or self.default_model or "", chat

    def history(self, chat: str | None, is_continued: bool) -> tuple[Message, ...]:
        """The turns that a call goes on from."""
        if chat is not None:
            return self.chats.get(chat, ())
        if is_continued and not self.conversation:
            raise OptionError("there is no conversation to go on with", "ask something first, without -c")
        return self.conversation if is_continued else ()

    def steer(self, name: str, value: Any) -> None:
        """A default has changed: the tokens to come of what is running follow it."""
        for stream in tuple(self.running):
            with contextlib.suppress(LLMError):  # half typed
                stream.steer(**{name: value})

    def reset(self) -> None:
        """Forget conversations, results and prefixes; models and defaults stay."""
        self.chats.clear()
        self.conversation, self.latest, self.latest_generation, self.shown = (), None, None, None
        self.latest_chat = None
        for llm in self.models.values():
            llm.forget()
