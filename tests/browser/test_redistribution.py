"""What the page computes by itself, against the exact distributions of the kernel, on the default model's logits."""

from __future__ import annotations

import base64

import pytest

from llm_magic.views.feed import Feed, Part
from llm_magic.views.scripts import read_script

SETTINGS = [
    *({"temperature": t, "top_k": 0, "top_p": 1.0, "min_p": 0.0} for t in (0.1, 0.13, 0.2, 0.35, 0.7, 1.0, 1.4, 2.0)),
    *({"temperature": t, "top_k": 0, "top_p": p, "min_p": 0.0} for t in (0.5, 1.0, 1.5) for p in (0.3, 0.8, 0.9, 0.97)),
    *({"temperature": t, "top_k": 0, "top_p": 1.0, "min_p": p} for t in (0.5, 1.0, 1.5) for p in (0.01, 0.05, 0.2)),
    *({"temperature": t, "top_k": k, "top_p": 1.0, "min_p": 0.0} for t in (0.5, 1.0, 1.5) for k in (1, 15, 50, 300)),
    {"temperature": 0, "top_k": 40, "top_p": 0.9, "min_p": 0.0},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
]
COMPUTE = """([script, header, records, settings]) => {
    const { Session, redistribute } = Function(script + "; return { Session, redistribute };")();
    const session = new Session();
    const bytes = Uint8Array.from(atob(records), (c) => c.charCodeAt(0));
    session.ingest({ ...header, nodes: [{ key: 0 }], keys: [0], shown: [0] }, bytes.buffer);
    return settings.map((one) => [...Array(session.nodes.get(0).records.count).keys()].map((i) => {
        const { listed, kept } = redistribute(session.token(0, i), one);
        return { listed, kept };
    }));
}"""


@pytest.fixture(scope="module")
def generation(real_llm):
    return real_llm("Tell me a story about the sea.", temperature=1.2, top_k=0, top_p=1.0, max_tokens=24)


@pytest.fixture(scope="module")
def computed(generation, chrome):
    """Of each setting and token what the page makes of it."""
    header, records = Feed().news([Part(0, 0, generation.tokens)])
    page = chrome.new_page()
    arguments = [read_script("session.js"), header, base64.b64encode(records).decode(), SETTINGS]
    yield page.evaluate(COMPUTE, arguments)
    page.close()


def kind(settings):
    filters = [name for name, off in (("top_k", 0), ("top_p", 1.0), ("min_p", 0.0)) if settings[name] != off]
    return filters[0] if len(filters) == 1 else "temperature" if not filters else "all"


@pytest.mark.parametrize("number", range(len(SETTINGS)), ids=lambda n: "-".join(map(str, SETTINGS[n].values())))
def test_the_page_knows_each_distribution_without_the_kernel(number, generation, computed):
    limit = {"temperature": 0.005, "top_p": 0.005, "top_k": 0.015, "min_p": 0.015, "all": 0.02}[kind(SETTINGS[number])]
    errors = []
    for index, (token, found) in enumerate(zip(generation.tokens, computed[number], strict=True)):
        exact = generation.distribution(index, k=10**6, **SETTINGS[number])
        probability = {other.id: other.probability for other in exact}
        errors += [
            abs(probability.get(other.id, 0.0) - p)
            for other, p in zip(token.alternatives, found["listed"], strict=True)
        ]
    # the sum of probabilities may stop at the very edge of top-p: there one token more or less is kept
    n_over = sum(error > limit for error in errors)
    assert max(errors) < limit or (kind(SETTINGS[number]) in ("top_p", "all") and n_over <= 20)
