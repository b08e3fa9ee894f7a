"""The question: how fast is a GGUF file beside llama.cpp, which the file was made for?

    python benchmarks/workloads/random_gguf.py dense FILE [IQ2_XXS]
    python benchmarks/gguf_files.py FILE [--llamacpp PYTHON] [--before PYTHON] [--rounds 3] [--threads 2]

One stream: a prompt of 128 tokens, then 95 more, greedy. Each engine is a process of its own in each round, and they
take turns; after a warm run each measures three times. PYTHON is an interpreter that has llama-cpp-python, or another
build of Albireo. A laptop with AVX-VNNI and no AVX-512: ALBIREO_ISA_MAX=avxvnni, and a llama-cpp-python installed with
CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX_VNNI=ON".
Printed are medians over rounds of each one's medians, least and most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROMPT, NUM_TOKENS, RUNS = list(range(100, 228)), 96, 3
Run = Callable[[int], tuple[float, float]]


def llama_cpp(path: str, threads: int) -> Run:
    """Token by token through eval(): llama.cpp's own step, without sampling. Results: seconds, tokens a second."""
    from llama_cpp import Llama

    options = {"n_threads": threads, "n_threads_batch": threads, "n_ctx": 512, "n_batch": 512, "flash_attn": True}
    model = Llama(path, verbose=False, **options)

    def run(num_tokens: int) -> tuple[float, float]:
        model.reset()
        begun = time.perf_counter()
        model.eval(PROMPT)
        first = time.perf_counter()
        for _ in range(num_tokens - 1):
            model.eval([5])
        return first - begun, (num_tokens - 1) / (time.perf_counter() - first)

    return run


def albireo(path: str, threads: int) -> Run:
    """Requests of one token and of all: what lies between is decoding."""
    from albireo import LLM, SamplingParams

    options = {"max_model_len": 512, "max_num_seqs": 1, "enable_prefix_caching": False, "skip_tokenizer_init": True}
    llm = LLM(path, num_threads=threads, **options)

    def seconds(num_tokens: int) -> float:
        params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True)
        begun = time.perf_counter()
        llm.generate([{"prompt_token_ids": PROMPT}], params, use_tqdm=False)
        return time.perf_counter() - begun

    def run(num_tokens: int) -> tuple[float, float]:
        first = seconds(1)
        return first, (num_tokens - 1) / (seconds(num_tokens) - first)

    return run


def measure(engine: str, path: str, threads: int) -> None:
    """In a process of its own: medians, as JSON."""
    run = {"llamacpp": llama_cpp}.get(engine, albireo)(path, threads)
    run(8)
    firsts, speeds = zip(*(run(NUM_TOKENS) for _ in range(RUNS)), strict=True)
    print(json.dumps([statistics.median(firsts), statistics.median(speeds)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--llamacpp", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--before", help="an interpreter that has another build of Albireo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        return measure(asked.measure, asked.file, asked.threads)
    pythons = {"albireo": sys.executable, "before": asked.before, "llamacpp": asked.llamacpp}
    found: dict[str, list[list[float]]] = {name: [] for name, python in pythons.items() if python}
    for _ in range(asked.rounds):
        for name, results in found.items():
            words = [pythons[name], str(Path(__file__).resolve()), asked.file, "--measure", name]
            done = subprocess.run([*words, "--threads", str(asked.threads)], stdout=subprocess.PIPE, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    for name, results in found.items():
        firsts, speeds = zip(*results, strict=True)
        first = f"{statistics.median(firsts) * 1e3:.0f} ms ({min(firsts) * 1e3:.0f} to {max(firsts) * 1e3:.0f})"
        speed = f"{statistics.median(speeds):.1f} tok/s ({min(speeds):.1f} to {max(speeds):.1f})"
        print(f"{name:<9} first token {first:<24} decode {speed}")


if __name__ == "__main__":
    main()
