"""What the decoder remembers: keys and values of one batch, and the prefixes of earlier calls.

A `KVCache` has a committed length: a step writes beyond it first and commits last, so that an
interrupt at any instant leaves a cache that is valid up to its length.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_magic.engine.config import ModelConfig
from llm_magic.engine.native.calls import round_up

BLOCK_TOKENS = 256  # the cache grows by whole blocks


class KVCache:
    """Keys and values of B rows, up to `lengths[b]` tokens each; a token's slot is its position.

    `data`: (layers, B, 2 K, C, D), fp32 or fp16, with C the capacity in tokens; the first K heads are keys, the
    others values, so that a step writes both at once.
    """

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        batch: int = 1,
        capacity_tokens: int = BLOCK_TOKENS,
    ):
        self.config, self.device, self.dtype, self.batch = config, device, dtype, batch
        self.lengths = [0] * batch
        self._allocate(round_up(capacity_tokens, BLOCK_TOKENS))

    def _allocate(self, capacity_tokens: int) -> None:
        c = self.config
        shape = (c.n_layers, self.batch, 2 * c.n_kv_heads, capacity_tokens, c.head_dim)
        # of rows of unlike length, PyTorch reads what is not written yet, times 0: it must be numbers
        make = torch.zeros if self.batch > 1 else torch.empty
        data = make(shape, dtype=self.dtype, device=self.device)
        if (n := max(self.lengths)) > 0:
            data[..., :n, :] = self.data[..., :n, :]
        self.data, self.capacity_tokens = data, capacity_tokens

    @property
    def length(self) -> int:
        """The committed tokens of every row; rows of unlike length have none in common."""
        assert not self.is_ragged, "rows of unlike length"
        return self.lengths[0]

    @property
    def is_ragged(self) -> bool:
        """Whether rows are of unlike length."""
        return len(set(self.lengths)) > 1

    @property
    def n_bytes(self) -> int:
        return self.data.nbytes

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in each row."""
        if tokens > self.capacity_tokens:
            self._allocate(round_up(tokens, BLOCK_TOKENS))

    def write(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Put (B, 2 K, T, D) behind the committed tokens; returns all keys and values (B, K, C, D) up to
        there, in fp32.

        Rows of unlike length take one token each (T = 1).
        """
        t, data = keys_values.shape[2], self.data[layer]
        if self.is_ragged:
            assert t == 1, "rows of unlike length take one token at a time"
            rows, slots = torch.arange(self.batch, device=self.device), torch.tensor(self.lengths, device=self.device)
            data[rows, :, slots] = keys_values[:, :, 0].to(self.dtype)
            end = max(self.lengths) + 1
        else:
            end = self.lengths[0] + t
            data[:, :, self.lengths[0] : end] = keys_values
        k = self.config.n_kv_heads
        return data[:, :k, :end].float(), data[:, k:, :end].float()

    def commit(self, tokens: int | list[int]) -> None:
        """Count as done what was written: `tokens` more in each row."""
        more = [tokens] * self.batch if isinstance(tokens, int) else tokens
        self.lengths = [length + int(n) for length, n in zip(self.lengths, more, strict=True)]

    def truncate(self, tokens: int) -> None:
        """Forget what stands behind the first `tokens`."""
        self.lengths = [min(length, tokens) for length in self.lengths]

    def repeat(self, batch: int, tokens: int) -> KVCache:
        """A cache of `batch` rows, each with the first `tokens` of this one's only row."""
        other = KVCache(self.config, self.device, self.dtype, batch, tokens + BLOCK_TOKENS)
        other.data[..., :tokens, :] = self.data[..., :tokens, :]
        other.lengths = [tokens] * batch
        return other

    def put_row(self, row: int, other: KVCache, tokens: int) -> None:
        """Let a row begin with the first `tokens` of another cache's only row."""
        self.reserve(tokens)
        self.data[:, row, :, :tokens] = other.data[:, 0, :, :tokens]
        self.lengths[row] = tokens

    def keep_rows(self, rows: list[int]) -> None:
        """Drop all other rows: those that are done make room."""
        self.data = self.data[:, rows].contiguous()
        self.lengths = [self.lengths[row] for row in rows]
        self.batch = len(rows)

    def copy(self, tokens: int) -> KVCache:
        """A cache of its own with the first `tokens` of this one."""
        return self.repeat(self.batch, tokens)


@dataclass(slots=True)
class Sequence:
    """One row of tokens with its cache: what a generation works on, and what is kept for later calls.

    `hidden` (d,) is the state behind the prompt's last token, with `n_hidden` the prompt's length: the
    same prompt again needs no computation at all.
    """

    cache: KVCache
    ids: list[int]
    hidden: Tensor | None = None
    n_hidden: int = 0

    def commit(self, ids: list[int]) -> None:
        """Count `ids` as done, in the cache first."""
        self.cache.commit(len(ids))
        self.ids.extend(ids)

    def rewind(self, tokens: int) -> None:
        """Forget what stands behind the first `tokens`."""
        self.cache.truncate(tokens)
        del self.ids[tokens:]
        if self.n_hidden > tokens:
            self.hidden, self.n_hidden = None, 0

    @property
    def n_valid(self) -> int:
        return min(len(self.ids), self.cache.length)


class PrefixCache:
    """Sequences of earlier calls, the least recently used dropped first beyond `limit_bytes`.

    Who takes a sequence owns it until it is put back, so two generations never share one. A generation that nobody
    holds any longer is ended by the garbage collector, in any thread and in the middle of anything: so `put` never
    waits for the lock, which its own thread may hold.
    """

    def __init__(self, make_cache: Callable[[], KVCache], limit_bytes: int):
        self._make_cache, self.limit_bytes = make_cache, limit_bytes
        self._sequences: OrderedDict[int, Sequence] = OrderedDict()
        self._next_key = 0
        self._lock = threading.Lock()
        self._arrived: deque[Sequence] = deque()

    @property
    def n_bytes(self) -> int:
        kept = [*self._sequences.values(), *self._arrived]
        return sum(sequence.cache.n_bytes for sequence in kept)

    def take(self, ids: list[int]) -> tuple[Sequence, int]:
        """A sequence that begins as `ids` do, and how many of them it holds ready."""
        with self._lock:
            self._sort_in()
            best, best_tokens = None, 0
            for key, sequence in self._sequences.items():
                tokens = usable_tokens(sequence, ids)
                if tokens > best_tokens:
                    best, best_tokens = key, tokens
            if best is None:
                return Sequence(self._make_cache(), []), 0
            found = self._sequences[best]
            self._sequences.move_to_end(best)
        taken = Sequence(found.cache.copy(best_tokens), list(ids[:best_tokens]))
        if found.n_hidden == best_tokens:
            taken.hidden, taken.n_hidden = found.hidden, found.n_hidden
        return taken, best_tokens

    def put(self, sequence: Sequence) -> None:
        """Keep a sequence for later calls; one that it extends is dropped."""
        n = sequence.n_valid
        sequence.cache.truncate(n)
        del sequence.ids[n:]
        if n == 0 or sequence.cache.n_bytes > self.limit_bytes:
            return
        self._arrived.append(sequence)
        if self._lock.acquire(blocking=False):  # else whoever holds it, or comes next, does this
            try:
                self._sort_in()
            finally:
                self._lock.release()

    def _sort_in(self) -> None:
        """Let what has arrived take its place. The lock is held."""
        while self._arrived:
            sequence = self._arrived.popleft()
            for key, other in list(self._sequences.items()):
                n = len(other.ids)
                is_prefix = n <= len(sequence.ids) and sequence.ids[:n] == other.ids
                if is_prefix and (other.hidden is None or other.n_hidden == sequence.n_hidden):
                    del self._sequences[key]
            self._sequences[self._next_key] = sequence
            self._next_key += 1
            while self._sequences and sum(s.cache.n_bytes for s in self._sequences.values()) > self.limit_bytes:
                self._sequences.popitem(last=False)

    def clear(self) -> None:
        """Forget all sequences."""
        with self._lock:
            self._arrived.clear()
            self._sequences.clear()


def usable_tokens(sequence: Sequence, ids: list[int]) -> int:
    """How many of `ids` a sequence holds ready: all of them only where the last one's state is known."""
    common = 0
    for ours, theirs in zip(sequence.ids, ids, strict=False):
        if ours != theirs:
            break
        common += 1
    if common == len(ids):
        if sequence.n_hidden == common:
            return common
        common -= 1  # the last token's state is not known, so it is computed again
    return common
