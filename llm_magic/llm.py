"""What `load()` returns: a model to ask, stream, score and look at, for scripts and for the magics alike."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack
from weakref import WeakValueDictionary

with warnings.catch_warnings():
    # torch says so on its import where numpy is not installed, which nothing here needs
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import torch  # noqa: F401

from llm_magic import work
from llm_magic.backends.local import PREFIX_CACHE_BYTES, LocalBackend
from llm_magic.backends.stream import Batch, Stream, check_k, find_index, finish
from llm_magic.choices import Choices, Ranking, check_choices
from llm_magic.engine.model import Decoder
from llm_magic.errors import GenerationInterrupted, OptionError, nearest
from llm_magic.form import make_form
from llm_magic.generation import (
    MAX_SAMPLES,
    Distribution,
    Generation,
    Message,
    ModelInfo,
    Prompt,
    Samples,
    Sampling,
    Score,
    replace_sampling,
    suit_form,
)
from llm_magic.given import GIVEN_TOKENS, Given, describe_all, join_given
from llm_magic.history import Record
from llm_magic.options import PromptOptions
from llm_magic.progress import Track, show_progress
from llm_magic.records import open_history, read_prompt_parts
from llm_magic.rows import Result, Run, read_rows, run_rows, take_items
from llm_magic.study import inside
from llm_magic.weights import store
from llm_magic.weights.load import load_model

MODES = ("ask", "text", "code")


def load(
    name: str | Path | None = None,
    device: str | None = None,
    track: Track = show_progress,
    prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
) -> LLM:
    """Load a model: the default one, a known name, a `.gguf` file, a folder, or what `pull` has fetched.

    The default model is fetched once, where it is not there yet; a model that is in memory already is
    shared. Prompts that were computed are kept up to `prefix_cache_bytes`, so that what begins like them need not be
    computed again; 0 keeps none. Raises `ModelNotFound`, `ModelFileError` or `DownloadError`.
    """
    found = store.find(name)
    if found is None:
        found = track("fetching the model", store.fetch_default())
    key = (found.name, str(found.path.resolve()), found.path.stat().st_mtime_ns, device, prefix_cache_bytes)
    backend = _BACKENDS.get(key)
    if backend is None:
        loaded = track(f"loading {found.name}", load_model(found.path, found.name, device))
        backend = LocalBackend(loaded, prefix_cache_bytes)
        _BACKENDS[key] = backend
    return LLM(backend, sha256=found.sha256)


# a model that is in memory is not loaded a second time; it goes when nobody holds it
_BACKENDS: WeakValueDictionary[tuple, LocalBackend] = WeakValueDictionary()


class LLM:
    """A model. `defaults` are the sampling settings of calls that do not name their own."""

    def __init__(self, backend: LocalBackend, defaults: Sampling = Sampling(), sha256: str | None = None):
        self._loaded: LocalBackend | None = backend
        self.defaults, self._sha256, self.name = defaults, sha256, backend.loaded.name
        self._unfinished: dict[bytes, Result] = {}  # of a map that was interrupted

    @property
    def _backend(self) -> LocalBackend:
        if self._loaded is None:
            raise OptionError(f"the model {self.name} was unloaded", "load it again")
        return self._loaded

    def unload(self) -> None:
        """Free the model's memory; results that it made stay, but cannot be continued."""
        self._loaded = None

    @property
    def is_chat(self) -> bool:
        """Whether the model answers; a base model only continues texts."""
        return self._backend.loaded.template is not None

    def __call__(
        self,
        prompt: str,
        *,
        mode: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        given: Mapping[str, Any] | None = None,
        regex: str | None = None,
        schema: Any = None,
        grammar: str | None = None,
        **sampling,
    ) -> Generation:
        """Generate: `ask` for an answer, continue a `text`, or write `code`.

        `history` are the turns before; `given` values by their names are described before the prompt (`describe`).
        `regex`, `schema` (JSON Schema, or shorthand: `"name, age int, tags list"`) or `grammar` (llguidance's Lark) is
        the form that the output gets: then `.value` of the result is what was read from it. `sampling` are fields of
        `Sampling`. An interrupt raises `GenerationInterrupted`, a KeyboardInterrupt that has the partial result in
        `.generation`.
        """
        form = {"regex": regex, "schema": schema, "grammar": grammar}
        return finish(self.stream(prompt, mode=mode, system=system, history=history, given=given, **form, **sampling))

    def stream(self, prompt: str, **options: Unpack[PromptOptions]) -> Stream:
        """The same, token by token. `.generation` of what is returned is all that came so far."""
        return self.start(self.prompt(prompt, **options))

    def prompt(
        self,
        text: str,
        *,
        mode: str | None = None,
        system: str | None = None,
        history: Sequence[Message] = (),
        given: Mapping[str, Any] | None = None,
        regex: str | None = None,
        schema: Any = None,
        grammar: str | None = None,
        **sampling,
    ) -> Prompt:
        """What exactly would go into the model; nothing is generated."""
        mode = mode or ("ask" if self.is_chat else "text")
        if mode not in MODES:
            raise OptionError(f"there is no mode {mode!r}", f"the nearest are {nearest(mode, MODES)}")
        if given:
            text = f"{join_given(self.describe(given))}\n\n{text}"
        form = make_form(regex, schema, grammar)
        settings = replace_sampling(self.defaults if form is None else suit_form(self.defaults), sampling)
        return self._backend.make_prompt(text, mode, system, history, settings, form)

    def describe(self, values: Mapping[str, Any], budget_tokens: int = GIVEN_TOKENS) -> tuple[Given, ...]:
        """Values as text for a prompt, within a number of tokens: a frame as its schema, its shape and a few rows.

        An object says itself what it is by a method `_repr_llm_()`. What was left out is said.
        """
        return describe_all(values, budget_tokens, self.count_tokens)

    def samples(self, prompt: str, n: int, **options: Unpack[PromptOptions]) -> Samples:
        """`n` generations of one prompt, decoded together; the i-th is the single run with sample i.

        An interrupt raises `GenerationInterrupted` with the samples so far in `.generation`.
        """
        batch = self.start_samples(self.prompt(prompt, **options), n)
        try:
            batch.finish()
        except KeyboardInterrupt:
            raise GenerationInterrupted(Samples(batch.generations)) from None
        return Samples(batch.generations)

    def start_samples(self, prompt: Prompt, n: int) -> Batch:
        """`samples`, token by token."""
        if not 1 <= n <= MAX_SAMPLES:
            raise OptionError(f"samples is {n}", f"give a whole number from 1 to {MAX_SAMPLES}")
        return self.start_batch([(prompt, i) for i in range(n)])

    def choose(self, prompt: str, choices: Sequence[str], **options: Unpack[PromptOptions]) -> Choices:
        """How likely each of some given answers is: exactly, as a continuation of the prompt, not sampled.

        Raises for a choice that is empty or stands twice. One whose tokens begin another's is weighed without that.
        """
        return self.choose_behind(self.prompt(prompt, **options), choices)

    def choose_behind(self, prompt: Prompt, choices: Sequence[str]) -> Choices:
        """`choose` behind a prompt made by `prompt()`."""
        texts = check_choices(choices)
        return next(self._backend.weigh([self._backend.check_room(prompt, texts)], texts))

    def rank(self, question: str, answers: Sequence[str], **options: Unpack[PromptOptions]) -> Ranking:
        """Whole answers to a question, the most likely first, each with the probability of its tokens behind it."""
        texts, prompt = check_choices(answers), self.prompt(question, **options)
        scores = [self._backend.score_behind(prompt, text) for text in texts]
        return Ranking(question, tuple(sorted(scores, key=lambda score: -score.total_logprob)))

    def map(
        self,
        template: str,
        items: Iterable,
        *,
        choices: Sequence[str] | None = None,
        track: Track | None = show_progress,
        **options: Unpack[PromptOptions],
    ) -> Any:
        """A generation for each item, in their order, or with `choices` how likely each of them is: what prompts have
        in common is computed once, and answers are decoded together.

        The values of a data frame's columns go into the template's `{holes}` of their names; the frame comes back with
        columns `label`, `probability` and `result`, or `answer` (with a form, `value`) and `result`. Of a list, a
        mapping's values go into the holes of their names, anything else into every hole; a list comes back. Where a
        value is missing, or a prompt longer than the context, there is no result, and a warning names the rows.

        `track` shows the progress; None shows nothing. An interrupt raises `GenerationInterrupted` with what came so
        far in `.generation`; the same call again goes on from there.
        """
        texts = None if choices is None else check_choices(choices)
        items = take_items(items)

        def make_prompt(text: str) -> Prompt:
            prompt = self.prompt(text, **options)
            return self._backend.check_room(prompt, texts) if texts else prompt

        run = Run(
            read_rows(template, items),
            make_prompt,
            lambda prompts: self.start_batch([(prompt, 0) for prompt in prompts]),
            texts and (lambda prompts: self._backend.weigh(prompts, texts)),
            texts,
            self._unfinished,
        )
        has_form = any(options.get(name) is not None for name in ("regex", "schema", "grammar"))
        return run_rows(run, items, has_form, track, self._unfinished)

    # ready-made tasks and looking inside: each a function of its own, in work.py and study/inside.py
    code, fix, explain, ask_explanation, use = work.code, work.fix, work.explain, work.ask_explanation, work.use
    summarize, condense, translate = work.summarize, work.condense, work.translate
    trace, lens, attention, neighbors = inside.trace, inside.lens, inside.attention, inside.neighbors

    @property
    def decoder(self) -> Decoder:
        """The engine's decoder: its weights and layers."""
        return self._backend.decoder

    def encode(self, text: str) -> list[int]:
        """The ids of a raw text, behind the beginning-of-text token where the model has one."""
        return self._backend.encode(text)

    def name_token(self, token_id: int) -> str:
        """The text of a single token."""
        return self._backend.tokenizer.text_of(token_id)

    def count_tokens(self, text: str) -> int:
        """How many tokens a raw text has."""
        return len(self._backend.tokenizer.encode(text))

    def start_batch(self, prompts: Sequence[tuple[Prompt, int]]) -> Batch:
        """Several generations decoded together, each behind a prompt, with its sample's number."""
        # the batch fills the streams: none of them runs by itself
        streams = [Stream(lambda stream: iter(()), made, made.sampling, i, maker=self) for made, i in prompts]
        return Batch(self._backend.run_batch, streams)

    def start(self, prompt: Prompt, sample: int = 0, namespace: Mapping[str, Any] | None = None) -> Stream:
        """Generate behind a prompt made by `prompt()`, with the settings it holds.

        Code is checked against the names of a namespace: `.problems` of the generation.
        """
        return Stream(self._backend.run, prompt, prompt.sampling, sample, maker=self, namespace=namespace)

    @property
    def has_infill(self) -> bool:
        """Whether the model was trained to write between two texts."""
        return self._backend.has_infill

    def start_infill(self, before: str, after: str = "", **sampling) -> tuple[Stream, str]:
        """What stands at a cursor between two texts, token by token, and what its beginning repeats of `before`.

        Where the model has no infill, `after` is not read.
        """
        if not before:
            raise OptionError("nothing stands before the cursor", "write a beginning")
        settings = replace_sampling(self.defaults, sampling)
        prompt, forced_ids, repeated = self._backend.make_infill(before, after, settings)
        stream = Stream(self._backend.run, prompt, settings, maker=self, forced_ids=forced_ids)
        return stream, repeated

    def score(self, text: str, context: str = "") -> Score:
        """logprob, rank and entropy of every token of a given text, without a chat template.

        Behind a `context`, only the text's own tokens are scored; a context that was there before is not
        computed again.
        """
        return self._backend.score(text, context)

    def next(self, text: str, k: int = 10) -> Distribution:
        """The k most likely tokens behind a text, without a chat template."""
        return self._backend.next(text, check_k(k))

    def tokenize(self, text: str) -> Prompt:
        """The ids and pieces that a raw text is cut into; it may be longer than the context."""
        return self._backend.tokenize(text)

    def replay(self, generation: Generation | Record) -> Generation:
        """Generate again: the same prompt, each token with the settings and seed that it had, or put there again.

        Of a record of the history, the same prompt with the settings that it ended with. Raises where the stop texts
        changed on the way: no single run gives that.
        """
        if isinstance(generation, Record):
            return finish(self.start(self.read_prompt(generation), generation.extra.get("sample", 0)))
        return finish(self.start_replay(generation))

    def history(self, term: str = "", limit: int = 20) -> list[Record]:
        """What was asked with `%llm` on this machine and in what all words of `term` occur, the newest first."""
        return open_history().find(term, limit)

    def start_replay(self, generation: Generation) -> Stream:
        """`replay`, token by token."""
        for index, token in enumerate(generation.tokens):
            if token.sampling and token.sampling.stop != generation.sampling.stop:
                raise OptionError(f"the stop texts changed before token {index}", "replay the parts")
        g, run = generation, self._backend.run
        return Stream(run, g.prompt, g.sampling, g.sample, maker=self, script=g)

    def read_prompt(self, record: Record) -> Prompt:
        """The prompt of a record of the history. Raises where a secret was removed from it."""
        parts = read_prompt_parts(record)
        self._backend.check_ids(parts["ids"])
        return self._backend.to_prompt(**parts)

    def read_pieces(self, ids: Sequence[int]) -> list[str]:
        """The texts of single tokens."""
        return list(self._backend.tokenizer.pieces(ids))

    def restore(self, record: Record) -> Generation:
        """A record's answer with the probabilities that this model gives its tokens; nothing is sampled."""
        prompt, ids = self.read_prompt(record), record.token_ids
        self._backend.check_ids(ids)
        if not ids:
            return Generation(prompt, (), record.finish_reason, prompt.sampling, maker=self)
        settings = replace_sampling(prompt.sampling, {"max_tokens": len(ids)})
        made = finish(Stream(self._backend.run, prompt, settings, maker=self, forced_ids=ids))
        return dataclasses.replace(made, finish_reason=record.finish_reason, sampling=prompt.sampling)

    def start_again(
        self, generation: Generation, settings: Sampling, namespace: Mapping[str, Any] | None = None
    ) -> Stream:
        """Generate behind the same prompt, with settings of its own, token by token."""
        prompt, run = generation.prompt, self._backend.run
        return Stream(run, prompt, settings, generation.sample, maker=self, namespace=namespace)

    def continue_from(self, generation: Generation, **changes) -> Generation:
        """Go on from the last token of a generation that the model did not end; both parts as one.

        `max_tokens` counts those to come.
        """
        return finish(self.start_from(generation, **changes))

    def start_from(self, generation: Generation, namespace: Mapping[str, Any] | None = None, **changes) -> Stream:
        """`continue_from`, token by token."""
        if generation.finish_reason == "stop":
            raise OptionError("the model has ended its text", "ask on with -c, or retry with another seed")
        n_more = changes.pop("max_tokens", self.defaults.max_tokens)
        settings = replace_sampling(generation.sampling, {"max_tokens": n_more} | changes)
        settings = replace_sampling(settings, {"max_tokens": len(generation.tokens) + n_more})
        return Stream(
            self._backend.run,
            generation.prompt,
            settings,
            generation.sample,
            given=generation.tokens,
            maker=self,
            namespace=namespace,
        )

    def branch_from(self, generation: Generation, index: int, token: str | int, **changes) -> Generation:
        """What would have come, had `token` stood at `index`; `max_tokens` counts those to come."""
        return finish(self.start_branch(generation, index, token, **changes))

    def start_branch(
        self,
        generation: Generation,
        index: int,
        token: str | int,
        namespace: Mapping[str, Any] | None = None,
        **changes,
    ) -> Stream:
        """`branch_from`, token by token. An index behind the last token overrules the end of the text."""
        index = find_index(generation, index, len(generation.tokens))
        standing = generation.tokens[index] if index < len(generation.tokens) else generation.end
        forced_ids = self._backend.read_token(token, standing)
        kept = generation.tokens[:index]
        self._backend.check_form(generation.prompt.form, kept, forced_ids)
        n_more = changes.pop("max_tokens", generation.prompt.sampling.max_tokens)
        settings = replace_sampling(generation.sampling, changes)
        settings = replace_sampling(settings, {"max_tokens": index + len(forced_ids) + n_more})
        return Stream(
            self._backend.run,
            generation.prompt,
            settings,
            generation.sample,
            given=kept,
            maker=self,
            forced_ids=forced_ids,
            namespace=namespace,
        )

    def distribution_at(self, generation: Generation, index: int, k: int = 20, **changes) -> Distribution:
        """What the token at `index` was chosen from, exactly: under its own settings, or changed ones."""
        tokens = (*generation.tokens, generation.end) if generation.end else generation.tokens
        index = find_index(generation, index, len(tokens) - 1)
        settings = replace_sampling(tokens[index].sampling or generation.sampling, changes)
        return self._backend.distribution(generation.prompt, generation.tokens[:index], settings, check_k(k))

    def forget(self) -> None:
        """Empty the prefix cache, and what is left of maps that were interrupted."""
        self._backend.prefix_cache.clear()
        self._unfinished.clear()

    @property
    def info(self) -> ModelInfo:
        loaded, config = self._backend.loaded, self._backend.decoder.config
        return ModelInfo(
            name=loaded.name,
            path=str(loaded.path),
            architecture=config.architecture,
            format=loaded.format,
            parameters=config.n_parameters,
            layers=config.n_layers,
            heads=config.n_heads,
            kv_heads=config.n_kv_heads,
            width=config.d_model,
            vocabulary_tokens=config.vocabulary_tokens,
            context_tokens=config.context_tokens,
            is_chat=self.is_chat,
            device=str(self._backend.decoder.device),
            file_bytes=loaded.file_bytes,
            weights_bytes=self._backend.decoder.n_bytes,
            cache_bytes=self._backend.prefix_cache.n_bytes,
            sha256=self._sha256,
            license=loaded.license,
        )

    def __deepcopy__(self, memo) -> LLM:
        """A model is not copied with the results that hold it."""
        return self

    def __repr__(self) -> str:
        if self._loaded is None:
            return f"<LLM {self.name}: unloaded>"
        return f"<LLM {self.name}: {self.info.parameters / 1e6:,.0f}M parameters, {self._backend.loaded.format}>"
