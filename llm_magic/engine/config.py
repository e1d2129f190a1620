"""The shape of a decoder: what differs between architectures, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder's sizes and variants; axis letters as in `engine/model.py`."""

    architecture: str
    n_layers: int
    d_model: int  # d
    n_heads: int  # H
    n_kv_heads: int  # K
    head_dim: int  # D
    d_ff: int  # F
    vocabulary_tokens: int  # V
    context_tokens: int
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_divisors: tuple[float, ...] | None = None  # (D/2): stretches each rotary wavelength
    is_head_tied: bool = False
    has_qkv_bias: bool = False
    has_o_bias: bool = False
    has_mlp_bias: bool = False
    has_qk_norm: bool = False

    @property
    def n_parameters(self) -> int:
        """Weights of all matrices and vectors; a tied head counts once."""
        d, h, k, dim, f = self.d_model, self.n_heads, self.n_kv_heads, self.head_dim, self.d_ff
        attention = d * (h + 2 * k) * dim + h * dim * d
        biases = self.has_qkv_bias * (h + 2 * k) * dim + self.has_o_bias * d + self.has_mlp_bias * (2 * f + d)
        layer = attention + biases + 3 * d * f + 2 * d + self.has_qk_norm * 2 * dim
        return self.n_layers * layer + (1 if self.is_head_tied else 2) * self.vocabulary_tokens * d + d


def llama3_rope_divisors(
    head_dim: int,
    theta: float,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_context_tokens: int,
) -> tuple[float, ...]:
    """Llama 3.1's stretching (Hugging Face `rope_type: llama3`): long wavelengths by `factor`, short
    ones not at all, those between blended. One divisor for each of the head_dim / 2 frequencies.

    >>> llama3_rope_divisors(4, 1e6, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context_tokens=128)
    (1.0, 8.0)
    """
    divisors = []
    for i in range(0, head_dim, 2):
        turns = original_context_tokens * theta ** (-i / head_dim) / (2 * math.pi)
        blend = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
        blend = min(1.0, max(0.0, blend))
        divisors.append(1 / ((1 - blend) / factor + blend))
    return tuple(divisors)
