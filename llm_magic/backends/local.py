"""Text, engine and weights in this process: a prompt in, a stream of tokens out."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import abc, deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from llm_magic.backends.infill import N_CANDIDATES, best_completion, find_marks, infill_ids
from llm_magic.backends.stream import Stream, refuse_stops
from llm_magic.choices import Choices, weigh
from llm_magic.engine import generate as engine
from llm_magic.engine.batch import Row, generate_batch
from llm_magic.engine.branches import score_continuations
from llm_magic.engine.cache import PrefixCache, Sequence
from llm_magic.errors import ContextOverflow, OptionError
from llm_magic.form import Form
from llm_magic.generation import Alternative, Distribution, Message, Prompt, Sampling, Score, Token
from llm_magic.text.chat import render_chat
from llm_magic.text.stops import StopFinder
from llm_magic.text.tokenizer import TextStream
from llm_magic.weights.load import LoadedModel

if TYPE_CHECKING:
    from llm_magic.text.constrain import Constrainer, Constraint

PREFIX_CACHE_BYTES = 512 << 20
MAX_ROWS = 16  # of a batch; beyond, a token costs as much
MAX_TOKENIZE_CHARACTERS = 2_000_000
CODE_OPENING = "```python\n"  # put into the model's mouth, so that what it writes is code and nothing else
CODE_STOP = "```"
CODE_SYSTEM = "You are an expert Python programmer. Answer with one short Python program."


class LocalBackend:
    """One loaded model, with what it remembers of earlier prompts."""

    def __init__(self, loaded: LoadedModel, prefix_cache_bytes: int = PREFIX_CACHE_BYTES):
        self.loaded = loaded
        self.tokenizer, self.decoder = loaded.tokenizer, loaded.decoder
        self.prefix_cache = PrefixCache(self.decoder.make_cache, prefix_cache_bytes)

    @property
    def context_tokens(self) -> int:
        return self.decoder.config.context_tokens

    @cached_property
    def _constrainer(self) -> Constrainer:
        from llm_magic.text.constrain import Constrainer  # here, since few need it

        return Constrainer(self.tokenizer, self.decoder.config.vocabulary_tokens)

    def _constrain(self, form: Form | None, ids: abc.Iterable[int] = ()) -> Constraint | None:
        """Where a text of that form stands behind its first ids."""
        return None if form is None else self._constrainer.start(form, tuple(ids))

    def make_prompt(
        self,
        text: str,
        mode: str,
        system: str | None,
        history: abc.Sequence[Message],
        sampling: Sampling,
        form: Form | None = None,
    ) -> Prompt:
        """The exact prompt: rendered through the chat template, or the raw text in mode `text`."""
        if not text:
            raise OptionError("the prompt is empty", "write what the model shall answer or continue")
        if form is not None and mode == "code":
            raise OptionError(f"mode `code` and a {form.kind} exclude each other", "leave out one of them")
        refuse_stops(form, sampling)
        self._constrain(form)  # what is wrong with it is said before anything runs
        is_chat = mode != "text" and self.loaded.template is not None
        if mode == "ask" and not is_chat:
            raise OptionError(
                f"{self.loaded.name} is a base model, without a chat template", "use `text` to continue a text"
            )
        messages: tuple[Message, ...] = ()
        if is_chat:
            if system is None and mode == "code":
                system = CODE_SYSTEM
            opening = (Message("system", system),) if system else ()
            history = tuple(m if isinstance(m, Message) else _read_message(m) for m in history)
            messages = (*(m for m in history if m.role != "system" or not system), Message("user", text))
            messages = (*opening, *messages)
            rendered, mark = render_chat(self.loaded.template, messages, self.tokenizer)
            if mode == "code":
                rendered += CODE_OPENING
            ids = self.tokenizer.encode_marked(rendered, mark, self.context_tokens)
            rendered = rendered.replace(mark, "")
        else:
            if system or history:
                raise OptionError("mode `text` continues a raw text", "leave out the system text and the conversation")
            rendered, ids = text, self.encode(text)
        return self.to_prompt(rendered, ids, mode, sampling, messages, form)

    def to_prompt(
        self,
        text: str,
        ids: list[int],
        mode: str,
        sampling: Sampling,
        messages: tuple[Message, ...] = (),
        form: Form | None = None,
    ) -> Prompt:
        """A prompt of ids that are known, if it leaves room in the context."""
        if len(ids) >= self.context_tokens:
            raise ContextOverflow(
                f"the prompt has {len(ids):,} tokens and the context holds {self.context_tokens:,}",
                "shorten it, or load a model with a longer context",
            )
        pieces = self.tokenizer.pieces(ids)
        return Prompt(text, tuple(ids), pieces, mode, self.loaded.name, self.context_tokens, messages, sampling, form)

    def check_ids(self, ids: abc.Sequence[int]) -> None:
        """Raise for ids that the vocabulary lacks."""
        if not all(0 <= token_id < self.decoder.config.vocabulary_tokens for token_id in ids):
            raise OptionError(f"{self.loaded.name} lacks some of the ids", "load the model that they were made with")

    def check_form(self, form: Form | None, given: abc.Sequence[Token], forced_ids: abc.Sequence[int]) -> None:
        """Raise where a form does not allow tokens behind those that are given."""
        constraint = self._constrain(form, (token.id for token in given))
        for token_id in forced_ids if constraint else ():
            if not constraint.accept(token_id):
                text = self.tokenizer.text_of(token_id)
                raise OptionError(f"the {form.kind} does not allow {text!r} here", "put another token in its place")

    @property
    def has_infill(self) -> bool:
        """Whether the model was trained to write between two texts."""
        return find_marks(self.tokenizer.special) is not None

    def make_infill(self, before: str, after: str, sampling: Sampling) -> tuple[Prompt, list[int], str]:
        """A prompt for what stands between two texts; the ids that it begins with, and what they repeat of `before`."""
        head, tail = infill_ids(self.tokenizer, before, after)
        taken_back = head.pop()
        prompt = self.to_prompt(before, [*head, *tail], "text", sampling)
        if not prompt.ids:
            return self.to_prompt(before, [taken_back], "text", sampling), [], ""
        with self._prefilled(list(prompt.ids)) as sequence:
            best, _, _ = engine.next_distribution(self.decoder, sequence.hidden, N_CANDIDATES)
        return prompt, [best_completion(self.tokenizer, best, taken_back)], self.tokenizer.text_of(taken_back)

    def encode(self, text: str) -> list[int]:
        """A raw text's ids, behind the beginning-of-text token where the model has one."""
        return self.tokenizer.bos_ids + self.tokenizer.encode(text, self.context_tokens)

    def tokenize(self, text: str) -> Prompt:
        """A raw text cut into its tokens; it may be longer than the context."""
        if len(text) > MAX_TOKENIZE_CHARACTERS:
            raise OptionError(
                f"the text has {len(text):,} characters", f"give at most {MAX_TOKENIZE_CHARACTERS:,}, which is quick"
            )
        ids = self.tokenizer.encode(text)
        pieces = self.tokenizer.pieces(ids)
        return Prompt(text, tuple(ids), pieces, "text", self.loaded.name, self.context_tokens)

    def run(self, stream: Stream) -> Iterator[Token]:
        """The tokens of one generation, behind the stream's prompt and the tokens it was given."""
        started = time.perf_counter()
        finder = _make_finder(stream)
        text = TextStream(self.tokenizer)
        given, shown = stream.tokens, []
        for token in given:  # cut and finished anew: a stop text or a character may go on beyond them
            data, readable = text.push(token.id)
            shown += finder.push(dataclasses.replace(token, bytes=data, text=readable), text.open_bytes)
            if finder.is_found:
                break
        stream.tokens = shown
        ids = [*stream.prompt.ids, *(token.id for token in given)]
        stream.constraint = self._constrain(stream.prompt.form, (token.id for token in given))
        is_full = len(given) >= stream.limit_tokens
        if finder.is_found or is_full or len(ids) >= self.context_tokens:
            stream.finish_reason = "stop" if finder.is_found else stream.limit_reason
            if not finder.is_found:
                stream.tokens += _with_rest(finder.flush(), text.flush())
            return
        sequence, stream.cached_tokens = self.prefix_cache.take(ids)
        try:
            for _ in engine.prefill(self.decoder, sequence, ids):
                if stream.is_stopped:
                    break
            else:
                stream.prefill_ms = 1000 * (time.perf_counter() - started)
                yield from self._decode(stream, sequence, len(given), finder, text)
            if not finder.is_found:
                yield from _with_rest(finder.flush(), text.flush())
        finally:
            self.prefix_cache.put(sequence)

    def run_batch(self, streams: abc.Sequence[Stream], max_rows: int = MAX_ROWS) -> Iterator[Token]:
        """The tokens of several generations, decoded together: each goes to its stream, and is yielded.

        Streams share what their prompts have in common. One that is stopped ends before its next token.
        """
        writers: dict[Row, tuple[Stream, StopFinder, TextStream]] = {}
        rows = self._prefill_rows(streams, writers)
        try:
            for batch in generate_batch(self.decoder, rows, max_rows, self.tokenizer.end_ids):
                for row in [row for row in writers if row.is_done]:
                    _close(row, *writers.pop(row))
                for row, step in batch:
                    stream, finder, text = writers[row]
                    tokens = self._write(stream, step, finder, text)
                    stream.tokens += tokens
                    yield from tokens
                    row.is_done = stream.finish_reason == "stop" or stream.is_stopped
                    row.settings = stream.sampling
                    if stream.constraint and not row.is_done:
                        row.allowed = stream.constraint.allowed()
        finally:
            for row, writer in writers.items():
                _close(row, *writer)

    def _prefill_rows(self, streams: abc.Sequence[Stream], writers: dict) -> Iterator[Row]:
        """A row for each stream, its prompt computed when the batch has room for it."""
        for index, stream in enumerate(streams):
            if stream.is_stopped:
                continue
            started, ids = time.perf_counter(), list(stream.prompt.ids)
            sequence, stream.cached_tokens = self.prefix_cache.take(ids)
            for _ in engine.prefill(self.decoder, sequence, ids):
                if stream.is_stopped:
                    break
            if stream.is_stopped:
                self.prefix_cache.put(sequence)
                continue
            stream.prefill_ms = 1000 * (time.perf_counter() - started)
            stream.constraint = self._constrain(stream.prompt.form)
            allowed = stream.constraint.allowed() if stream.constraint else None
            row = Row(sequence, stream.sampling, stream.sample, allowed=allowed)
            writers[row] = stream, _make_finder(stream), TextStream(self.tokenizer)
            if index == 0:  # the others begin alike, and would only push out what else is kept
                self.prefix_cache.put(Sequence(sequence.cache, list(ids), sequence.hidden, sequence.n_hidden))
            yield row

    def _write(self, stream: Stream, step: engine.Step, finder: StopFinder, text: TextStream) -> list[Token]:
        """One more step of a stream: the tokens that are free to be shown with it; sees to how it ends."""
        stream.decode_ms += step.ms
        if step.id in self.tokenizer.end_ids:
            stream.end, stream.finish_reason = self._to_token(step, b"", ""), "stop"
            return []
        token = self._to_token(step, *text.push(step.id))
        tokens = finder.push(token, text.open_bytes)
        if stream.constraint:
            stream.constraint.accept(step.id)  # what was forced was checked before
        if finder.is_found or (stream.constraint and stream.constraint.is_finished):
            stream.finish_reason = "stop"
        return tokens

    def _decode(
        self, stream: Stream, sequence: Sequence, n_given: int, finder: StopFinder, text: TextStream
    ) -> Iterator[Token]:
        end_ids, n_made = self.tokenizer.end_ids, n_given
        for step in engine.generate(self.decoder, sequence, stream.plan, end_ids, n_given, stream.sample):
            n_made += 1
            yield from self._write(stream, step, finder, text)
            if stream.finish_reason == "stop" or stream.is_stopped:
                return
            if n_made >= stream.limit_tokens:
                break
        stream.finish_reason = stream.limit_reason

    def score(self, text: str, context: str) -> Score:
        """The model's probability of each token of a raw text, behind a context."""
        if context:
            return self._score(self.encode(context), self.tokenizer.encode(text, self.context_tokens))
        return self._score([], self.encode(text), len(self.tokenizer.bos_ids))

    def score_behind(self, prompt: Prompt, text: str) -> Score:
        """The model's probability of each token of an answer to a prompt."""
        return self._score(list(prompt.ids), self.tokenizer.encode(text, self.context_tokens))

    def _score(self, before: list[int], ids: list[int], n_bos: int = 0) -> Score:
        """The probability of each of `ids` but the first `n_bos`, behind those before."""
        if len(ids) == n_bos:
            raise OptionError("the text is empty", "write what shall be scored")
        if len(before) + len(ids) > self.context_tokens:
            raise ContextOverflow(
                f"the text has {len(before) + len(ids):,} tokens and the context holds {self.context_tokens:,}",
                "shorten it, or split it into parts",
            )
        sequence, _ = self.prefix_cache.take(before) if before else (Sequence(self.decoder.make_cache(), []), 0)
        stream, tokens = TextStream(self.tokenizer), []
        try:
            for _ in engine.prefill(self.decoder, sequence, before) if before else ():
                pass
            steps = engine.score(self.decoder, sequence, ids)
            for index, token_id in enumerate(ids):
                data, readable = stream.push(token_id)
                step = next(steps) if index or before else None
                if index < n_bos:
                    continue
                tokens.append(self._to_token(step, data, readable) if step else Token(token_id, data, readable, None))
            next(steps, None)  # to its end, so that the sequence knows its last state
        finally:
            self.prefix_cache.put(sequence)
        tokens = list(_with_rest(tokens, stream.flush()))
        return Score(tuple(tokens), self.loaded.name, self.context_tokens)

    def check_room(self, prompt: Prompt, choices: abc.Sequence[str]) -> Prompt:
        """The prompt, if each choice fits behind it."""
        if prompt.form is not None:
            raise OptionError(f"choices and a {prompt.form.kind} exclude each other", "leave out one of them")
        n_tokens = len(prompt.ids) + max(len(self.tokenizer.encode(choice)) for choice in choices)
        if n_tokens > self.context_tokens:
            raise ContextOverflow(
                f"the prompt and the longest choice have {n_tokens:,} tokens and the context holds "
                f"{self.context_tokens:,}",
                "shorten it",
            )
        return prompt

    def weigh(self, prompts: abc.Iterable[Prompt], choices: abc.Sequence[str]) -> Iterator[Choices]:
        """How likely each choice is behind each prompt, in order; what a prompt shares with the one before is not
        computed again."""
        ids, texts = [self.tokenizer.encode(choice) for choice in choices], deque()
        if len(set(map(tuple, ids))) < len(ids):
            raise OptionError("two choices have the same tokens", "give choices that differ for this model")

        def read() -> Iterator[list[int]]:
            for prompt in prompts:
                texts.append(prompt.text)
                yield list(prompt.ids)

        waiting = read()
        if (first := next(waiting, None)) is None:
            return
        sequence, _ = self.prefix_cache.take(first)
        try:
            for logprobs in score_continuations(self.decoder, sequence, itertools.chain([first], waiting), ids):
                yield weigh(texts.popleft(), choices, ids, logprobs, self.loaded.name)
        finally:
            self.prefix_cache.put(sequence)

    def next(self, text: str, k: int) -> Distribution:
        """What could come behind a raw text."""
        ids = self.encode(text) or [min(self.tokenizer.end_ids, default=0)]
        if len(ids) > self.context_tokens:
            raise ContextOverflow(
                f"the text has {len(ids):,} tokens and the context holds {self.context_tokens:,}", "shorten it"
            )
        with self._prefilled(ids) as sequence:
            top_ids, top_logprobs, entropy = engine.next_distribution(self.decoder, sequence.hidden, k)
        top = self._to_alternatives(top_ids, top_logprobs)
        return Distribution(text, top, entropy, self.decoder.config.vocabulary_tokens, self.loaded.name)

    @contextmanager
    def _prefilled(self, ids: list[int]) -> Iterator[Sequence]:
        """A sequence that holds `ids`, kept for later calls."""
        sequence, _ = self.prefix_cache.take(ids)
        try:
            for _ in engine.prefill(self.decoder, sequence, ids):
                pass
            yield sequence
        finally:
            self.prefix_cache.put(sequence)

    def read_token(self, token: str | int, standing: Token | None) -> list[int]:
        """The ids of what shall stand at a token's place: an alternative by its text, any other text, or an id."""
        if isinstance(token, str):
            listed = standing.alternatives if standing else ()
            known = next((other.id for other in listed if other.text == token), None)
            ids = [known] if known is not None else self.tokenizer.encode(token)
            if not ids:
                raise OptionError("the text is empty", "give what shall stand there")
            return ids
        if not 0 <= token < self.decoder.config.vocabulary_tokens:
            n = self.decoder.config.vocabulary_tokens
            raise OptionError(f"there is no token of id {token}", f"the vocabulary has {n:,}, counted from 0")
        return [int(token)]

    def distribution(self, prompt: Prompt, tokens: abc.Sequence[Token], settings: Sampling, k: int) -> Distribution:
        """What the settings leave behind a prompt and the tokens of its answer."""
        ids = [*prompt.ids, *(token.id for token in tokens)]
        constraint = self._constrain(prompt.form, (token.id for token in tokens))
        allowed = constraint.allowed() if constraint else None
        with self._prefilled(ids) as sequence:
            kept_ids, logprobs, entropy = engine.kept_distribution(self.decoder, sequence, settings, allowed)
        top = self._to_alternatives(kept_ids[:k], logprobs[:k])
        text = "".join(token.text for token in tokens)
        n, name = self.decoder.config.vocabulary_tokens, self.loaded.name
        return Distribution(text, top, entropy, n, name, settings, len(kept_ids))

    def _to_alternatives(self, *columns: abc.Sequence) -> tuple[Alternative, ...]:
        """From ids, logprobs and, where there were any, penalties."""
        text_of = self.tokenizer.text_of
        return tuple([Alternative(row[0], text_of(row[0]), *row[1:]) for row in zip(*columns, strict=True)])

    def _to_token(self, step: engine.Step, data: bytes, text: str) -> Token:
        alternatives = self._to_alternatives(step.top_ids, step.top_logprobs, step.top_penalties)
        return Token(
            step.id,
            data,
            text,
            step.logprob,
            step.sampled_logprob,
            step.rank,
            step.entropy,
            alternatives,
            step.settings,
            step.ms,
            step.penalty,
            step.tail,
            step.constrained_logprob,
        )


def _make_finder(stream: Stream) -> StopFinder:
    """What ends a stream's text: the texts that were given, and in code the closing fence."""
    stops = stream.sampling.stop
    return StopFinder((*stops, CODE_STOP) if stream.prompt.mode == "code" else stops)


def _close(row: Row, stream: Stream, finder: StopFinder, text: TextStream) -> None:
    """A batch's stream gets what was held back, and the reason why it ended."""
    if not finder.is_found:
        stream.tokens += _with_rest(finder.flush(), text.flush())
    if row.is_done and not stream.is_stopped and stream.finish_reason != "stop":
        stream.finish_reason = "length"


def _read_message(value: object) -> Message:
    """A turn given as a dict, as other libraries have it."""
    if isinstance(value, dict) and set(value) == {"role", "content"}:
        return Message(**value)
    raise OptionError(f"a turn of the history is {value!r:.60}", "give Message(role, content), or a dict of both")


def _with_rest(tokens: list[Token], rest: str) -> Iterator[Token]:
    """The tokens, the last with what was left of an unfinished character."""
    for index, token in enumerate(tokens, 1):
        is_last = index == len(tokens)
        yield dataclasses.replace(token, text=token.text + rest) if rest and is_last else token
