"""What is saved of an answer: text, HTML without script, and its figures, for whoever can draw them again.

`application/vnd.llm-magic.tokens+json`, version 1, is

    {"version": 1, "key": …, "texts": [{"name", "before", "status": [line], "tokens": [text]}], "words": [[id, text]],
     "settings": [{field of Sampling: value}], "records": base64}

Of code that was found wrong, a text also has its `problems`: [[index of a token, what is wrong]].

`key`, of what was generated alone, is a digest of all of it, by which the kernel that made it finds it again. There is
one record for each token of each text, in their order, little-endian:

    u32 id, u32 rank, i16 number of its settings (-1: none), u8 n listed, u8 flags (1: no logprob, 2: not sampled),
    f32 logprob, f32 sampled logprob, f16 penalty, f16 entropy, f32 highest logprob of the tail, u32 mask,
    n times u24 id, n times f16 logprob, then f16 penalty of each listed token whose bit of the mask is set;
    32 times f16 square root of a tail bin's count, 32 times f16 mean distance from the tail's highest (`Tail`).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import struct
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from llm_magic.faces import FACES
from llm_magic.generation import TAIL_BINS, Generation, Samples, Sampling, Score, Token
from llm_magic.views import answer
from llm_magic.views.columns import name_sample
from llm_magic.views.feed import LISTED
from llm_magic.views.safe import show_controls

MIME = "application/vnd.llm-magic.tokens+json"
VERSION = 1
_HEAD = struct.Struct("<IIhBBffeefI")
MADE: WeakValueDictionary[str, Generation | Samples] = WeakValueDictionary()  # by their keys
_NO_LOGPROB, _NOT_SAMPLED = 1, 2
_HALF_MAX = 65504.0


def make_bundle(value: Any, notes: Sequence[str] = ()) -> dict[str, Any]:
    """A value's faces by their MIME types, with notes below it."""
    face = FACES[type(value)]
    if isinstance(value, Generation | Score | Samples):
        return {
            "text/plain": face.text(value, notes),
            "text/html": face.html(value, notes),
            MIME: encode_tokens(value, notes),
        }
    lines = [f"[{show_controls(note)}]" for note in notes]
    return {
        "text/plain": "\n".join([face.text(value), *lines]),
        "text/html": face.html(value) + answer.render_lines(notes),
    }


def encode_tokens(value: Generation | Score | Samples, notes: Sequence[str] = ()) -> dict[str, Any]:
    """A text's tokens, or those of several, with their alternatives and tails."""
    texts = list(value) if isinstance(value, Samples) else [value]
    words: dict[int, str] = {}
    settings: list[Sampling] = []
    records, described = [], []
    for text in texts:
        is_generation = isinstance(text, Generation)
        described.append(
            {
                "name": name_sample(text) if isinstance(value, Samples) else "",
                "before": show_controls(answer.continued_text(text.prompt)) if is_generation else "",
                "status": [show_controls(line) for line in answer.status_lines(text, notes)],
                "tokens": [show_controls(token.text) for token in text.tokens],
            }
        )
        if marked := answer.find_marked(text):
            described[-1]["problems"] = [[index, show_controls(problem)] for index, problem in marked.items()]
        records += [_encode(token, words, settings) for token in text.tokens]
    data = {
        "version": VERSION,
        "texts": described,
        "words": [[token_id, word] for token_id, word in words.items()],
        "settings": list(map(dataclasses.asdict, settings)),
        "records": base64.b64encode(b"".join(records)).decode(),
    }
    if not isinstance(value, Score):
        # as long as somebody holds the value, a page can ask for it
        key = data["key"] = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]
        MADE[key] = value
    return data


def _encode(token: Token, words: dict[int, str], settings: list[Sampling]) -> bytes:
    listed = token.alternatives[:LISTED]
    for other in listed:
        words.setdefault(other.id, show_controls(other.text))
    if token.sampling is not None and token.sampling not in settings:
        settings.append(token.sampling)
    flags = _NO_LOGPROB * (token.logprob is None) + _NOT_SAMPLED * (token.sampled_logprob is None)
    penalised = [other.penalty for other in listed if other.penalty]
    head = _HEAD.pack(
        token.id,
        token.rank or 0,
        -1 if token.sampling is None else settings.index(token.sampling),
        len(listed),
        flags,
        token.logprob or 0.0,
        token.sampled_logprob or 0.0,
        _half(token.penalty),
        _half(token.entropy or 0.0),
        token.tail.highest if token.tail else 0.0,
        sum(1 << i for i, other in enumerate(listed) if other.penalty),
    )
    ids = b"".join(other.id.to_bytes(3, "little") for other in listed)
    halves = [*(other.logprob for other in listed), *penalised]
    if token.tail:
        pairs = list(struct.iter_unpack("<2f", token.tail.data))
        halves += [math.sqrt(n) for n, _ in pairs] + [distances / n if n else 0.0 for n, distances in pairs]
    else:
        halves += [0.0] * (2 * TAIL_BINS)
    return head + ids + struct.pack(f"<{len(halves)}e", *map(_half, halves))


def _half(value: float) -> float:
    """What half precision can hold."""
    return max(-_HALF_MAX, min(_HALF_MAX, value))
