"""A running generation: iterate for its tokens, ask at any time for what there is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_magic.engine.generate import Order
from llm_magic.errors import GenerationInterrupted, OptionError
from llm_magic.form import Form
from llm_magic.generation import Generation, Maker, Prompt, Sampling, Token, replace_sampling
from llm_magic.pycode import Problem, find_problems

if TYPE_CHECKING:
    from llm_magic.text.constrain import Constraint


class Stream:
    """Tokens as they are made; `generation` is the value of all that came so far.

    A backend writes into the fields below while it runs. `stop()` and `steer()` may be called from another thread or
    a signal handler: the generation ends before its next token, as `interrupted`; or goes on under other settings.

    `given` are tokens that are there already, `forced_ids` those that come first, whatever the model would choose.
    Code is checked against a `namespace` when it is done.
    A replay follows a `script`: each token is chosen with the settings, or forced, as it was; it ends where that did.
    """

    def __init__(
        self,
        run: Callable[[Stream], Iterator[Token]],
        prompt: Prompt,
        sampling: Sampling,
        sample: int = 0,
        given: Sequence[Token] = (),
        maker: Maker | None = None,
        forced_ids: Sequence[int] = (),
        script: Generation | None = None,
        namespace: Mapping[str, Any] | None = None,
    ):
        refuse_stops(prompt.form, sampling)
        self.prompt, self.sampling, self.sample, self.maker = prompt, sampling, sample, maker
        self.tokens = list(given)
        self._forced = dict(enumerate(forced_ids, start=len(given)))
        self._n_before = len(given) + len(forced_ids)
        tokens = () if script is None else (*script.tokens, *((script.end,) if script.end else ()))
        self._forced |= {i: token.id for i, token in enumerate(tokens) if token.sampled_logprob is None}
        self._script = [token.sampling for token in tokens]
        self._replayed = script
        self.finish_reason = "interrupted"
        self.end: Token | None = None
        self.cached_tokens = 0
        self.prefill_ms = 0.0
        self.decode_ms = sum(token.ms or 0.0 for token in given)
        self.is_stopped = False
        self._namespace = namespace
        self.constraint: Constraint | None = None  # of the prompt's form, once the backend has begun
        self._iterator = run(self)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Token:
        token = next(self._iterator)
        self.tokens.append(token)
        return token

    def stop(self) -> None:
        """End the generation before its next token."""
        self.is_stopped = True

    def close(self) -> None:
        """Give back what the generation holds, where nobody asks for its next token."""
        self._iterator.close()

    def steer(self, **changes) -> None:
        """Change the settings of the tokens to come, `max_tokens` counting these; stop texts stay, and a replay."""
        changes.pop("stop", None)
        if self._replayed is not None:
            return
        if "max_tokens" in changes:
            changes["max_tokens"] += self._n_before
        self.sampling = replace_sampling(self.sampling, changes)

    @property
    def limit_tokens(self) -> int:
        """How many tokens the text may have."""
        ends_early = self._replayed is not None and self._replayed.finish_reason != "stop"
        return len(self._replayed.tokens) if ends_early else self.sampling.max_tokens

    @property
    def limit_reason(self) -> str:
        """Why a text ends that has as many."""
        return "length" if self._replayed is None else self._replayed.finish_reason

    def plan(self, index: int) -> Order:
        """How the token at `index` is chosen."""
        of_script = self._script[index] if index < len(self._script) else None
        allowed = self.constraint.allowed() if self.constraint else None
        return Order(of_script or self.sampling, self._forced.get(index), allowed)

    @property
    def generation(self) -> Generation:
        return Generation(
            prompt=self.prompt,
            tokens=tuple(self.tokens),
            finish_reason=self.finish_reason,
            sampling=self.sampling,
            end=self.end,
            sample=self.sample,
            cached_tokens=self.cached_tokens,
            prefill_ms=self.prefill_ms,
            decode_ms=self.decode_ms,
            maker=self.maker,
            problems=self._find_problems(),
        )

    def _find_problems(self) -> tuple[Problem, ...]:
        """What is wrong with code that is there as far as it goes."""
        if self._namespace is None or self.finish_reason == "interrupted":
            return ()
        return find_problems("".join(token.text for token in self.tokens), self._namespace)


def refuse_stops(form: Form | None, sampling: Sampling) -> None:
    """Raise for stop texts beside a form: what they cut off would not have it."""
    if form is not None and sampling.stop:
        raise OptionError(f"a stop text and a {form.kind} exclude each other", "leave out one of them")


def finish(stream: Stream) -> Generation:
    """All of a stream. An interrupt raises `GenerationInterrupted` with what came by then."""
    try:
        for _ in stream:
            pass
    except KeyboardInterrupt:
        stream.finish_reason = "interrupted"
        raise GenerationInterrupted(stream.generation) from None
    return stream.generation


class Batch:
    """Several running generations, decoded together: iterate for their tokens as they come."""

    def __init__(self, run: Callable[[Sequence[Stream]], Iterator[Token]], streams: Sequence[Stream]):
        self.streams = tuple(streams)
        self._iterator = run(self.streams)

    def __iter__(self) -> Batch:
        return self

    def __next__(self) -> Token:
        return next(self._iterator)

    def stop(self) -> None:
        """End all of them before their next tokens."""
        for stream in self.streams:
            stream.stop()

    @property
    def is_stopped(self) -> bool:
        return any(stream.is_stopped for stream in self.streams)

    def finish(self) -> None:
        """Run to the end."""
        for _ in self:
            pass

    def follow(self) -> Generator[float, None, None]:
        """Run to the end, and yield the share of generations that are done."""
        for _ in self:
            yield sum(stream.finish_reason != "interrupted" for stream in self.streams) / len(self.streams)

    @property
    def generations(self) -> tuple[Generation, ...]:
        return tuple(stream.generation for stream in self.streams)


def check_k(k: int) -> int:
    """A number of tokens to list."""
    if k < 1:
        raise OptionError(f"k is {k}", "give a whole number, 1 or more")
    return k


def find_index(generation: Generation, index: int, last: int) -> int:
    """An index of a token, counted from the end where it is negative."""
    found = index + len(generation.tokens) if index < 0 else index
    if not 0 <= found <= last:
        raise OptionError(f"there is no token {index}", f"the text has {len(generation.tokens)}, counted from 0")
    return found
