"""Ready-made tasks as methods of a model: code, explanations, summaries, translations, saved prompts."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from llm_magic import tasks
from llm_magic.backends.stream import finish
from llm_magic.errors import OptionError
from llm_magic.generation import Generation
from llm_magic.given import failing_source
from llm_magic.options import PromptOptions
from llm_magic.progress import Track, finish_steps, show_progress

if TYPE_CHECKING:
    from llm_magic.llm import LLM


def code(
    llm: LLM, prompt: str, namespace: Mapping[str, Any] | None = None, **options: Unpack[PromptOptions]
) -> Generation:
    """Python code; it is never run. Given a namespace (`globals()`), `.problems` names what exists nowhere."""
    return finish(llm.start(llm.prompt(prompt, **{"mode": "code"} | options), namespace=namespace))


def use(llm: LLM, name: str, values: Mapping[str, Any], **options: Unpack[PromptOptions]) -> Generation:
    """A prompt that `%llm template` saved, with values in its holes; `options` go before its own."""
    text, saved = tasks.read_saved(name, values)
    return llm(text, **saved | options)


def fix(
    llm: LLM,
    code: str,
    error: BaseException | None = None,
    namespace: Mapping[str, Any] | None = None,
    **options: Unpack[PromptOptions],
) -> Generation:
    """Code with its mistake corrected, given the error that it raised."""
    failure = llm.describe({"Err": error})[0].text if error is not None else None
    return llm.code(tasks.ask_correction(code, failure), namespace, **options)


def explain(llm: LLM, subject: str | BaseException, **options: Unpack[PromptOptions]) -> Generation:
    """What code does, why an error came, or what a text means."""
    return llm(llm.ask_explanation(subject), **options)


def ask_explanation(llm: LLM, subject: str | BaseException) -> str:
    """The prompt of `explain`: an error with the code that raised it, code, or any other text."""
    if isinstance(subject, BaseException):
        return tasks.ask_why(failing_source(subject), llm.describe({"Err": subject})[0].text)
    return tasks.ask_explanation(subject, tasks.is_code(subject))


def summarize(
    llm: LLM, text: str, *, track: Track | None = show_progress, **options: Unpack[PromptOptions]
) -> Generation:
    """A summary. A text longer than the context is summarised in parts, and these summaries again, as often as it
    takes; `track` shows each pass."""
    return llm(tasks.ask_summary(llm.condense(text, track, options.get("max_tokens"))), **options)


def condense(llm: LLM, text: str, track: Track | None = show_progress, answer_tokens: int | None = None) -> str:
    """The text, or summaries of its parts where it leaves no room for an answer of so many tokens."""
    if not text.strip():
        raise OptionError("the text is empty", "give one that says something")
    answer_tokens = min(answer_tokens or llm.defaults.max_tokens, llm.info.context_tokens // 4)
    frame_tokens = len(llm.prompt(tasks.ask_summary(" ")).ids)
    room_tokens = max(1, llm.info.context_tokens - answer_tokens - frame_tokens)

    def summarize(parts: Sequence[str]) -> Generator[float, None, list[str]]:
        prompts = [llm.prompt(tasks.ask_summary(part), max_tokens=tasks.SUMMARY_TOKENS) for part in parts]
        batch = llm.start_batch([(prompt, 0) for prompt in prompts])
        yield from batch.follow()
        return [generation.text for generation in batch.generations]

    steps = tasks.condense(text, room_tokens, llm.count_tokens, summarize)
    if llm.count_tokens(text) <= room_tokens or track is None:
        return finish_steps(steps)
    return track("summarizing parts", steps)


def translate(
    llm: LLM, text: str, to: str, *, track: Track | None = show_progress, **options: Unpack[PromptOptions]
) -> Generation | tasks.Parts:
    """The text in another language (`to="French"`); a long one in parts, at the seams of its paragraphs."""
    if not text.strip() or not to.strip():
        raise OptionError(f"the {'language' if text.strip() else 'text'} is empty", "give both")
    parts = tasks.split_text(text, tasks.TRANSLATION_PART_TOKENS, llm.count_tokens)
    if len(parts) < 2:
        return llm(tasks.ask_translation(text, to), **options)
    made = llm.map("{text}", [tasks.ask_translation(part.strip(), to) for part in parts], track=track, **options)
    if None in made:
        raise OptionError("a part of the text is longer than the context", "give a model with a longer one")
    return tasks.Parts(tuple(made), tasks.separators_of(parts))
