"""The decoder against transformers, on tiny random models in fp32: logits within 1e-4."""

from __future__ import annotations

import json

import gguf
import pytest
import torch
from conftest import make_hf_model, save_hf_model
from safetensors.torch import load_file, save_file

from llm_magic.engine.cache import KVCache
from llm_magic.engine.native.machine import machine
from llm_magic.engine.step import LONG_TOKENS, Stepper
from llm_magic.errors import ModelFileError
from llm_magic.progress import show_progress
from llm_magic.weights import names
from llm_magic.weights.load import load_model

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}  # transformers, fp32, eager attention
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama wide heads": ("llama", {"head_dim": 32}),
    "llama one kv head": ("llama", {"num_key_value_heads": 1}),
    "llama biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3 biased": ("qwen3", {"head_dim": 16, "attention_bias": True}),
}


@pytest.fixture(scope="module", params=MODELS, ids=list(MODELS))
def pair(request, tmp_path_factory):
    """A transformers model, and ours loaded from its folder."""
    kind, changes = MODELS[request.param]
    return make_pair(tmp_path_factory.mktemp("pair"), kind, **changes)


def make_pair(folder, kind, **changes):
    theirs = make_hf_model(kind, **changes)
    return theirs, load(save_hf_model(theirs, folder / "m")).decoder


def load(path):
    return show_progress("loading", load_model(path, "test", "cpu"))


def ids_of(shape, seed=0):
    return torch.randint(0, 260, shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def our_logits(decoder, ids, cache=None):
    cache = cache or KVCache(decoder.config, decoder.device, batch=ids.shape[0])
    hidden = decoder.forward(ids, cache)
    cache.commit(ids.shape[1])
    return decoder.logits(hidden.flatten(0, 1)).all.unflatten(0, ids.shape)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_the_full_forward_equals_transformers(pair, length):
    theirs, decoder = pair
    ids = ids_of((2, length))
    with torch.inference_mode():
        torch.testing.assert_close(our_logits(decoder, ids), theirs(ids).logits, **TOLERANCE)


def test_cached_decode_equals_the_full_forward(pair):
    theirs, decoder = pair
    ids, cache = ids_of((1, 80)), KVCache(decoder.config, decoder.device)
    steps = [our_logits(decoder, ids[:, :70], cache)] + [
        our_logits(decoder, ids[:, i : i + 1], cache) for i in range(70, 80)
    ]
    with torch.inference_mode():
        torch.testing.assert_close(torch.cat(steps, dim=1), theirs(ids).logits, **TOLERANCE)


@pytest.mark.parametrize("n_prompt", [1, 3, 8, 64, 70])
def test_machine_code_equals_transformers(pair, n_prompt):
    theirs, decoder = pair
    ids, cache, run = ids_of((1, 80)), decoder.make_cache(), Stepper(decoder, machine()).run
    with torch.inference_mode():
        hidden = [run(ids[:, :n_prompt], cache)[0].clone()]
        cache.commit(n_prompt)
        for i in range(n_prompt, 80):
            hidden.append(run(ids[:, i : i + 1], cache)[0].clone())
            cache.commit(1)
        torch.testing.assert_close(decoder.logits(torch.cat(hidden)).all, theirs(ids).logits[0], **TOLERANCE)


@pytest.mark.parametrize(
    "shape", [{}, {"hidden_size": 260, "num_attention_heads": 65, "num_key_value_heads": 1, "head_dim": 4}]
)
@torch.inference_mode()
def test_a_long_context_equals_transformers(tmp_path, shape):
    theirs, decoder = make_pair(tmp_path, "llama", max_position_embeddings=2048, **shape)
    n_prompt, ids = LONG_TOKENS + 100, ids_of((1, LONG_TOKENS + 104))
    cache, run = decoder.make_cache(), Stepper(decoder, machine()).run
    hidden = [run(ids[:, :n_prompt], cache)[0].clone()]
    cache.commit(n_prompt)
    for i in range(n_prompt, ids.shape[1]):  # now threads share the keys
        hidden.append(run(ids[:, i : i + 1], cache)[0].clone())
        cache.commit(1)
    torch.testing.assert_close(decoder.logits(torch.cat(hidden)).all, theirs(ids).logits[0], **TOLERANCE)


@torch.inference_mode()
def test_a_tokens_bits_do_not_depend_on_what_is_computed_beside_it(pair):
    _, decoder = pair
    stepper, rows = Stepper(decoder, machine()), [ids_of((1, n), seed=n) for n in (5, 70, 33)]
    alone = []
    for row in rows:
        cache, hidden = decoder.make_cache(), []
        for i in range(row.shape[1]):
            hidden.append(stepper.run(row[:, i : i + 1], cache)[0, 0].clone())
            cache.commit(1)
        alone.append(torch.stack(hidden))
        together = stepper.run(row, decoder.make_cache())[0].clone()
        assert torch.equal(together, alone[-1])
    cache = decoder.make_cache().repeat(3, 0)
    for b, row in enumerate(rows):
        one = decoder.make_cache()
        stepper.run(row[:, :-1], one)
        cache.reserve(row.shape[1])
        cache.data[:, b, :, : row.shape[1]] = one.data[:, 0, :, : row.shape[1]]
    cache.lengths = [row.shape[1] - 1 for row in rows]
    batch = stepper.run(torch.cat([row[:, -1:] for row in rows]), cache)[:, 0]
    assert torch.equal(batch, torch.stack([states[-1] for states in alone]))


@torch.inference_mode()
def test_a_padded_batch_equals_each_row_alone(pair):
    theirs, decoder = pair
    rows = [ids_of((1, n), seed=n) for n in (5, 70, 33)]
    padded = torch.cat([torch.nn.functional.pad(row[:, :-2], (0, 70 - row.shape[1])) for row in rows])
    cache = KVCache(decoder.config, decoder.device, batch=3)
    hidden = decoder.forward(padded, cache)
    cache.commit([row.shape[1] - 2 for row in rows])
    found = [[decoder.logits(hidden[b, : row.shape[1] - 2]).all] for b, row in enumerate(rows)]
    for step in (-2, -1):  # rows of unlike length, a token at a time
        hidden = decoder.forward(torch.cat([row[:, step] for row in rows])[:, None], cache)
        cache.commit(1)
        for b in range(3):
            found[b].append(decoder.logits(hidden[b]).all)
    for b, row in enumerate(rows):
        torch.testing.assert_close(torch.cat(found[b]), theirs(row).logits[0], **TOLERANCE)


def test_parameters_are_counted_as_transformers_counts_them(pair):
    theirs, decoder = pair
    assert decoder.config.n_parameters == sum(p.numel() for p in theirs.parameters())


GGUF_KINDS = {"llama": {}, "qwen2": {}, "qwen3": {"head_dim": 16}, "llama biased": {"attention_bias": True}}


@pytest.mark.parametrize("name", GGUF_KINDS)
def test_a_gguf_file_equals_the_model_it_was_made_from(tmp_path, name):
    kind = name.split()[0]
    theirs = make_hf_model(kind, **GGUF_KINDS[name])
    path = write_gguf_model(theirs, kind, tmp_path / "m.gguf")
    ids = ids_of((1, 40))
    with torch.inference_mode():
        torch.testing.assert_close(our_logits(load(path).decoder, ids), theirs(ids).logits, **TOLERANCE)


def write_gguf_model(model, kind, path):
    """As llama.cpp's converter does: its names, and for Llama the rows of Q and K in rotary pairs."""
    config = model.config
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    if kind == "qwen3":
        writer.add_key_length(config.head_dim)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    alphabet = sorted(gguf_alphabet())
    writer.add_token_list(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet, "th", "in", "er", "an", "on", "at"]
    )
    writer.add_token_types([3, 3, 3] + [1] * (len(alphabet) + 6))
    writer.add_token_merges(["t h", "i n", "e r", "a n", "o n", "a t"])
    writer.add_eos_token_id(2)
    mapping = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        part = name.split(".")[-2]
        if kind == "llama" and part in heads:
            shape = weight.shape
            weight = weight.view(heads[part], 2, -1, *shape[1:]).swapaxes(1, 2).reshape(shape)
        writer.add_tensor(mapping.get_name(name, try_suffixes=(".weight", ".bias")), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_alphabet():
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()


def test_a_sharded_folder_equals_a_single_file(tmp_path):
    theirs = make_hf_model()
    one, many = (
        save_hf_model(theirs, tmp_path / "one"),
        save_hf_model(theirs, tmp_path / "many", max_shard_size="100KB"),
    )
    assert len(list(many.glob("model-*.safetensors"))) > 1
    ids = ids_of((1, 30))
    assert torch.equal(our_logits(load(one).decoder, ids), our_logits(load(many).decoder, ids))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_files_are_close_to_transformers(tmp_path, dtype):
    theirs = make_hf_model().to(getattr(torch, dtype))
    folder = save_hf_model(theirs, tmp_path / "m")
    ids = ids_of((1, 30))
    with torch.inference_mode():  # transformers, fp32 products of the same rounded weights
        expected = theirs.float()(ids).logits
    ours = our_logits(load(folder).decoder, ids)
    assert (ours - expected).abs().mean() < 0.02 * expected.std()


BAD_FOLDERS = {
    "a missing shard": (lambda f: next(f.glob("model-*.safetensors")).unlink(), "is missing"),
    "a cut shard": (lambda f: cut(next(f.glob("model-*.safetensors"))), "damaged or incomplete"),
    "no weights": (lambda f: [p.unlink() for p in f.glob("*.safetensors*")], "only safetensors are read"),
    "no configuration": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
    "broken JSON": (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
    "another architecture": (lambda f: edit(f, '"LlamaForCausalLM"', '"MambaForCausalLM"'), "MambaForCausalLM"),
    "another shape": (lambda f: edit(f, '"intermediate_size": 96', '"intermediate_size": 64'), "has the shape"),
    "a path in the index": (
        lambda f: edit(f, '"model-00001', '"../model-00001', "model.safetensors.index.json"), "outside its folder"),
}  # fmt: skip


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


def edit(folder, old, new, name="config.json"):
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_an_unsound_folder_is_one_clear_error(tmp_path, name):
    break_it, message = BAD_FOLDERS[name]
    folder = save_hf_model(make_hf_model(), tmp_path / "m", max_shard_size="100KB")
    break_it(folder)
    with pytest.raises(ModelFileError, match=message):
        load(folder)


def test_a_tensor_that_nothing_reads_is_refused(tmp_path):
    folder = save_hf_model(make_hf_model(), tmp_path / "m")
    state = load_file(folder / "model.safetensors")
    state["model.layers.1.self_attn.sinks"] = torch.zeros(4)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match="does not know, such as 'model.layers.1.self_attn.sinks'"):
        load(folder)


CONFIGS = [
    {"rope_parameters": "x"}, {"rope_parameters": {"rope_type": "llama3"}}, {"num_attention_heads": 0},
    {"architectures": 5}, {"hidden_size": "64"}, {"num_key_value_heads": 3}, {"rope_parameters": {"rope_type": "yarn"}},
    {"hidden_act": "gelu"},
]  # fmt: skip


@pytest.mark.parametrize("change", CONFIGS, ids=str)
def test_a_configuration_of_nonsense_is_one_clear_error(tmp_path, change):
    folder = save_hf_model(make_hf_model(), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_names_are_translated_both_ways():
    tensor_names = names.expected_shapes(load_config())
    mapping = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name in tensor_names:  # gguf-py's own table
        assert names.hf_name_of(mapping.get_name(name, try_suffixes=(".weight", ".bias"))) == name


def load_config():
    model = make_hf_model()
    return names.config_from_hf(model.config.to_dict() | {"architectures": ["LlamaForCausalLM"]}, model.state_dict())
