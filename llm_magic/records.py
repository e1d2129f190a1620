"""What the history keeps of a result, and how its records are read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magic.choices import Choices
from llm_magic.errors import OptionError
from llm_magic.faces import Shown
from llm_magic.folders import data_folder
from llm_magic.form import Form
from llm_magic.generation import Generation, Message, Samples, Sampling
from llm_magic.history import History, Record
from llm_magic.tasks import Parts


def open_history() -> History:
    """The history of this user, in the data folder."""
    return History(data_folder() / "history.sqlite")


@dataclass(frozen=True)
class Records(Shown):
    """Records of the history, the newest first; `term` is what was looked for."""

    records: tuple[Record, ...]
    term: str = ""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]


def describe_result(value: Any, question: str, verb: str, sha256: str | None) -> Iterator[dict[str, Any]]:
    """The fields of a result's records: one for each generation, none for what is no answer."""
    if isinstance(value, Samples | Parts):
        for generation in value.generations:
            yield from describe_result(generation, question, verb, sha256)
    elif isinstance(value, Choices):
        weights = {choice.text: choice.probability for choice in value.choices}
        yield {
            "question": question, "verb": verb, "prompt": value.text, "answer": value.label, "model": value.model,
            "finish_reason": "choices", "extra": {"choices": weights}, "sha256": sha256,
        }  # fmt: skip
    elif isinstance(value, Generation):
        prompt, form = value.prompt, value.prompt.form
        yield {
            "question": question,
            "verb": verb,
            "prompt": prompt.text,
            "answer": value.text,
            "model": value.model,
            "finish_reason": value.finish_reason,
            "sampling": dataclasses.asdict(value.sampling),
            "prompt_ids": prompt.ids,
            "token_ids": [token.id for token in value.tokens],
            "form": None if form is None else dataclasses.asdict(form),
            "mode": prompt.mode,
            "sha256": sha256,
            "extra": {
                "sample": value.sample,
                "messages": [[message.role, message.content] for message in prompt.messages],
                "is_steered": _is_steered(value),
            },
        }


def _is_steered(value: Generation) -> bool:
    """Whether its tokens were not all chosen under the settings that it ended with."""
    end = value.sampling
    return any(
        token.sampled_logprob is None
        or (token.sampling is not None and dataclasses.replace(token.sampling, max_tokens=end.max_tokens) != end)
        for token in value.tokens
    )


def read_prompt_parts(record: Record) -> Mapping[str, Any]:
    """What a prompt is made of again; raises where the record does not hold it."""
    if record.is_scrubbed:
        raise OptionError(f"record {record.number} held a secret, which was not kept", "ask again")
    if not record.prompt_ids:
        raise OptionError(f"record {record.number} is no generation", "%llm history lists what was generated")
    return {
        "text": record.prompt,
        "ids": list(record.prompt_ids),
        "mode": record.mode,
        "sampling": Sampling(**record.sampling),
        "messages": tuple(Message(*pair) for pair in record.extra.get("messages", ())),
        "form": None if record.form is None else Form(**record.form),
    }


def find_difference(
    then: Sequence[int], now: Sequence[int], is_then_whole: bool = True, is_now_whole: bool = True
) -> int | None:
    """The index of the first id that differs; None where all are equal, as far as both were let go on.

    >>> find_difference([1, 2, 3], [1, 4]), find_difference([1, 2], [1, 2, 3], is_then_whole=False)
    (1, None)
    """
    for index, (one, other) in enumerate(zip(then, now, strict=False)):
        if one != other:
            return index
    ended_early = (is_then_whole and len(then) < len(now)) or (is_now_whole and len(now) < len(then))
    return min(len(then), len(now)) if ended_early else None
