"""The vectors of tokens: which lie in the same direction."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from llm_magic.engine.model import Decoder

CHUNK_TOKENS = 4096  # of the vocabulary's matrix, which may be held in few bits


@torch.inference_mode()
def find_neighbors(model: Decoder, token_id: int, k: int) -> tuple[list[int], list[float]]:
    """The k tokens whose embeddings have the greatest cosine with a token's, itself left out, and these cosines."""
    n = model.config.vocabulary_tokens
    own = model.embedding(torch.tensor([token_id], device=model.device))  # (1, d)
    cosines = torch.cat(
        [
            F.cosine_similarity(
                model.embedding(torch.arange(start, min(n, start + CHUNK_TOKENS), device=model.device)), own
            )
            for start in range(0, n, CHUNK_TOKENS)
        ]
    )  # (V,)
    cosines[token_id] = -torch.inf
    best = cosines.topk(min(k, n - 1))
    return best.indices.tolist(), best.values.tolist()
