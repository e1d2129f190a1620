"""A table of speed and truth: this engine, llama.cpp (xllamacpp) and transformers, their runs alternating.

Run on a machine that does nothing else: `python -m tests.bench [--rounds N] [--skip-transformers]`. Each
contender has a process of its own. The truth is transformers in fp32 on the dequantised weights.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from test_real import make_truth
from texts import CODE, DIALOGUE, PROSE

import llm_magic
from llm_magic.engine import generate as engine
from llm_magic.engine.batch import Row, generate_batch
from llm_magic.engine.cache import Sequence
from llm_magic.generation import Sampling
from llm_magic.weights import store
from tests.bench import memory

PROMPT_IDS = list(range(100, 143))
LONG_IDS = [100 + i * 7 % 40_000 for i in range(512)]
FAR_IDS = [100 + i * 7 % 40_000 for i in range(4096)]
NEW_TOKENS, SLOTS = 128, 8
JOBS = ("decode", "decode_far", "prefill", "samples", "logits", "figures")
GREEDY = Sampling(temperature=0, repetition_penalty=1.0, max_tokens=NEW_TOKENS)


class Ours:
    name = "llm_magic"

    def __init__(self):
        self.llm = llm_magic.load()
        self.decoder = self.llm._backend.decoder
        self.far = None

    def _prefilled(self, ids):
        sequence = Sequence(self.decoder.make_cache(), [])
        list(engine.prefill(self.decoder, sequence, ids))
        return sequence

    def _decode(self, sequence, n=NEW_TOKENS):
        started = time.perf_counter()
        steps = engine.generate(self.decoder, sequence, lambda index: engine.Order(GREEDY), frozenset())
        steps = list(itertools.islice(steps, n))
        return len(steps) / (time.perf_counter() - started)

    def decode(self):
        return self._decode(self._prefilled(PROMPT_IDS))

    def decode_far(self):
        self.far = self.far or self._prefilled(FAR_IDS)
        far, n = self.far, len(FAR_IDS)
        return self._decode(Sequence(far.cache.copy(n), FAR_IDS.copy(), far.hidden, n), NEW_TOKENS // 4)

    def prefill(self):
        started = time.perf_counter()
        self._prefilled(LONG_IDS)
        return len(LONG_IDS) / (time.perf_counter() - started)

    def samples(self):
        rows = [
            Row(self._prefilled(PROMPT_IDS), Sampling(temperature=0.8, max_tokens=NEW_TOKENS), i) for i in range(SLOTS)
        ]
        started = time.perf_counter()
        batches = generate_batch(self.decoder, iter(rows), SLOTS, frozenset())
        return sum(map(len, batches)) / (time.perf_counter() - started)

    def logits(self, ids):
        sequence, run = self._prefilled(ids[:1]), engine.make_runner(self.decoder)
        with torch.inference_mode():
            rows = [self.decoder.logits(sequence.hidden[None]).all]
            rows += [self.decoder.logits(engine.advance(sequence, i, run)[None]).all for i in ids[1:]]
        return torch.cat(rows)

    def figures(self):
        """What has no counterpart to race against: the cost of probabilities, and a prompt that comes again."""
        return {"probabilities": self._cost_of_probabilities(), "again": self._steps_until_again()}

    def _cost_of_probabilities(self):
        """The time that top 20, entropy and rank take in a decode, as a share of all else."""
        describe, spent_s = engine.describe, 0.0

        def describe_timed(*arguments):
            nonlocal spent_s
            started = time.perf_counter()
            steps = describe(*arguments)
            spent_s += time.perf_counter() - started
            return steps

        engine.describe = describe_timed
        total_s = sum(NEW_TOKENS / self.decode() for _ in range(5))
        engine.describe = describe
        return spent_s / (total_s - spent_s)

    def _steps_until_again(self, rounds=9):
        """Time to the first token of a 512-token prompt asked again at another temperature, in decode steps."""
        text = "".join(map(self.llm._backend.tokenizer.text_of, LONG_IDS))
        options = {"mode": "text", "max_tokens": 32, "temperature": 0.5}
        generation, times = self.llm(text, **options), []
        for i in range(rounds):
            started = time.perf_counter()
            next(self.llm.stream(text, **options | {"temperature": 0.6 + i / 10}))
            times.append(time.perf_counter() - started)
        return statistics.median(times) / statistics.median(t.ms / 1000 for t in generation.tokens[1:])


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, slots=1, slot_tokens=1024):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(store.default_path())
        params.n_ctx, params.n_parallel, params.port, params.verbosity = slot_tokens * slots, slots, 0, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        self.server, self.slots = xllamacpp.Server(params), slots

    def _complete(self, ids, n, **options):
        request = {"prompt": ids, "n_predict": n, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        return self.server.handle_completions(request | options)

    def decode(self):
        return self._complete(PROMPT_IDS, NEW_TOKENS)["timings"]["predicted_per_second"]

    def decode_far(self):
        answer = self._complete(FAR_IDS, NEW_TOKENS // 4, cache_prompt=True)
        return answer["timings"]["predicted_per_second"]

    def prefill(self):
        return self._complete(LONG_IDS, 1)["timings"]["prompt_per_second"]

    def samples(self):
        options = {"temperature": 0.8, "cache_prompt": True}
        threads = [
            threading.Thread(target=self._complete, args=(PROMPT_IDS, NEW_TOKENS), kwargs=options | {"seed": i})
            for i in range(self.slots)
        ]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.slots * NEW_TOKENS / (time.perf_counter() - started)

    def logits(self, ids):
        """Logprobs of the whole vocabulary behind each prefix, one decoded token at a time."""
        rows = []
        for n in range(1, len(ids) + 1):
            answer = self._complete(ids[:n], 1, n_probs=49_152, cache_prompt=True)
            row = torch.full((49_152,), -30.0)
            for entry in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
                row[entry["id"]] = max(-30.0, entry["logprob"])
            rows.append(row)
        return torch.stack(rows)


class Transformers:
    def __init__(self, dtype):
        self.name = f"transformers {str(dtype).removeprefix('torch.')}"
        self.model = make_truth(store.default_path()).to(dtype)

    @torch.inference_mode()
    def decode(self):
        ids = torch.tensor([PROMPT_IDS])
        out = self.model(ids, use_cache=True)
        started = time.perf_counter()
        for _ in range(NEW_TOKENS // 4):
            token = out.logits[:, -1:].argmax(-1)
            out = self.model(token, past_key_values=out.past_key_values, use_cache=True)
        return NEW_TOKENS // 4 / (time.perf_counter() - started)

    @torch.inference_mode()
    def prefill(self):
        started = time.perf_counter()
        self.model(torch.tensor([LONG_IDS]), logits_to_keep=1)
        return len(LONG_IDS) / (time.perf_counter() - started)

    @torch.inference_mode()
    def logits(self, ids):
        return self.model(torch.tensor([ids])).logits[0].float()


class Apart:
    """A contender in a process of its own: thread pools that share a process slow each other down."""

    def __init__(self, kind, *arguments):
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(theirs, kind, arguments), daemon=True)
        self._process.start()
        self.name, self.jobs = self._pipe.recv()

    def run(self, job, *arguments):
        self._pipe.send((job, arguments))
        value = self._pipe.recv()
        return torch.from_numpy(value) if job == "logits" else value


def _serve(pipe, kind, arguments):
    contender = kind(*arguments)
    pipe.send((contender.name, [job for job in JOBS if hasattr(contender, job)]))
    while True:
        try:
            job, arguments = pipe.recv()
        except EOFError:  # the bench is over
            return
        value = getattr(contender, job)(*arguments)
        pipe.send(value.numpy() if job == "logits" else value)


def alternate(contenders, job, rounds):
    """Median and spread of a job, each round running all contenders in turn; one round to warm up."""
    found = {contender.name: [] for contender in contenders}
    for index in range(rounds + 1):
        for contender in contenders:
            time.sleep(0.3)  # the threads of the one before stop spinning
            value = contender.run(job)
            found[contender.name] += [value] if index else []
    return {name: (statistics.median(v), min(v), max(v)) for name, v in found.items()}


def fidelity(contender, truth, ids_of_texts):
    """Mean and 99th percentile of KL to the truth, total variation, agreement of the best token."""
    kl, tv, agree = [], [], []
    for ids in ids_of_texts:
        p, q = truth.run("logits", ids).log_softmax(-1), contender.run("logits", ids).log_softmax(-1)
        kl.append((p.exp() * (p - q)).sum(-1))
        tv.append((p.exp() - q.exp()).abs().sum(-1) / 2)
        agree.append(p.argmax(-1) == q.argmax(-1))
    kl, tv, agree = torch.cat(kl), torch.cat(tv), torch.cat(agree).float()
    return kl.mean().item(), kl.quantile(0.99).item(), tv.mean().item(), agree.mean().item()


def seconds_to_first_token():
    """From `import torch` done to the first token of an answer, in a process of its own."""
    return float(subprocess.run([sys.executable, "-c", FIRST_TOKEN], capture_output=True, text=True, check=True).stdout)


FIRST_TOKEN = """
import time, torch
started = time.perf_counter()
import llm_magic
next(llm_magic.load().stream("Why is the sky blue?"))
print(time.perf_counter() - started)
"""


def memory_over_file():
    """Anonymous memory above a process with torch, after a 512-token prompt and 64 tokens, over the file's size."""
    return float(subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout)


MEMORY = f"""{memory.BEFORE}
llm = llm_magic.load()
text = "".join(llm._backend.tokenizer.text_of(100 + i * 7 % 40_000) for i in range(505))
llm(text, mode="text", max_tokens=64)
print((anonymous() - before) / llm.info.file_bytes)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-transformers", action="store_true")
    parser.add_argument("--skip-fidelity", action="store_true")
    parser.add_argument("--skip-speed", action="store_true")
    options = parser.parse_args()
    ours, llama, llama_slots = Apart(Ours), Apart(LlamaCpp), Apart(LlamaCpp, SLOTS)
    others = [] if options.skip_transformers else [Apart(Transformers, torch.bfloat16)]
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {options.rounds} rounds"
    )
    if not options.skip_speed:
        race(ours, llama, llama_slots, others, options.rounds)
    if options.skip_fidelity:
        return
    tokenizer = llm_magic.load()._backend.tokenizer
    texts = [tokenizer.encode(text) for text in (PROSE, CODE, DIALOGUE)]
    truth = Apart(Transformers, torch.float32)
    for contender in (ours, llama, *others):
        mean, high, variation, agreement = fidelity(contender, truth, texts)
        print(
            f"fidelity {contender.name:<24} KL {mean:.7f} mean, {high:.6f} at 99 %, total variation {variation:.5f}, "
            f"best token {agreement:.2%} of {sum(map(len, texts))}"
        )


def race(ours, llama, llama_slots, others, rounds):
    """Print the speeds."""
    far = Apart(LlamaCpp, 1, len(FAR_IDS) + 512)
    medians = {}
    for job, contenders in (
        ("decode", [ours, llama, *others]), ("decode_far", [ours, far]), ("prefill", [ours, llama, *others]),
        ("samples", [ours, llama_slots]),
    ):  # fmt: skip
        figures = alternate(contenders, job, rounds)
        for name, (median, low, high) in figures.items():
            medians[job, name] = median
            ratio = figures[ours.name][0] / median
            print(
                f"{job:<10} {name:<24} {median:8.1f} tokens/s ({low:.1f} to {high:.1f}), ours is {ratio:.2f} times that"
            )
    for name in (ours.name, llama.name):
        ratio = medians["decode", name] / medians["decode_far", name]
        print(f"a token behind 4,096 others takes {name} {ratio:.2f} times as long as one behind 43 to 170")
    time.sleep(2)  # the servers' threads stop spinning
    figures = ours.run("figures")
    print(f"top 20, entropy and rank take {figures['probabilities']:.1%} of a decode step")
    print(f"a 512-token prompt again, at another temperature: first token after {figures['again']:.2f} decode steps")
    print(f"torch imported to first token: {statistics.median(seconds_to_first_token() for _ in range(5)):.2f} s")
    print(f"anonymous memory: {memory_over_file():.2f} times the file")
