"""The default model against transformers in fp32 on the same weights, and against itself after a restart."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import gguf
import pytest
import torch
from conftest import fresh
from texts import CODE, DIALOGUE, PROSE

from llm_magic.engine.cache import Sequence
from llm_magic.engine.generate import advance, make_runner, prefill


@pytest.fixture(scope="module")
def truth(real_path):
    return make_truth(real_path)


def make_truth(real_path):
    """transformers' Llama in fp32, its weights dequantised by gguf-py, Q and K back in Hugging Face's row order."""
    import transformers

    reader = gguf.GGUFReader(real_path)
    config = transformers.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, rope_theta=100_000.0, rms_norm_eps=1e-5,
        tie_word_embeddings=True, attn_implementation="eager",
    )  # fmt: skip
    mapping = {
        name: key
        for key in transformers.LlamaForCausalLM(config).state_dict()
        if (name := gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30).get_name(key, try_suffixes=(".weight",)))
    }
    heads = {"attn_q": 9, "attn_k": 3}
    state = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()).float()
        part = tensor.name.split(".")[-2]
        if part in heads:
            weight = weight.view(heads[part], -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        state[mapping[tensor.name]] = weight
    model = transformers.LlamaForCausalLM(config).eval()
    model.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]})
    return model


@pytest.fixture(scope="module")
def forced(real_llm, truth):
    """Logits of every position of prose, code and dialogue, by single decode steps, and the truth's."""
    decoder = real_llm._backend.decoder
    ours, theirs = [], []
    for text in (PROSE, CODE, DIALOGUE):
        ids = list(real_llm.tokenize(text).ids)
        sequence = Sequence(decoder.make_cache(), [])
        list(prefill(decoder, sequence, ids[:1]))
        run, rows = make_runner(decoder), [decoder.logits(sequence.hidden[None]).all]
        with torch.inference_mode():
            rows += [decoder.logits(advance(sequence, i, run)[None]).all for i in ids[1:]]
            theirs.append(truth(torch.tensor([ids])).logits[0])
        ours.append(torch.cat(rows))
    return torch.cat(ours), torch.cat(theirs)


def test_the_best_token_is_the_truths_but_for_near_ties(forced):
    ours, theirs = forced
    assert len(ours) >= 400
    agrees = ours.argmax(-1) == theirs.argmax(-1)
    best_two = theirs.topk(2).values
    gaps = (best_two[:, 0] - best_two[:, 1])[~agrees]
    largest = max(gaps.tolist(), default=0.0)
    figures = f"agreement {agrees.float().mean():.4f} of {len(ours)}, largest gap where not {largest:.3f}"
    print(figures)
    assert agrees.float().mean() >= 0.96 and (gaps < 0.25).all(), figures


def test_probabilities_are_as_true_as_llama_cpps(forced):
    ours, theirs = forced
    p, q = theirs.log_softmax(-1), ours.log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1).mean().item()
    print(f"mean KL {divergence:.5f} nats")
    assert divergence < 0.0027  # nats; what llama.cpp has on the same file


@pytest.mark.parametrize("text", [PROSE, CODE, DIALOGUE], ids=["prose", "code", "dialogue"])
def test_a_score_is_close_to_the_truth(real_llm, truth, text):
    score = real_llm.score(text)
    ids = torch.tensor([[t.id for t in score.tokens]])
    with torch.inference_mode():
        loss = torch.nn.functional.cross_entropy(truth(ids).logits[0, :-1], ids[0, 1:], reduction="none")
    difference = (torch.tensor([t.logprob for t in score.tokens[1:]]) + loss).abs().mean().item()
    print(f"mean absolute difference {difference:.4f} nats")
    assert difference < 0.05


def test_paris_is_the_capital_of_france(real_llm):
    best = real_llm.next("The capital of France is").top[0]
    assert best.text == " Paris" and best.probability == pytest.approx(0.77, abs=0.02)  # the truth has 0.77


PROMPTS = ["Why is the sky blue?", "Name three rivers.", "Write one sentence about a cat."]
OPTIONS = {"temperature": 0.8, "seed": 5, "max_tokens": 24}
FINGERPRINT = """
import json, sys, hashlib, llm_magic
llm = llm_magic.load()
out = {}
for prompt in json.loads(sys.argv[1]):
    g = llm(prompt, **json.loads(sys.argv[2]))
    figures = repr([(t.id, t.logprob, t.sampled_logprob, t.entropy) for t in g.tokens])
    out[prompt] = [hashlib.sha256(figures.encode()).hexdigest(), g.text]
print(json.dumps(out))
"""


def fingerprints(llm, prompts):
    found = {}
    for prompt in prompts:
        g = llm(prompt, **OPTIONS)
        figures = repr([(t.id, t.logprob, t.sampled_logprob, t.entropy) for t in g.tokens])
        found[prompt] = [hashlib.sha256(figures.encode()).hexdigest(), g.text]
    return found


def test_the_same_call_is_bit_identical_twice_after_a_restart_and_whatever_was_asked_before(real_llm):
    llm = fresh(real_llm)
    first = fingerprints(llm, PROMPTS)
    assert fingerprints(llm, PROMPTS) == first
    assert fingerprints(fresh(real_llm), PROMPTS[::-1]) == first
    command = [sys.executable, "-c", FINGERPRINT, json.dumps(PROMPTS[1:]), json.dumps(OPTIONS)]
    restarted = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(restarted.stdout) == {p: first[p] for p in PROMPTS[1:]}


@pytest.mark.parametrize("n", [63, 64, 65, 66, 127, 128, 129, 130])
def test_a_warm_prompt_of_any_length_has_the_bits_of_a_cold_one(real_llm, n):
    text = "".join(real_llm.tokenize(PROSE).pieces[:n])
    options = {"mode": "text", "temperature": 0, "max_tokens": 3}
    llm, cold = fresh(real_llm), fresh(real_llm)(text, **options)
    assert len(cold.prompt.ids) == n
    llm(PROSE, **options)
    warm = llm(text, **options)
    assert warm.cached_tokens == n - 1 and warm == cold


def test_a_long_shared_prefix_leaves_every_bit_as_it_was(real_llm):
    llm = fresh(real_llm)
    llm(PROSE + "\n\nWho is the keeper?", **OPTIONS)
    warm = llm(PROSE + "\n\nWhat did the keeper write?", **OPTIONS)
    cold = fresh(real_llm)(PROSE + "\n\nWhat did the keeper write?", **OPTIONS)
    assert warm.cached_tokens > 64 and cold.cached_tokens == 0
    assert warm == cold


def test_a_warm_prefix_leaves_every_bit_as_it_was_over_100_seeds(real_llm):
    """A chat's second turn, warm (the first answer's cache comes from decode steps) and cold (from a prefill)."""
    llm = fresh(real_llm)
    first = llm("Name a colour.", temperature=0, max_tokens=12)
    for seed in range(100):
        options = {
            "history": first.messages, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0,
            "seed": seed, "max_tokens": 6,
        }  # fmt: skip
        llm.forget()
        llm("Name a colour.", temperature=0, max_tokens=12)
        warm = llm("Another one?", **options)
        assert warm.cached_tokens > len(first.prompt.ids)
        assert warm == fresh(real_llm)("Another one?", **options)


def test_code_is_code_without_fences(real_llm):
    g = real_llm("Write a function that adds two numbers.", mode="code", max_tokens=120)
    assert "```" not in g.text and "def " in g.text and g.finish_reason == "stop"
    compile(g.text, "cell", "exec")
