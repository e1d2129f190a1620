"""What a file calls things, in the engine's words: configurations and tensor names, as tables.

The engine's names are Hugging Face's. A new architecture is a row here, not a branch in the decoder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from llm_magic.engine.config import ModelConfig, llama3_rope_divisors
from llm_magic.engine.linear import Weight
from llm_magic.errors import ModelFileError

# GGUF -> Hugging Face, for the tensors of one layer (`blk.3.` -> `model.layers.3.`) and for the rest
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A family's names. `is_permuted`: its GGUF files hold the rows of Q and K in pairs.

    What else sets families apart, biases and norms of heads, is read off the tensors that are there.
    """

    gguf_name: str
    hf_name: str
    is_permuted: bool = False


ARCHITECTURES = (
    Architecture("llama", "LlamaForCausalLM", is_permuted=True),
    Architecture("llama", "MistralForCausalLM", is_permuted=True),
    Architecture("qwen2", "Qwen2ForCausalLM"),
    Architecture("qwen3", "Qwen3ForCausalLM"),
)


def architecture_of(name: object) -> Architecture:
    """By GGUF's name or Hugging Face's."""
    for architecture in ARCHITECTURES:
        if name in (architecture.gguf_name, architecture.hf_name):
            return architecture
    known = ", ".join(dict.fromkeys(a.hf_name for a in ARCHITECTURES))
    raise ModelFileError(f"the architecture {name!r} is not known", f"known are {known}")


def config_from_gguf(metadata: Mapping[str, object], weights: Mapping[str, Weight]) -> ModelConfig:
    """From a GGUF file's metadata; the vocabulary's size and the tied head are read off the weights."""
    architecture = architecture_of(metadata.get("general.architecture"))
    prefix = architecture.gguf_name

    def get(key: str, kind: type, default=None):
        return _checked(metadata.get(f"{prefix}.{key}", default), kind, f"{prefix}.{key}")

    if "model.embed_tokens.weight" not in weights:
        raise ModelFileError("the file has no tensor 'token_embd.weight'", "fetch the file again")
    n_heads, d_model = get("attention.head_count", int), get("embedding_length", int)
    head_dim = get("attention.key_length", int, get("rope.dimension_count", int, d_model // n_heads))
    divisors = weights.get("rope_freqs.weight")
    if metadata.get(f"{prefix}.rope.scaling.type", "none") not in ("none", None) and divisors is None:
        raise ModelFileError(
            f"the file scales its rotary embedding by {metadata[f'{prefix}.rope.scaling.type']!r}, which is not read",
            "use a file without it",
        )
    config = ModelConfig(
        architecture=architecture.hf_name,
        n_layers=get("block_count", int),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=get("attention.head_count_kv", int, n_heads),
        head_dim=head_dim,
        d_ff=get("feed_forward_length", int),
        vocabulary_tokens=weights["model.embed_tokens.weight"].shape[0],
        context_tokens=get("context_length", int),
        norm_eps=get("attention.layer_norm_rms_epsilon", float),
        rope_theta=get("rope.freq_base", float, 10_000.0),
        rope_divisors=None if divisors is None else tuple(divisors.float().tolist()),
        is_head_tied="lm_head.weight" not in weights,
        **_variants(weights),
    )
    return _checked_config(config)


def _variants(names: Collection[str]) -> dict[str, bool]:
    """The variants of a decoder that its first layer's tensors show."""
    prefix = "model.layers.0."
    return {
        "has_qkv_bias": f"{prefix}self_attn.q_proj.bias" in names,
        "has_o_bias": f"{prefix}self_attn.o_proj.bias" in names,
        "has_mlp_bias": f"{prefix}mlp.gate_proj.bias" in names,
        "has_qk_norm": f"{prefix}self_attn.q_norm.weight" in names,
    }


def config_from_hf(values: Mapping[str, object], tensor_names: Collection[str]) -> ModelConfig:
    """From Hugging Face's config.json, and the names of the tensors beside it."""
    names = values.get("architectures") or [None]
    architecture = architecture_of(names[0])

    def get(key: str, kind: type, default=None):
        value = values.get(key)
        return _checked(default if value is None else value, kind, key)

    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    n_heads, d_model = get("num_attention_heads", int), get("hidden_size", int)
    head_dim = get("head_dim", int, d_model // n_heads)
    theta = float(rope.get("rope_theta") or get("rope_theta", float, 10_000.0))
    if values.get("sliding_window") and values.get("use_sliding_window", True) and "Mistral" in architecture.hf_name:
        context_tokens = min(get("max_position_embeddings", int), get("sliding_window", int))
    else:
        context_tokens = get("max_position_embeddings", int)
    if values.get("hidden_act", "silu") != "silu":
        raise ModelFileError(f"the activation {values['hidden_act']!r} is not known", "known is silu")
    return _checked_config(
        ModelConfig(
            architecture=architecture.hf_name,
            n_layers=get("num_hidden_layers", int),
            d_model=d_model,
            n_heads=n_heads,
            n_kv_heads=get("num_key_value_heads", int, n_heads),
            head_dim=head_dim,
            d_ff=get("intermediate_size", int),
            vocabulary_tokens=get("vocab_size", int),
            context_tokens=context_tokens,
            norm_eps=get("rms_norm_eps", float, 1e-6),
            rope_theta=theta,
            rope_divisors=_rope_divisors(rope, head_dim, theta),
            is_head_tied=get("tie_word_embeddings", bool, False),
            **_variants(tensor_names),
        )
    )


def _rope_divisors(rope: Mapping[str, object], head_dim: int, theta: float) -> tuple[float, ...] | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind == "linear":
        return (float(rope["factor"]),) * (head_dim // 2)
    if kind != "llama3":
        raise ModelFileError(f"the rotary scaling {kind!r} is not known", "known are default, linear and llama3")
    return llama3_rope_divisors(
        head_dim,
        theta,
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_context_tokens=rope["original_max_position_embeddings"],
    )


def hf_name_of(gguf_name: str) -> str:
    """A GGUF tensor's name in Hugging Face's spelling; unknown names are left as they are.

    >>> hf_name_of("blk.3.attn_q.weight")
    'model.layers.3.self_attn.q_proj.weight'
    """
    stem, _, kind = gguf_name.rpartition(".")
    if stem.startswith("blk."):
        _, index, part = (stem.split(".", 2) + ["", ""])[:3]
        return f"model.layers.{index}.{LAYER_NAMES[part]}.{kind}" if part in LAYER_NAMES else gguf_name
    return f"{OTHER_NAMES[stem]}.{kind}" if stem in OTHER_NAMES else gguf_name


def unpermute_heads(weight: Weight, n_heads: int) -> Weight:
    """The rows of Q or K from GGUF's Llama order (rotary partners side by side) to Hugging Face's."""
    rows = weight.shape[0]
    order = torch.arange(rows).view(n_heads, rows // n_heads // 2, 2).transpose(1, 2).reshape(-1)
    return weight[order] if isinstance(weight, torch.Tensor) else weight.rows(order)


def check_shapes(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise for a tensor that is missing, of another shape than the configuration says, or read by nothing."""
    expected = expected_shapes(config)
    unread = [name for name in shapes if name not in expected and not _IGNORED.fullmatch(name)]
    if unread:
        raise ModelFileError(
            f"the model has tensors that this decoder does not know, such as {unread[0]!r}",
            "it is of another architecture than it says; use another model",
        )
    for name, shape in expected.items():
        if name not in shapes:
            raise ModelFileError(f"the model has no tensor {name!r}", "fetch it again, with all its files")
        if tuple(shapes[name]) != shape:
            raise ModelFileError(
                f"the tensor {name!r} has the shape {tuple(shapes[name])} and its configuration says {shape}",
                "fetch the model again",
            )


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that the decoder reads, by its Hugging Face name."""
    d, f, dim, v = config.d_model, config.d_ff, config.head_dim, config.vocabulary_tokens
    q, kv = config.n_heads * dim, config.n_kv_heads * dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (d,),
        "post_attention_layernorm.weight": (d,),
        "self_attn.q_proj.weight": (q, d),
        "self_attn.k_proj.weight": (kv, d),
        "self_attn.v_proj.weight": (kv, d),
        "self_attn.o_proj.weight": (d, q),
        "mlp.gate_proj.weight": (f, d),
        "mlp.up_proj.weight": (f, d),
        "mlp.down_proj.weight": (d, f),
    }
    if config.has_qkv_bias:
        layer |= {"self_attn.q_proj.bias": (q,), "self_attn.k_proj.bias": (kv,), "self_attn.v_proj.bias": (kv,)}
    if config.has_o_bias:
        layer |= {"self_attn.o_proj.bias": (d,)}
    if config.has_mlp_bias:
        layer |= {"mlp.gate_proj.bias": (f,), "mlp.up_proj.bias": (f,), "mlp.down_proj.bias": (d,)}
    if config.has_qk_norm:
        layer |= {"self_attn.q_norm.weight": (dim,), "self_attn.k_norm.weight": (dim,)}
    shapes = {f"model.layers.{i}.{name}": shape for i in range(config.n_layers) for name, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,)}
    return shapes if config.is_head_tied else shapes | {"lm_head.weight": (v, d)}


# precomputed rotary tables, and the copy of a tied head
_IGNORED = re.compile(r"rope_freqs\.weight|lm_head\.weight|(.*\.)?rotary_emb\.inv_freq")


def _checked(value: object, kind: type, key: str):
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ModelFileError(f"the model's {key} is {value!r}", "fetch the model again")
    return value


MAX_HEAD_DIM = 512  # kernels are unrolled over it


def _checked_config(config: ModelConfig) -> ModelConfig:
    sizes = (config.n_layers, config.d_model, config.n_heads, config.n_kv_heads, config.head_dim, config.d_ff)
    is_sound = all(0 < size < 1 << 20 for size in (*sizes, config.context_tokens // 1024 + 1))
    is_sound = is_sound and config.head_dim <= MAX_HEAD_DIM and config.head_dim % 2 == 0
    if not is_sound or config.n_heads % config.n_kv_heads:
        raise ModelFileError(f"the model's sizes do not fit together ({config})", "fetch the model again")
    return config
