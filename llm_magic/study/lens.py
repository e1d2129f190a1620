"""The logit lens: what each layer would say next, if the text ended there (nostalgebraist, 2020).

softmax(U N(h)), with h the residual stream behind a layer, N the final norm with its statistics taken of h anew, and U
the vocabulary's matrix. The last layer's is the model's own distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llm_magic.engine.model import Decoder
from llm_magic.study.trace import Trace

CHUNK_ROWS = 64  # logits of a whole vocabulary are large: so many at a time


@torch.inference_mode()
def measure_lens(
    model: Decoder, trace: Trace, k: int = 10, target_id: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`top_ids`, `top_logprobs`, `kl`, `ranks` and `logprobs` of a `Lens`, from a trace of all layers' residual stream;
    ranks and logprobs are of `target_id`, or of the last layer's best token at each position."""
    residual = trace["residual"]  # (L + 1, n, d)
    n_layers, n, _ = residual.shape
    found: list[list[Tensor]] = [[] for _ in range(5)]
    for start in range(0, n, max(1, CHUNK_ROWS // n_layers)):
        part = residual[:, start : start + max(1, CHUNK_ROWS // n_layers)]
        logits = model.logits(model.normalise(part.flatten(0, 1))).all
        logprobs = logits.log_softmax(-1).view(*part.shape[:2], -1)  # (L + 1, m, V)
        top, top_ids = logprobs.topk(min(k, logprobs.shape[-1]))
        output = logprobs[-1]
        kl = (output.exp() * (output - logprobs)).sum(-1)
        targets = top_ids[-1, :, 0] if target_id is None else torch.full_like(top_ids[-1, :, 0], target_id)
        own = logprobs.gather(-1, targets.expand(n_layers, -1)[..., None])  # (L + 1, m, 1)
        ranks = (logprobs > own).sum(-1) + 1
        for kept, value in zip(found, (top_ids, top, kl, ranks, own[..., 0]), strict=True):
            kept.append(value.cpu())
    return tuple(torch.cat(values, dim=1) for values in found)


def name_targets(target_id: int | None, top_ids: Tensor) -> Sequence[int]:
    """The token behind each position whose rank is told."""
    return top_ids[-1, :, 0].tolist() if target_id is None else [target_id] * top_ids.shape[1]
