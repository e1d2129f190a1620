"""Write the corpus of the present version, from a tiny random model."""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from conftest import make_hf_model, save_hf_model

import llm_magic
from llm_magic.views import bundle
from llm_magic.visible import show_controls

with tempfile.TemporaryDirectory() as folder:
    llm = llm_magic.load(save_hf_model(make_hf_model(), Path(folder) / "tiny"))
    settings = {"mode": "text", "temperature": 1.0, "max_tokens": 6, "repetition_penalty": 1.2}
    generation = llm("the rain in the", **settings)
    values = {
        "generation": generation,
        "branch": generation.branch(2, " <b>é", max_tokens=3),
        "samples": llm.samples("the rain", 2, **settings),
        "score": llm.score("the rain in spain"),
    }
    for name, value in values.items():
        texts = [value] if hasattr(value, "tokens") else list(value)
        expected = [
            [
                {
                    "id": token.id,
                    "text": show_controls(token.text),
                    "logprob": token.logprob,
                    "sampledLogprob": token.sampled_logprob,
                    "rank": token.rank,
                    "entropy": token.entropy,
                    "listed": [[a.id, a.logprob, a.penalty] for a in token.alternatives],
                    "tail": list(struct.iter_unpack("<2f", token.tail.data)) if token.tail else None,
                }
                for token in text.tokens
            ]
            for text in texts
        ]
        saved = {"saved": bundle.encode_tokens(value), "expected": expected}
        path = Path(__file__).parent / f"version-{bundle.VERSION}-{name}.json"
        path.write_text(json.dumps(saved, separators=(",", ":")) + "\n", encoding="utf-8")
