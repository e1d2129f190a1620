"""One token of one sequence on a CPU: the decoder's arithmetic with as few operators as it can do with.

At batch 1 a matrix product takes 10 to 30 µs and any other operator 1 to 3, so here every buffer is
made once, a norm is a dot product and one multiplication, and keys and values are written in one copy.
What it computes is `Decoder.forward`; the tests hold the two together.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_magic.engine.cache import KVCache
from llm_magic.engine.model import Decoder


class TokenStep:
    """The step and its buffers; one for each running generation, since two must not share them.

    Axis letters as in `engine/model.py`.
    """

    def __init__(self, model: Decoder):
        assert model.device.type == "cpu", "elsewhere a dot product that comes back to the host costs a transfer"
        c = self.config = model.config
        self.model = model
        self.x = torch.empty(1, c.d_model)  # the residual stream
        self.x_row = self.x[0]
        self.zero = torch.zeros(1)
        self.normed = {dtype: torch.empty(1, c.d_model, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
        self.row = torch.empty(1, (c.n_heads + 2 * c.n_kv_heads) * c.head_dim)
        heads = self.row.view(-1, c.head_dim)  # (H + 2 K, D)
        self.queries = heads[: c.n_heads]
        self.keys = heads[c.n_heads : c.n_heads + c.n_kv_heads]
        self.keys_values = heads[c.n_heads :]
        rotated = heads[: c.n_heads + c.n_kv_heads]
        self.pairs = torch.view_as_complex(rotated.view(-1, c.head_dim // 2, 2))  # (H + K, D/2), the same memory

    def run(self, token_id: int, cache: KVCache) -> Tensor:
        """The hidden state (1, d) behind the final norm; writes into the cache and commits nothing."""
        c, model, x, norm = self.config, self.model, self.x, self._norm
        position, k, silu = cache.length, c.n_kv_heads, F.silu
        end = position + 1
        cache.reserve(end)
        rotation = model.rotations(cache.capacity_tokens)[position]  # (D/2)
        queries, row, pairs, keys_values = self.queries[None, :, None], self.row, self.pairs, self.keys_values
        # each layer's views of the cache, all at once: a slice costs as much as an addition
        slots = cache.data[:, 0, :, position].unbind(0)  # (2 K, D)
        all_keys = cache.data[:, :, :k, :end].unbind(0)  # (1, K, C, D)
        all_values = cache.data[:, :, k:, :end].unbind(0)
        x.copy_(model.embedding(torch.tensor([token_id])))
        for layer, slot, keys, values in zip(model.layers, slots, all_keys, all_values, strict=True):
            row.copy_(layer.qkv(norm(layer.attention_norm, layer.qkv.dtype)))
            if layer.q_norm is not None:
                self.queries.copy_(F.rms_norm(self.queries, layer.q_norm.shape, layer.q_norm, c.norm_eps))
                self.keys.copy_(F.rms_norm(self.keys, layer.k_norm.shape, layer.k_norm, c.norm_eps))
            pairs.mul_(rotation)
            slot.copy_(keys_values)
            mixed = F.scaled_dot_product_attention(queries, keys, values, enable_gqa=True)
            x.add_(layer.o(mixed.view(1, -1)))
            gate, up = layer.gate_up(norm(layer.mlp_norm, layer.gate_up.dtype)).view(2, 1, -1).unbind(0)
            x.add_(layer.down(silu(gate).mul_(up)))
        return self._norm(model.norm, torch.float32).clone()

    def _norm(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The residual stream over its root mean square, times the weight: (1, d), valid until the next call."""
        scale = 1 / math.sqrt(torch.dot(self.x_row, self.x_row).item() / self.config.d_model + self.config.norm_eps)
        return torch.addcmul(self.zero, self.x, weight, value=scale, out=self.normed[dtype])
