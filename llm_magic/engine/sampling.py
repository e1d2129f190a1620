"""Logits in, logits out: each sampling control is one pure function; then one token is chosen.

Order: penalties, temperature, top-k, top-p, min-p. Choosing is Gumbel-max over the tokens that
survive, with noise that is a hash of (seed, sample, position, token): it needs no state, and two
kernels whose logits differ in their last bits choose the same token but for near ties.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llm_magic.generation import Sampling


def penalise_repetition(logits: Tensor, seen_ids: Tensor, penalty: float) -> Tensor:
    """Divide positive and multiply negative logits of `seen_ids` by `penalty` (arXiv:1909.05858).

    `logits`: (V,); `seen_ids`: (n,), repeats allowed.

    >>> penalise_repetition(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([0, 1]), 2.0)
    tensor([ 1., -2.,  3.])
    """
    seen = logits[seen_ids]
    return logits.index_put((seen_ids,), torch.where(seen > 0, seen / penalty, seen * penalty))


def penalise(logits: Tensor, seen_ids: Tensor, sampling: Sampling) -> Tensor:
    """(V,) after all penalties: the same tensor where they are off."""
    if sampling.repetition_penalty == 1 or not len(seen_ids):
        return logits
    return penalise_repetition(logits, seen_ids, sampling.repetition_penalty)


def read_mask(allowed: bytes, vocabulary_tokens: int) -> Tensor:
    """What is allowed, (V,), from one bit for each id, the lowest first.

    >>> read_mask(bytes([0b101]), 3)
    tensor([ True, False,  True])
    """
    octets = torch.frombuffer(bytearray(allowed), dtype=torch.uint8)
    return (octets[:, None] & _BITS).flatten()[:vocabulary_tokens].bool()


_BITS = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8)


def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits (V,), minus infinity in the place of those that are not allowed.

    >>> mask_logits(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, True]))
    tensor([1., -inf, 3.])
    """
    return logits.masked_fill(~mask, -torch.inf)


def temper(logits: Tensor, temperature: float) -> Tensor:
    """Divide by the temperature, which is above 0.

    >>> temper(torch.tensor([1.0, 2.0]), 0.5)
    tensor([2., 4.])
    """
    return logits / temperature


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Mask all but the smallest set of tokens whose probabilities reach p (arXiv:1904.09751).

    >>> keep_top_p(torch.tensor([0.3, 0.6, 0.1]).log(), 0.8).exp()
    tensor([0.3000, 0.6000, 0.0000])
    """
    probabilities, order = logits.softmax(-1).sort(descending=True, stable=True)
    before = probabilities.cumsum(-1) - probabilities  # 0 for the best, which so survives any p > 0
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(dropped, -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Mask tokens less likely than p times the best one (arXiv:2407.01082).

    >>> keep_min_p(torch.tensor([0.6, 0.3, 0.1]).log(), 0.4).exp()
    tensor([0.6000, 0.3000, 0.0000])
    """
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -torch.inf)


def filter_logits(
    penalised: Tensor, sampling: Sampling, best_ids: Tensor | None = None, floor: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The ladder behind the penalties, as far as the settings ask for it: (V,) -> candidate logits (n,), ids (n,).

    Temperature 0 leaves the best token alone. `best_ids`, the best before the penalties and in their order, spare a
    search through all where the candidates are among them: the logits of all others were `floor` at most.
    """
    k = 1 if sampling.temperature == 0 else sampling.top_k
    ids = None
    if 0 < k < penalised.shape[-1]:  # before the temperature, which keeps the order
        top = None
        if best_ids is not None and k < len(best_ids) and sampling.repetition_penalty >= 1:
            top = _top_of_best(penalised, k, best_ids, floor)
        penalised, ids = top or penalised.topk(k)
    if sampling.temperature == 0:
        return penalised, ids
    logits = penalised
    logits = temper(logits, sampling.temperature)
    if sampling.top_p < 1:
        nucleus = _find_nucleus(logits, sampling.top_p) if ids is None else None
        logits, ids = nucleus or (keep_top_p(logits, sampling.top_p), ids)
    if sampling.min_p > 0:
        logits = keep_min_p(logits, sampling.min_p)
    kept = (logits > -torch.inf).nonzero()[:, 0]
    return logits[kept], kept if ids is None else ids[kept]


def _top_of_best(penalised: Tensor, k: int, best_ids: Tensor, floor: Tensor) -> tuple[Tensor, Tensor] | None:
    """The k best of penalised logits and their ids, if they are among `best_ids`: no other is above `floor`."""
    top, order = penalised[best_ids].topk(k)
    return (top, best_ids[order]) if top[-1] > floor else None


NUCLEUS_TOKENS = 512


def _find_nucleus(logits: Tensor, p: float) -> tuple[Tensor, Tensor] | None:
    """What `keep_top_p` leaves of (V,), and its ids, if that is among the NUCLEUS_TOKENS best: no sort of all."""
    if logits.shape[-1] < 4 * NUCLEUS_TOKENS:
        return None
    best, ids = logits.topk(NUCLEUS_TOKENS)
    probabilities = (best - logits.logsumexp(-1)).exp()
    before = probabilities.cumsum(-1) - probabilities
    n = int((before < p).sum())
    return (best[:n], ids[:n]) if n < NUCLEUS_TOKENS else None


def choose(logits: Tensor, ids: Tensor, seed: int, sample: int, position: int) -> tuple[Tensor, Tensor]:
    """One of the candidates, by Gumbel-max: its id and the logarithm of its chance, both 0-dimensional.

    `logits`, `ids`: (n,). `position` is that of the chosen token in its context.
    """
    if len(ids) == 1:
        return ids[0], torch.zeros((), device=ids.device)
    if logits.device.type == "mps":  # which has no fp64: the candidates are few
        logits, ids = logits.cpu(), ids.cpu()
    logprobs = logits.log_softmax(-1)
    best = (logprobs.double() + gumbel_noise(ids, seed, sample, position)).argmax()
    return ids[best], logprobs[best]


def gumbel_noise(ids: Tensor, seed: int, sample: int, position: int) -> Tensor:
    """Standard Gumbel noise for each id, fp64: -log(-log(u)), u a hash of all arguments.

    The hash is the finaliser of SplitMix64 (Steele, Lea, Flood 2014), once for each argument.
    """
    key = 0
    for word in (seed, sample, position):
        key = _mix((key + word + _GOLDEN) & _MASK)
    bits = _mix_tensor(ids.long() + _signed(key))
    uniform = (_shift(bits, 11).double() + 0.5) * 2.0**-53  # in (0, 1): 53 bits, never 0 nor 1
    return -(-uniform.log()).log()


_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def _mix(word: int) -> int:
    """SplitMix64's finaliser on a 64-bit word."""
    for shift, multiplier in _MULTIPLIERS:
        word = ((word ^ (word >> shift)) * multiplier) & _MASK
    return word ^ (word >> 31)


def _mix_tensor(words: Tensor) -> Tensor:
    """`_mix` on a tensor; int64 products wrap around, as unsigned ones do."""
    for shift, multiplier in _MULTIPLIERS:
        words = (words ^ _shift(words, shift)) * _signed(multiplier)
    return words ^ _shift(words, 31)


def _shift(words: Tensor, bits: int) -> Tensor:
    """To the right, with zeros coming in: int64 would bring its sign."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word
