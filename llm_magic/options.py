"""What a prompt may be made with, by name: the keywords of every method that takes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from llm_magic.generation import Message


class PromptOptions(TypedDict, total=False):
    """What a prompt may be made with: as in `LLM.__call__`, and the fields of `Sampling`."""

    mode: str | None
    system: str | None
    history: Sequence[Message]
    given: Mapping[str, Any] | None
    regex: str | None
    schema: Any
    grammar: str | None
    repetition_penalty: float
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    max_tokens: int
    stop: str | Sequence[str]
    seed: int
