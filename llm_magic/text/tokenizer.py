"""Text to ids and back, without half characters, and with special tokens only where they are meant.

The work is done by the `tokenizers` library; this file builds its tokenizer from GGUF's metadata
or `tokenizer.json`, keeps the special-token texts inside user data ordinary, and maps each id to
its bytes.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from llm_magic.errors import ContextOverflow, ModelFileError, OptionError

# How llama.cpp calls the pre-tokenizers of byte-level BPE vocabularies, and the patterns each applies in turn.
_WORDS_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    "default": (_WORDS_GPT2,),
    "gpt-2": (_WORDS_GPT2,),
    "olmo": (_WORDS_GPT2,),
    "smollm": (r"\p{N}", _WORDS_GPT2),
    "starcoder": (r"\p{N}", _WORDS_GPT2),
    "refact": (r"\p{N}", _WORDS_GPT2),
    "command-r": (r"\p{N}", _WORDS_GPT2),
    "llama-bpe": (_WORDS_LLAMA3 % "1,3",),
    "llama3": (_WORDS_LLAMA3 % "1,3",),
    "qwen2": (_WORDS_LLAMA3 % "1",),
}

_CONTROL, _USER_DEFINED = 3, 4  # GGUF token types
_END_TEXTS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<|eom_id|>", "</s>")
_FIRST_MARK, _LAST_MARK = 0xFDD0, 0xFDEF  # Unicode's noncharacters: never part of a real text


class Tokenizer:
    """One vocabulary. `special_ids` are its control tokens; `end_ids` those that end a turn or a text."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special: Mapping[str, int],
        bos_id: int | None,
        end_ids: Iterable[int],
        is_byte_level: bool,
    ):
        backend.encode_special_tokens = True  # special-token texts in user data are ordinary text
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.special = dict(special)
        self.special_ids = frozenset(self.special.values())
        self.bos_ids = [] if bos_id is None else [bos_id]
        self.end_ids = frozenset(end_ids)
        self.is_byte_level = is_byte_level

    @property
    def vocabulary_tokens(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    def to_json(self) -> str:
        """The vocabulary and its rules, as `tokenizer.json` has them."""
        return self._backend.to_str()

    def encode(self, text: str, limit_tokens: int | None = None) -> list[int]:
        """The ids of an ordinary text, encoded whole; no special token comes out, whatever it says.

        Raises `ContextOverflow` without encoding where the text cannot fit into `limit_tokens`.
        """
        check_text(text)
        if limit_tokens is not None:
            least_tokens = -(-len(text.encode()) // self._longest_bytes)
            if least_tokens > limit_tokens:
                raise ContextOverflow(
                    f"the text of {len(text):,} characters has at least {least_tokens:,} tokens and the context "
                    f"holds {limit_tokens:,}",
                    "shorten it, or split it into parts",
                )
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_marked(self, text: str, mark: str, limit_tokens: int | None = None) -> list[int]:
        """The ids of a rendered prompt: its special tokens count, but where `mark` breaks their text up."""
        ids: list[int] = []
        for part in self._special_pattern.split(text) if self.special else [text]:
            if part in self.special:
                ids.append(self.special[part])
            elif part:
                ids.extend(self.encode(part.replace(mark, ""), limit_tokens))
        return ids

    def mark_special(self, text: str, mark: str) -> str:
        """`text` with `mark` put into each special token's text, so that it stays ordinary in a prompt."""
        return self._special_pattern.sub(lambda m: m[0][0] + mark + m[0][1:], text) if self.special else text

    def bytes_of(self, token_id: int) -> bytes:
        """What a token stands for; ids beyond the vocabulary (padding of the matrix) stand for nothing."""
        return self._bytes[token_id] if 0 <= token_id < len(self._bytes) else b""

    def text_of(self, token_id: int) -> str:
        """A single token as text; bytes of half a character show as `\\xe2\\x82`."""
        return self.bytes_of(token_id).decode("utf-8", errors="backslashreplace")

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Each id's text, characters spread over several ids standing at the last of them."""
        stream = TextStream(self)
        texts = [stream.push(token_id)[1] for token_id in ids]
        if texts:
            texts[-1] += stream.flush()
        return tuple(texts)

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.special, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    @cached_property
    def _bytes(self) -> list[bytes]:
        table = [b""] * self.vocabulary_tokens
        added = set(self._backend.get_added_tokens_decoder())
        to_bytes = _byte_level_bytes if self.is_byte_level else _sentencepiece_bytes
        for text, token_id in self._backend.get_vocab(with_added_tokens=True).items():
            if token_id >= len(table):
                table.extend([b""] * (token_id + 1 - len(table)))
            table[token_id] = text.encode() if token_id in added else to_bytes(text)
        return table

    @cached_property
    def _longest_bytes(self) -> int:
        return max(map(len, self._bytes))


class TextStream:
    """Bytes of tokens to text, as they come: a character shows when its last byte is there."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> tuple[bytes, str]:
        """The token's bytes, and the text that became readable with it."""
        data = self._tokenizer.bytes_of(token_id)
        return data, self._decoder.decode(data)

    @property
    def open_bytes(self) -> int:
        """How many bytes of an unfinished character wait for the rest."""
        return len(self._decoder.getstate()[0])

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole."""
        return self._decoder.decode(b"", final=True)


def check_text(text: str) -> None:
    """Raise for a lone surrogate, which no encoding can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise OptionError(
            f"the text has a lone surrogate, {text[error.start]!a}, at character {error.start}",
            "remove it, or decode the text it came from properly",
        ) from None


def choose_mark(texts: Iterable[str]) -> str:
    """A character that none of the texts has."""
    used = set().union(*texts)
    for code in range(_FIRST_MARK, _LAST_MARK + 1):
        if chr(code) not in used:
            return chr(code)
    raise OptionError("the text uses all of Unicode's noncharacters", "remove one of U+FDD0 to U+FDEF")


def tokenizer_from_gguf(metadata: Mapping[str, object]) -> Tokenizer:
    """Byte-level BPE (GGUF's `gpt2`) with its pre-tokenizer, from a GGUF file's metadata."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise ModelFileError(
            f"the file's tokenizer is of kind {kind!r} and only 'gpt2' (byte-level BPE) is read from GGUF",
            "load the model from its Hugging Face folder, with tokenizer.json",
        )
    name = str(metadata.get("tokenizer.ggml.pre", "default"))
    if name not in PRE_TOKENIZERS:
        raise ModelFileError(
            f"the file's pre-tokenizer {name!r} is not known",
            f"known are {', '.join(PRE_TOKENIZERS)}; or load the model from its Hugging Face folder",
        )
    texts, merges = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.merges", [])
    types = metadata.get("tokenizer.ggml.token_type", [1] * len(texts or ()))
    if not texts or len(types) != len(texts) or len(set(texts)) != len(texts):
        raise ModelFileError("the file's vocabulary is missing or not consistent", "fetch the file again")
    pairs = []
    for merge in merges:
        left, space, right = merge.partition(" ")
        if not space:
            raise ModelFileError(f"the tokenizer's merge {merge!r} has no two parts", "fetch the file again")
        pairs.append((left, right))
    try:
        backend = tokenizers.Tokenizer(
            models.BPE({text: i for i, text in enumerate(texts)}, pairs, ignore_merges=name in ("llama-bpe", "llama3"))
        )
    except Exception as error:
        raise ModelFileError(f"the file's tokenizer is not consistent ({error})", "fetch the file again") from None
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[name]]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(texts, types, strict=True) if k == _CONTROL]
    )
    backend.add_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(texts, types, strict=True) if k == _USER_DEFINED]
    )
    special = {text: i for i, (text, kind) in enumerate(zip(texts, types, strict=True)) if kind == _CONTROL}
    has_bos = metadata.get("tokenizer.ggml.add_bos_token", name in ("llama-bpe", "llama3"))
    named_ends = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    end_ids = {i for i in named_ends if i is not None} | {special[t] for t in _END_TEXTS if t in special}
    bos_id = metadata.get("tokenizer.ggml.bos_token_id")
    return Tokenizer(backend, special, bos_id if has_bos else None, end_ids, is_byte_level=True)


def tokenizer_from_folder(folder: Path) -> Tokenizer:
    """From `tokenizer.json`, with the end-of-turn ids of the configuration files beside it."""
    path = folder / "tokenizer.json"
    try:
        raw = path.read_text(encoding="utf-8")
        backend, described = tokenizers.Tokenizer.from_str(raw), json.loads(raw)
    except FileNotFoundError:
        raise ModelFileError(f"{folder} has no tokenizer.json", "fetch the model again, with all its files") from None
    except Exception as error:
        raise ModelFileError(f"{path} cannot be read ({error})", "fetch the model again") from None
    special = {t.content: i for i, t in backend.get_added_tokens_decoder().items() if t.special}
    config = read_json(folder / "config.json") | read_json(folder / "generation_config.json")
    named = config.get("eos_token_id")
    end_ids = set(named if isinstance(named, list) else [] if named is None else [named])
    end_ids |= {special[text] for text in _END_TEXTS if text in special}
    with_special = backend.encode("a", add_special_tokens=True).ids
    without = backend.encode("a", add_special_tokens=False).ids
    bos_id = with_special[0] if len(with_special) > len(without) and with_special[0] != without[0] else None
    return Tokenizer(
        backend, special, bos_id, end_ids, is_byte_level="ByteLevel" in json.dumps(described.get("decoder"))
    )


def read_json(path: Path) -> dict:
    """A JSON object, or an empty one where there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read ({error})", "fetch the model again") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} holds no JSON object", "fetch the model again")
    return value


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte (openai/gpt-2, encoder.py): shifted where not printable."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(byte): byte for byte in kept}
    shifted = (byte for byte in range(256) if byte not in set(kept))
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(shifted)}


_BYTE_OF = _byte_level_alphabet()


def _byte_level_bytes(text: str) -> bytes:
    try:
        return bytes(_BYTE_OF[character] for character in text)
    except KeyError:  # an added token, in plain text
        return text.encode("utf-8", errors="replace")


def _sentencepiece_bytes(text: str) -> bytes:
    if re.fullmatch(r"<0x[0-9A-F]{2}>", text):
        return bytes([int(text[3:5], 16)])
    return text.replace("\u2581", " ").encode("utf-8", errors="replace")
