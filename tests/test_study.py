"""Looking inside, against transformers on tiny random models of three shapes."""

from __future__ import annotations

import base64
import io
import re

import pytest
import torch
from conftest import make_hf_model, save_hf_model

import llm_magic
from llm_magic.errors import OptionError
from llm_magic.study.trace import count_bytes

TEXT = "the rain in the night falls on the river"
KINDS = {"llama": {}, "llama tied": {"tie_word_embeddings": True}, "qwen3": {}}


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """Our model and transformers', of the same weights."""
    theirs = make_hf_model(request.param.split()[0], **KINDS[request.param])
    folder = save_hf_model(theirs, tmp_path_factory.mktemp("study") / "model")
    return llm_magic.load(folder), theirs


def run_theirs(pair, **wanted):
    llm, theirs = pair
    with torch.inference_mode():
        return theirs(torch.tensor([llm.encode(TEXT)]), **wanted)


def test_the_residual_stream_equals_that_of_transformers(pair):
    llm, theirs = pair
    found = llm.trace(TEXT)["residual"]
    expected = torch.stack(run_theirs(pair, output_hidden_states=True).hidden_states)[:, 0]
    assert found.shape == expected.shape
    torch.testing.assert_close(found[:-1], expected[:-1], atol=1e-3, rtol=1e-3)  # the last of theirs is normalised
    torch.testing.assert_close(theirs.model.norm(found[-1]), expected[-1], atol=1e-3, rtol=1e-3)


def test_what_layers_add_is_the_difference_of_the_residual_stream(pair):
    traced = pair[0].trace(TEXT, ("residual", "attention", "mlp"))
    total = traced["residual"][:-1] + traced["attention"] + traced["mlp"]
    torch.testing.assert_close(total, traced["residual"][1:], atol=1e-4, rtol=1e-4)


def test_each_heads_weights_equal_those_of_transformers(pair):
    found = pair[0].attention(TEXT)
    expected = torch.stack(run_theirs(pair, output_attentions=True).attentions)[:, 0]
    for layer in range(found.n_layers):
        weights = found.heads(layer)
        torch.testing.assert_close(weights, expected[layer], atol=1e-4, rtol=1e-3)
        assert (weights.triu(1) == 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
        assert torch.equal(found.head(layer, 1), weights[1])


def test_without_the_sink_nothing_goes_to_the_first_token(pair):
    found = pair[0].attention(TEXT)
    whole, bare = found.head(1, 0), found.head(1, 0, has_sink=False)
    assert (bare[1:, 0] == 0).all() and bare[0, 0] == 1
    torch.testing.assert_close(bare[1:, 1:], whole[1:, 1:] / (1 - whole[1:, :1]), atol=1e-5, rtol=1e-4)


def test_shares_of_attention_are_those_of_the_weights(pair):
    found = pair[0].attention(TEXT)
    shares, weights = found.measure_shares(), found.head(1, 2)
    rows = range(2, len(weights))
    expected = [
        sum(weights[i, 0] for i in rows), sum(weights[i, i - 1] for i in rows), sum(weights[i, i] for i in rows)
    ]  # fmt: skip
    torch.testing.assert_close(shares[1, 2], torch.stack(expected) / len(rows))
    frame = found.to_pandas()
    assert len(frame) == found.n_layers * found.n_heads and list(frame.kv_head[:4]) == [0, 0, 1, 1]


def test_layers_and_positions_are_chosen_and_memory_is_told_first(pair):
    llm = pair[0]
    whole, n = llm.trace(TEXT, ("residual", "active", "queries", "keys")), len(llm.encode(TEXT))
    part = llm.trace(TEXT, ("residual", "active", "queries", "keys"), layers=[1], positions=[-1, 2])
    assert part.layers == (1,) and part.positions == (2, n - 1)
    rows = list(part.positions)
    assert torch.equal(part["residual"], whole["residual"][[0, 2]][:, rows])
    assert torch.equal(part["active"], whole["active"][[1]][:, rows])
    assert torch.equal(part["queries"], whole["queries"][[1]][:, :, rows])
    assert torch.equal(part["keys"], whole["keys"][[1]])
    for traced, n_layers in ((whole, 2), (part, 1)):
        assert traced.n_bytes == count_bytes(
            llm.decoder.config, n, len(traced.positions), n_layers, list(traced.tensors)
        )
    with pytest.raises(OptionError, match="the trace would hold 0 MB, more than 0 MB"):
        llm.trace(TEXT, limit_bytes=1000)
    for wrong, message in (
        ({"layers": [9]}, "no layer"),
        ({"positions": [999]}, "no position"),
        ({"parts": ["x"]}, "'x'"),
    ):
        with pytest.raises(OptionError, match=message):
            llm.trace(TEXT, **wrong)


def test_the_lens_is_the_head_behind_the_final_norm_of_each_layer(pair):
    llm, theirs = pair
    found = llm.lens(TEXT, k=5)
    output = run_theirs(pair, output_hidden_states=True)
    states = [theirs.model.norm(h[0]) for h in output.hidden_states[:-1]] + [output.hidden_states[-1][0]]
    with torch.inference_mode():
        expected = theirs.lm_head(torch.stack(states)).log_softmax(-1)
    torch.testing.assert_close(found.top_logprobs, expected.topk(5).values, atol=1e-3, rtol=1e-3)
    kl = torch.nn.functional.kl_div(expected, expected[-1].expand_as(expected), reduction="none", log_target=True).sum(
        -1
    )
    torch.testing.assert_close(found.kl, kl, atol=1e-3, rtol=1e-3)
    assert found.kl[-1].abs().max() == 0 and (found.ranks[-1] == 1).all()
    torch.testing.assert_close(output.logits[0].log_softmax(-1), expected[-1], atol=1e-4, rtol=1e-4)


def test_a_pinned_tokens_rank_is_told_through_the_layers(pair):
    llm = pair[0]
    found = llm.lens(TEXT, target="x", positions=[-1])
    (target,) = llm.tokenize("x").ids
    distribution = llm.next(TEXT, k=llm.info.vocabulary_tokens)
    rank = next(i for i, other in enumerate(distribution.top, 1) if other.id == target)
    assert found.targets == ("x",) and int(found.ranks[-1, 0]) == rank
    assert found.logprobs[-1, 0].item() == pytest.approx(distribution.top[rank - 1].logprob, abs=1e-4)
    with pytest.raises(OptionError, match="has 3 tokens"):
        llm.lens(TEXT, target="xyz")


def test_a_generation_is_looked_into_with_its_prompt(pair):
    llm = pair[0]
    g = llm("hello", max_tokens=4)
    found = llm.lens(g)
    assert found.pieces[-1] == g.tokens[-1].text or found.positions[-1] == len(g.prompt.ids) + len(g.tokens) - 1
    frame = found.to_pandas()
    assert len(frame) == len(found.positions) * (found.n_layers + 1)
    assert frame[frame.layer == found.n_layers].kl.abs().max() == 0


@pytest.mark.parametrize("text", ["the rain", TEXT * 5, "<b>&</b> the rain"])
def test_pictures_of_attention_are_images_and_tables_without_script(pair, text):
    from PIL import Image

    html = pair[0].attention(text, layer=1, head=3)._repr_html_()
    assert "<script" not in html and "<b>" not in html and "layer 1, head 3 (key head 1)" in html
    images = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", html)]
    n = len(pair[0].encode(text))
    sizes = [Image.open(io.BytesIO(data)).size for data in images]
    side = -(-n // -(-n // 24))
    assert sizes[0] == (4 * side + 3 * 2, 2 * side + 2 * 2)
    assert sizes[1:] == ([(n, n)] if n > 24 else [])
    with pytest.raises(OptionError, match="there is no head 9"):
        pair[0].attention(text, head=9)


def test_neighbors_are_those_of_transformers_embeddings(pair):
    llm, theirs = pair
    found = llm.neighbors("x", k=7)
    vectors = theirs.get_input_embeddings().weight.detach()
    (own,) = llm.tokenize(found.text).ids
    cosines = torch.nn.functional.cosine_similarity(vectors, vectors[own][None])
    cosines[own] = -2
    best = cosines.topk(7)
    assert [n.id for n in found] == best.indices.tolist()
    assert [n.cosine for n in found] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert "cosine of embeddings" in found._repr_html_() and len(found.to_pandas()) == 7
    with pytest.raises(OptionError, match="has 3 tokens"):
        llm.neighbors("xyz")
