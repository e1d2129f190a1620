"""A synthetic model of 1.5 billion weights, as large as those that people run on a laptop: memory and speed.

`python -m tests.bench.large` writes a GGUF file of random codes (Qwen2.5-1.5B's shape, Q4_K with Q6_K where llama.cpp's
Q4_K_M has it), and measures this engine and llama.cpp on it, each in a process of its own.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

from tests.bench import memory

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, VOCABULARY = 28, 1536, 12, 2, 128, 8960, 151_936
Q4, Q6 = gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K
SCALES_AT = {Q4: (0, 2), Q6: (208,)}  # where a block's fp16 numbers stand


def random_blocks(rng, rows, columns, kind):
    """Rows of blocks of random codes, small enough that a forward stays finite."""
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * columns // block_size, block_bytes), dtype=np.uint8)
    for start in SCALES_AT[kind]:
        scales = rng.uniform(1e-5, 3e-5, len(blocks)).astype(np.float16)
        blocks[:, start : start + 2] = scales[:, None].view(np.uint8)
    return blocks.reshape(rows, -1)


def write_model(path):
    rng, writer = np.random.default_rng(0), gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(32_768)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(["<|endoftext|>", "t", "0", *(f"t{i}" for i in range(VOCABULARY - 3))])
    writer.add_token_types([3] + [1] * (VOCABULARY - 1))
    writer.add_token_merges(["t 0"])
    writer.add_eos_token_id(0)

    def matrix(name, rows, columns, kind=Q4):
        writer.add_tensor(f"{name}.weight", random_blocks(rng, rows, columns, kind), raw_dtype=kind)

    def vector(name, n, value):
        writer.add_tensor(name, np.full(n, value, dtype=np.float32))

    matrix("token_embd", VOCABULARY, WIDTH, Q6)
    vector("output_norm.weight", WIDTH, 1)
    for i in range(LAYERS):
        more = Q6 if i % 2 else Q4
        vector(f"blk.{i}.attn_norm.weight", WIDTH, 1)
        vector(f"blk.{i}.ffn_norm.weight", WIDTH, 1)
        for part, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            matrix(f"blk.{i}.attn_{part}", rows * HEAD_DIM, WIDTH, more if part == "v" else Q4)
            vector(f"blk.{i}.attn_{part}.bias", rows * HEAD_DIM, 0)
        matrix(f"blk.{i}.attn_output", WIDTH, HEADS * HEAD_DIM)
        matrix(f"blk.{i}.ffn_gate", HIDDEN, WIDTH)
        matrix(f"blk.{i}.ffn_up", HIDDEN, WIDTH)
        matrix(f"blk.{i}.ffn_down", WIDTH, HIDDEN, more)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


OURS = f"""{memory.BEFORE}
import itertools, sys, time
from llm_magic.engine import generate as engine
from llm_magic.engine.cache import Sequence
from llm_magic.generation import Sampling
started = time.perf_counter()
llm = llm_magic.load(sys.argv[1])
load_s = time.perf_counter() - started
decoder = llm._backend.decoder
sequence = Sequence(decoder.make_cache(), [])
started = time.perf_counter()
list(engine.prefill(decoder, sequence, list(range(100, 612))))
prefill = 512 / (time.perf_counter() - started)
settings = Sampling(temperature=0, repetition_penalty=1.0)
started = time.perf_counter()
steps = engine.generate(decoder, sequence, lambda index: engine.Order(settings), frozenset())
n = len(list(itertools.islice(steps, 64)))
print(n / (time.perf_counter() - started), prefill, (anonymous() - before) / llm.info.file_bytes, load_s)
"""

LLAMA = """
import sys, torch, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.port, params.verbosity = 1024, 1, 0, -1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
request = {"prompt": list(range(100, 612)), "n_predict": 64, "temperature": 0, "ignore_eos": True}
timings = xllamacpp.Server(params).handle_completions(request)["timings"]
print(timings["predicted_per_second"], timings["prompt_per_second"])
"""


def measure(code, path):
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    return list(map(float, out.split()))


def main(rounds=3):
    with tempfile.TemporaryDirectory() as folder:
        write_model(path := Path(folder) / "large.gguf")
        print(f"a file of {path.stat().st_size / 1e6:,.0f} MB")
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(measure(OURS, path))
            theirs.append(measure(LLAMA, path))
    for index, name in enumerate(("decode behind 512 tokens", "prefill of 512 tokens")):
        mine, other = (statistics.median(row[index] for row in rows) for rows in (ours, theirs))
        print(f"{name}: llm_magic {mine:.1f} tokens/s, llama.cpp {other:.1f}, {mine / other:.2f} times")
    print(f"anonymous memory {statistics.median(row[2] for row in ours):.2f} times the file")
    print(f"loaded in {statistics.median(row[3] for row in ours):.1f} s")


if __name__ == "__main__":
    main()
