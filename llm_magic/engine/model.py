"""The decoder: ids in, hidden states and logits out, with keys and values cached.

Axis letters, here and in all of `engine`:

    B  rows of the batch           d  width of the residual stream
    T  new tokens in this call     H  query heads
    C  tokens in the cache, all    K  key/value heads; H / K query heads share each
    V  vocabulary                  D  width of a head
                                   F  width inside the MLP

The residual stream is fp32; each product runs in the precision of its weights. Rotary pairs lie
side by side (the rows of Q and K are reordered once, when the layers are built), so that one
complex product rotates all heads; scores of queries and keys do not depend on that order.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llm_magic.engine.cache import KVCache
from llm_magic.engine.config import ModelConfig
from llm_magic.engine.linear import Linear, Weight, make_linear, make_part, native_kernels
from llm_magic.engine.vocabulary import Embedding, Head, Logits


@dataclass(frozen=True, slots=True)
class Layer:
    """One block's weights, joined where they read the same input."""

    attention_norm: Tensor  # (d,)
    qkv: Linear  # d -> (H + 2 K) D
    q_norm: Tensor | None  # (D,)
    k_norm: Tensor | None  # (D,)
    o: Linear  # H D -> d
    mlp_norm: Tensor  # (d,)
    gate_up: Linear  # d -> 2 F
    down: Linear  # F -> d


@dataclass(frozen=True, slots=True)
class Stage:
    """What a layer computed of new tokens, M = B T of them; of the embeddings there is the residual stream alone."""

    residual: Tensor  # (M, d), behind the layer
    attention: Tensor | None = None  # (M, d), what attention added to it
    mlp: Tensor | None = None  # (M, d), what the MLP added
    active: Tensor | None = None  # (M, F), the MLP's activations
    queries: Tensor | None = None  # (B, H, T, D), rotated
    keys: Tensor | None = None  # (B, K, C, D), rotated


class Decoder:
    """A decoder-only transformer of the Llama family: RMSNorm, rotary embedding, grouped-query
    attention, SwiGLU. What differs between architectures is in its `ModelConfig`.
    """

    def __init__(
        self,
        config: ModelConfig,
        device: torch.device,
        embedding: Embedding,
        layers: list[Layer],
        norm: Tensor,  # (d,)
        head: Head,
    ):
        self.config, self.device = config, device
        self.embedding, self.layers, self.norm, self.head = embedding, layers, norm, head
        self._rotations = _make_rotations(config, 0, device)

    @property
    def n_bytes(self) -> int:
        """What the weights hold in memory."""
        linears = [linear for layer in self.layers for linear in (layer.qkv, layer.o, layer.gate_up, layer.down)]
        tables = {id(part): part.n_bytes for part in (self.embedding.part, *self.head.linear.parts)}
        return sum(linear.n_bytes for linear in linears) + sum(tables.values())

    def make_cache(self, batch: int = 1) -> KVCache:
        """An empty cache. Where machine code reads it, and the weights are no fp32 themselves, it holds
        fp16: half the bytes, and at long contexts these are what a step waits for."""
        linear = self.layers[0].qkv
        is_exact = all(isinstance(part.matrix, Tensor) and part.matrix.dtype == torch.float32 for part in linear.parts)
        dtype = torch.float32 if is_exact or linear.kernels is None else torch.float16
        return KVCache(self.config, self.device, dtype, batch)

    def forward(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Hidden states of new tokens, behind the final norm: (B, T) -> (B, T, d).

        Writes keys and values behind the cache's committed tokens, and commits nothing.
        """
        for stage in self.run_layers(ids, cache):
            x = stage.residual
        return self.normalise(x).view(*ids.shape, -1)

    def normalise(self, x: Tensor) -> Tensor:
        """The final norm of the residual stream, (M, d) -> (M, d): what the head reads."""
        return _rms_norm(x, self.norm, self.config.norm_eps)

    def run_layers(self, ids: Tensor, cache: KVCache) -> Iterator[Stage]:
        """`forward`, layer by layer: first the embeddings, then what each layer computed. Tensors that are not kept
        are gone with the next layer."""
        c, (b, t) = self.config, ids.shape
        cache.reserve(max(cache.lengths) + t)
        lengths = torch.tensor(cache.lengths, device=self.device)
        positions = lengths[:, None] + torch.arange(t, device=self.device)  # (B, T)
        rotations = self.rotations(cache.capacity_tokens)[positions][:, :, None]  # (B, T, 1, D/2)

        x = self.embedding(ids).view(b * t, -1)  # (M, d), with M = B T
        yield Stage(x)
        for i, layer in enumerate(self.layers):
            heads = layer.qkv(_rms_norm(x, layer.attention_norm, c.norm_eps)).view(b, t, -1, c.head_dim)
            heads = self._rotate(layer, heads, rotations).transpose(1, 2)  # (B, H + 2 K, T, D)
            q, keys_values = heads.split([c.n_heads, 2 * c.n_kv_heads], dim=1)
            keys, values = cache.write(i, keys_values)  # (B, K, C, D)
            mixed = _attend_ragged(q, keys, values, lengths) if cache.is_ragged else _attend(q, keys, values)
            attention = layer.o(mixed.transpose(1, 2).reshape(b * t, -1))
            x = x + attention
            gate, up = layer.gate_up(_rms_norm(x, layer.mlp_norm, c.norm_eps)).chunk(2, dim=-1)
            active = F.silu(gate) * up
            mlp = layer.down(active)
            x = x + mlp
            yield Stage(x, attention, mlp, active, q, keys)

    def logits(self, hidden: Tensor) -> Logits:
        """(M, d) -> (M, V) in fp32, and the best of each row"""
        return self.head(hidden)

    def _rotate(self, layer: Layer, heads: Tensor, rotations: Tensor) -> Tensor:
        """Queries and keys of (B, T, H + 2 K, D) normalised, where the architecture does so, and rotated."""
        c = self.config
        q, k, v = heads.split([c.n_heads, c.n_kv_heads, c.n_kv_heads], dim=2)
        if layer.q_norm is not None:
            q, k = _rms_norm(q, layer.q_norm, c.norm_eps), _rms_norm(k, layer.k_norm, c.norm_eps)
        pairs = torch.view_as_complex(torch.cat([q, k], dim=2).unflatten(-1, (-1, 2)))  # (B, T, H + K, D/2)
        return torch.cat([torch.view_as_real(pairs * rotations).flatten(-2), v], dim=2)

    def rotations(self, tokens: int) -> Tensor:
        """The rotary table of the first `tokens` positions, or more: (tokens, D/2), complex."""
        if self._rotations.shape[0] < tokens:
            self._rotations = _make_rotations(self.config, tokens, self.device)
        return self._rotations


def _attend(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of the last T of C tokens: (B, H, T, D), (B, K, C, D) twice -> (B, H, T, D)."""
    t, c = q.shape[2], keys.shape[2]
    if t == 1:  # the heads that share keys become the rows of one product
        grouped = q.reshape(q.shape[0], keys.shape[1], -1, q.shape[3])  # (B, K, H/K, D)
        return F.scaled_dot_product_attention(grouped, keys, values).view(q.shape)
    mask = torch.ones(t, c, dtype=torch.bool, device=q.device).tril(c - t)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)


def _attend_ragged(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor) -> Tensor:
    """One new token in each row, rows of unlike length: (B, H, 1, D), (B, K, C, D) twice -> (B, H, 1, D)."""
    mask = torch.arange(keys.shape[2], device=q.device) <= lengths[:, None]  # (B, C)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask[:, None, None], enable_gqa=True)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis (arXiv:1910.07467)."""
    return F.rms_norm(x, weight.shape, weight, eps)


def _make_rotations(config: ModelConfig, tokens: int, device: torch.device) -> Tensor:
    """exp(i * position * frequency) for each position and rotary pair (arXiv:2104.09864): (tokens, D/2) complex."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    frequencies = config.rope_theta**-exponents
    if config.rope_divisors is not None:
        frequencies = frequencies / torch.tensor(config.rope_divisors, dtype=torch.float64)
    # angles from fp32 frequencies, as transformers has them: at position 8,000 the rounding is visible
    angles = torch.outer(torch.arange(tokens, dtype=torch.float32), frequencies.float())
    return torch.polar(torch.ones_like(angles), angles).to(device)


def build_decoder(
    config: ModelConfig, weights: Mapping[str, Weight], device: torch.device
) -> Generator[float, None, Decoder]:
    """A decoder from weights with Hugging Face's names and layout, dense or grouped.

    Yields the share that is done, and returns the decoder.
    """
    table = make_part(weights["model.embed_tokens.weight"], None, device)
    head = table if config.is_head_tied else make_part(weights["lm_head.weight"], None, device)
    layers = []
    for i in range(config.n_layers):
        yield (i + 1) / (config.n_layers + 1)
        layers.append(_make_layer(config, weights, i, device))
    norm = _vector(weights["model.norm.weight"], device)
    return Decoder(config, device, Embedding(table), layers, norm, Head(Linear([head], native_kernels(device))))


def _make_layer(config: ModelConfig, weights: Mapping[str, Weight], index: int, device: torch.device) -> Layer:
    def weight(name: str) -> Weight:
        return weights[f"model.layers.{index}.{name}.weight"]

    def bias(name: str, is_there: bool) -> Tensor | None:
        return weights[f"model.layers.{index}.{name}.bias"] if is_there else None

    def linear(*names: str, has_bias: bool) -> Linear:
        ws, bs = [weight(name) for name in names], [bias(name, has_bias) for name in names]
        for i, name in enumerate(names):
            if name in ("self_attn.q_proj", "self_attn.k_proj"):
                order = _pair_order(config.head_dim, ws[i].shape[0])
                ws[i] = ws[i][order] if isinstance(ws[i], Tensor) else ws[i].rows(order)
                bs[i] = None if bs[i] is None else bs[i][order]
        return make_linear(ws, bs, device)

    def head_norm(name: str) -> Tensor | None:
        if not config.has_qk_norm:
            return None
        return _vector(weight(name)[_pair_order(config.head_dim, config.head_dim)], device)

    return Layer(
        attention_norm=_vector(weight("input_layernorm"), device),
        qkv=linear("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", has_bias=config.has_qkv_bias),
        q_norm=head_norm("self_attn.q_norm"),
        k_norm=head_norm("self_attn.k_norm"),
        o=linear("self_attn.o_proj", has_bias=config.has_o_bias),
        mlp_norm=_vector(weight("post_attention_layernorm"), device),
        gate_up=linear("mlp.gate_proj", "mlp.up_proj", has_bias=config.has_mlp_bias),
        down=linear("mlp.down_proj", has_bias=config.has_mlp_bias),
    )


def _pair_order(head_dim: int, rows: int) -> Tensor:
    """The order of rows that brings rotary partners (i, i + D/2) side by side, in each head."""
    order = torch.arange(rows).view(-1, 2, head_dim // 2)
    return order.transpose(1, 2).reshape(-1)


def _vector(weight: Weight, device: torch.device) -> Tensor:
    assert isinstance(weight, Tensor)
    return weight.float().to(device)
