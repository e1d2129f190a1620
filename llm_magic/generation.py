"""The values that all parts speak: Sampling, Token, Prompt, Generation, Score, Distribution."""

from __future__ import annotations

import dataclasses
import math
import numbers
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from llm_magic.comparison import Comparison
from llm_magic.errors import OptionError, nearest
from llm_magic.faces import Shown, Viewed
from llm_magic.form import FORM_TOKENS, Form
from llm_magic.frames import import_pandas
from llm_magic.pycode import Problem

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, and when to stop. Applied in the order of the fields.

    Defaults suit a small instruct model: nearly greedy, with enough penalty to leave loops.

    >>> Sampling(temperature=0.7, seed=3).temperature
    0.7
    >>> Sampling(top_p=1.4)
    Traceback (most recent call last):
    llm_magic.errors.OptionError: top_p is 1.4: give a value above 0, up to 1 (1 keeps all tokens)
    """

    repetition_penalty: float = 1.05
    """Divides the positive logits of tokens that already occur (CTRL, arXiv:1909.05858); 1 is off."""
    temperature: float = 0.2
    """Divides the logits; 0 takes the best token always."""
    top_k: int = 40
    """Keeps the k best tokens; 0 is off."""
    top_p: float = 0.9
    """Keeps the smallest set of tokens whose probabilities reach p (arXiv:1904.09751); 1 is off."""
    min_p: float = 0.0
    """Drops tokens less likely than min_p times the best one (arXiv:2407.01082); 0 is off."""
    max_tokens: int = 256
    """Ends the generation after this many tokens."""
    stop: tuple[str, ...] = ()
    """Ends the generation where one of these texts begins."""
    seed: int = 0
    """The same seed, prompt and model give the same tokens."""

    def __post_init__(self):
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        object.__setattr__(self, "stop", stop)
        for name, is_valid, advice in _RANGES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not is_valid(value):
                raise OptionError(f"{name} is {value!r}", advice)
            plain = int(value) if isinstance(value, numbers.Integral) else float(value)  # of numpy's, too
            object.__setattr__(self, name, plain)
        if any(not isinstance(text, str) or not text for text in stop):
            raise OptionError(f"stop is {self.stop!r}", "give texts of at least one character")


def _is_whole(value) -> bool:
    return isinstance(value, numbers.Integral)


_RANGES = (
    ("repetition_penalty", lambda v: 0.1 <= v <= 10, "give a value from 0.1 to 10 (1 is off)"),
    ("temperature", lambda v: v == 0 or 0.01 <= v <= 100, "give 0 (always the best token) or a value from 0.01 to 100"),
    ("top_k", lambda v: _is_whole(v) and v >= 0, "give a whole number, 0 or more (0 keeps all tokens)"),
    ("top_p", lambda v: 0 < v <= 1, "give a value above 0, up to 1 (1 keeps all tokens)"),
    ("min_p", lambda v: 0 <= v < 1, "give a value from 0 (off) to below 1"),
    ("max_tokens", lambda v: _is_whole(v) and v >= 1, "give a whole number, 1 or more"),
    ("seed", lambda v: _is_whole(v) and 0 <= v < 2**63, "give a whole number, 0 or more, below 2**63"),
)


MAX_SAMPLES = 64
TAIL_BINS, TAIL_SPAN = 32, 36.0  # beyond this distance a token is too unlikely to count, at temperatures up to 2


@dataclass(frozen=True, slots=True)
class Tail:
    """All tokens that are not among a token's alternatives, as a histogram of their logprobs behind the penalties.

    Bin i of n holds those that lie from span (i/n)² to span ((i+1)/n)² below `highest`, the last one all beyond too:
    so a distribution under other settings can be told to a tenth of a percent without the vocabulary. `data` are
    little-endian fp32 pairs, a bin's number of tokens and the sum of their distances from `highest`.
    """

    highest: float
    data: bytes

    @property
    def bins(self) -> tuple[tuple[float, float], ...]:
        """Of each bin the number of tokens, and their mean logprob (0 where there are none)."""
        pairs = struct.iter_unpack("<2f", self.data)
        return tuple((n, self.highest - gaps / n if n else 0.0) for n, gaps in pairs)


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have stood there; `logprob` is the model's own, as in `Token`.

    `penalty` is what penalties added to its logit before the choice, in nats: mostly 0 or below.
    """

    id: int
    text: str
    logprob: float
    penalty: float = 0.0

    @property
    def probability(self) -> float:
        return math.exp(self.logprob)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text, with what the model thought of it.

    `logprob` is the natural logarithm of the model's own probability, at temperature 1, before
    any penalty or filter; `None` where there is nothing before the token to condition on.
    `sampled_logprob` is that under penalties, temperature and filters; `None` where the token was not
    sampled: in a scored text, or put there by a branch.
    `rank` is 1 for the most likely token. `entropy` is that of the model's own distribution, in
    nats. `text` is what became readable with this token: where a character's bytes are spread
    over several tokens, all of it stands at the last. `alternatives` are the best tokens, `tail` all others.
    Where the output has a form, `constrained_logprob` is that among the tokens which the form allows, and the penalty
    of those that it does not is minus infinity.
    """

    id: int
    bytes: bytes
    text: str
    logprob: float | None
    sampled_logprob: float | None = None
    rank: int | None = None
    entropy: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    sampling: Sampling | None = field(default=None, compare=False)
    ms: float | None = field(default=None, compare=False)
    penalty: float = 0.0
    tail: Tail | None = field(default=None, repr=False)
    constrained_logprob: float | None = None

    @property
    def probability(self) -> float | None:
        return None if self.logprob is None else math.exp(self.logprob)

    @property
    def constrained_probability(self) -> float | None:
        return None if self.constrained_logprob is None else math.exp(self.constrained_logprob)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt(Shown):
    """What exactly goes into the model: the text with its special tokens, and its ids.

    `text` is the rendered chat template in mode `ask`; `pieces` are the texts of the single
    tokens; `messages` the conversation it was made from (empty in mode `text`); `form` what the output must be like.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    mode: str
    model: str
    context_tokens: int
    messages: tuple[Message, ...] = ()
    sampling: Sampling = Sampling()
    form: Form | None = None

    @property
    def room_tokens(self) -> int:
        """How many tokens the answer may have before the context is full."""
        return self.context_tokens - len(self.ids)


@dataclass(frozen=True)
class KnownModel:
    """A model by the name that `-m` takes; `where` says whether it is loaded, here, or to be fetched."""

    name: str
    where: str
    note: str = ""


@dataclass(frozen=True)
class ModelTable(Shown):
    """The models that have a name."""

    models: tuple[KnownModel, ...]


class Maker(Protocol):
    """What a generation needs of the model that made it."""

    def replay(self, generation: Generation) -> Generation: ...

    def continue_from(self, generation: Generation, **changes) -> Generation: ...

    def branch_from(self, generation: Generation, index: int, token: str | int, **changes) -> Generation: ...

    def distribution_at(self, generation: Generation, index: int, k: int, **changes) -> Distribution: ...


@dataclass(frozen=True)
class Generation(Viewed):
    """What a model wrote: a text, and for each of its tokens what else could have stood there.

    `finish_reason` is `stop` (the model ended its turn, or a stop text came), `length` or
    `interrupted`. `end` is the end-of-turn token where the model chose it: it is no part of
    `tokens`, nor of the text. `cached_tokens` of the prompt were taken from the prefix cache. `problems`
    are what was found wrong with code, where it was checked. Two
    generations are equal when all but their timing is, to the last bit of every probability.
    """

    prompt: Prompt
    tokens: tuple[Token, ...]
    finish_reason: str
    sampling: Sampling
    end: Token | None = None
    sample: int = 0
    cached_tokens: int = field(default=0, compare=False)
    prefill_ms: float = field(default=0.0, compare=False)
    decode_ms: float = field(default=0.0, compare=False)
    maker: Maker | None = field(default=None, repr=False, compare=False)
    problems: tuple[Problem, ...] = field(default=(), compare=False)

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def value(self) -> Any:
        """The text as a value, where it has a form: parsed for a schema. None where it was cut off, or has none."""
        form = self.prompt.form
        return form.read(self.text) if form is not None and self.finish_reason == "stop" else None

    @property
    def model(self) -> str:
        return self.prompt.model

    @property
    def seed(self) -> int:
        return self.sampling.seed

    @property
    def total_logprob(self) -> float:
        return sum(token.logprob for token in self.tokens)

    @property
    def perplexity(self) -> float | None:
        """exp of the mean negative logprob of the tokens, the model's own."""
        return _perplexity(self.tokens)

    @property
    def tokens_per_second(self) -> float | None:
        """Decoded tokens a second, without the prompt's prefill; `None` below two tokens."""
        return 1000 * len(self.tokens) / self.decode_ms if self.decode_ms > 0 and len(self.tokens) > 1 else None

    @property
    def context_used(self) -> int:
        """Tokens of the prompt and the answer together."""
        return len(self.prompt.ids) + len(self.tokens)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation with this answer as its last turn; empty in mode `text`."""
        return (*self.prompt.messages, Message("assistant", self.text)) if self.prompt.messages else ()

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row for each token."""
        return _tokens_to_pandas(self.tokens)

    def replay(self) -> Generation:
        """Generate again, with the same prompt, settings and seed."""
        return _require_maker(self).replay(self)

    def continue_(self, **changes) -> Generation:
        """Go on from the last token; `changes` are fields of `Sampling`. Returns both parts as one."""
        return _require_maker(self).continue_from(self, **changes)

    def branch(self, index: int, token: str | int, **changes) -> Generation:
        """What would have come, had `token` stood at `index`: a text (one of the alternatives, or any other), or an id.

        The tokens before are kept, and not computed again. `changes` are fields of `Sampling`.
        """
        return _require_maker(self).branch_from(self, index, token, **changes)

    def distribution(self, index: int, k: int = 20, **changes) -> Distribution:
        """What the token at `index` was chosen from, exactly: under its own settings, or changed ones."""
        return _require_maker(self).distribution_at(self, index, k, **changes)

    def diff(self, other: Generation) -> Comparison:
        """Both side by side, with what differs."""
        return Comparison((self, other))

    def _repr_llm_(self) -> str:
        return self.text

    def __getstate__(self) -> dict[str, Any]:
        """What is saved of a generation: all but its model."""
        return self.__dict__ | {"maker": None}

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Score(Viewed):
    """The model's probability of each token of a given text.

    The first token has no probability where nothing stands before it: its `logprob` is `None`,
    and it counts neither in `perplexity` nor in `total_logprob`.
    """

    tokens: tuple[Token, ...]
    model: str
    context_tokens: int

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def total_logprob(self) -> float:
        return sum(token.logprob for token in self.tokens if token.logprob is not None)

    @property
    def perplexity(self) -> float | None:
        """exp of the mean negative logprob of the scored tokens."""
        return _perplexity(self.tokens)

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row for each token."""
        return _tokens_to_pandas(self.tokens)


@dataclass(frozen=True)
class Samples(Viewed):
    """Several generations of one prompt: a sequence of them, that shows them side by side."""

    generations: tuple[Generation, ...]

    def __len__(self) -> int:
        return len(self.generations)

    def __getitem__(self, index):
        return self.generations[index]

    def __iter__(self) -> Iterator[Generation]:
        return iter(self.generations)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(generation.text for generation in self.generations)

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row for each generation."""
        rows = [
            {
                "sample": g.sample,
                "text": g.text,
                "tokens": len(g.tokens),
                "total_logprob": g.total_logprob,
                "perplexity": g.perplexity,
                "finish_reason": g.finish_reason,
            }
            for g in self.generations
        ]
        return import_pandas().DataFrame(rows)


@dataclass(frozen=True)
class Distribution(Shown):
    """What could come next: the best tokens with their probabilities.

    These are the model's own at temperature 1, or those that `sampling` leaves; `kept_tokens` have any.
    `entropy` is that of the whole distribution, in nats; `rest` is the probability of all tokens that
    are not in `top`.
    """

    text: str
    top: tuple[Alternative, ...]
    entropy: float
    vocabulary_tokens: int
    model: str
    sampling: Sampling | None = None
    kept_tokens: int | None = None

    @property
    def rest(self) -> float:
        return max(0.0, 1.0 - sum(alternative.probability for alternative in self.top))

    def __iter__(self) -> Iterator[Alternative]:
        return iter(self.top)

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row for each of the best tokens."""
        rows = [
            {"id": a.id, "text": a.text, "logprob": a.logprob, "probability": a.probability, "rank": i}
            for i, a in enumerate(self.top, 1)
        ]
        return import_pandas().DataFrame(rows)


@dataclass(frozen=True)
class ModelInfo(Shown):
    """A loaded model in figures. `weights_bytes` and `cache_bytes` are what it holds in memory."""

    name: str
    path: str
    architecture: str
    format: str
    parameters: int
    layers: int
    heads: int
    kv_heads: int
    width: int
    vocabulary_tokens: int
    context_tokens: int
    is_chat: bool
    device: str
    file_bytes: int
    weights_bytes: int
    cache_bytes: int
    sha256: str | None
    license: str | None = None


def _require_maker(generation: Generation) -> Maker:
    if generation.maker is None:
        raise OptionError("this generation has no model at hand", "load one and pass it the prompt again")
    return generation.maker


def _perplexity(tokens: tuple[Token, ...]) -> float | None:
    logprobs = [token.logprob for token in tokens if token.logprob is not None]
    return math.exp(-sum(logprobs) / len(logprobs)) if logprobs else None


def _tokens_to_pandas(tokens: tuple[Token, ...]) -> pandas.DataFrame:
    columns = ("id", "text", "bytes", "logprob", "probability", "sampled_logprob", "rank", "entropy", "ms")
    rows = [[getattr(token, name) for name in columns] for token in tokens]
    frame = import_pandas().DataFrame(rows, columns=list(columns))
    frame["alternatives"] = [{a.text: a.probability for a in token.alternatives} for token in tokens]
    return frame


def replace_sampling(sampling: Sampling, changes: dict[str, Any]) -> Sampling:
    """`sampling` with some fields changed; an unknown field raises with the nearest names."""
    names = [f.name for f in dataclasses.fields(Sampling)]
    for name in changes:
        if name not in names:
            raise OptionError(f"there is no option {name!r}", f"the nearest are {nearest(name, names)}")
    return dataclasses.replace(sampling, **changes)


def suit_form(defaults: Sampling) -> Sampling:
    """Defaults for an output with a form: room to end, no stop texts, no penalty on what it copies from the prompt."""
    is_untouched = defaults.max_tokens == Sampling().max_tokens
    max_tokens = FORM_TOKENS if is_untouched else defaults.max_tokens
    return dataclasses.replace(defaults, max_tokens=max_tokens, repetition_penalty=1.0, stop=())
