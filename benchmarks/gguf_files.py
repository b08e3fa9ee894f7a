"""The question: how fast is a GGUF file beside llama.cpp, which the file was made for?

    python benchmarks/workloads/random_gguf.py dense FILE [IQ2_XXS]
    python benchmarks/gguf_files.py FILE [--streams 1] [--prompt 128] [--llamacpp PYTHON] [--before PYTHON]
        [--rounds 3] [--threads 2]

Streams side by side, each a prompt of so many tokens, then 95 more, greedy; "first token" is that of the last.
Each engine is a process of its own in each round, and they take turns; after a warm run each measures three times.
PYTHON is an interpreter that has llama-cpp-python, or another build of Albireo. A laptop with AVX-VNNI and no AVX-512:
ALBIREO_ISA_MAX=avxvnni, and a llama-cpp-python installed with
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

NUM_TOKENS, RUNS, CHUNK = 96, 3, 512
Run = Callable[[int], tuple[float, float]]


def prompt(stream: int, length: int) -> list[int]:
    return list(range(100 + stream, 100 + stream + length))


def llama_cpp(path: str, threads: int, streams: int, length: int) -> Run:
    """llama.cpp's own step of one token of each stream, without sampling. Results: seconds, tokens a second of all."""
    import llama_cpp as ll

    options = ll.llama_context_default_params()
    options.n_ctx, options.n_seq_max = (length + 384) * streams, streams
    options.n_batch = options.n_ubatch = CHUNK
    options.n_threads = options.n_threads_batch = threads
    options.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_ENABLED
    model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
    context = ll.llama_init_from_model(model, options)
    batch = ll.llama_batch_init(CHUNK, 0, 1)

    def step(rows: list[tuple[int, int, int, bool]]) -> None:
        """rows: token, position, stream, whether its logits are wanted."""
        batch.n_tokens = len(rows)
        for i, (token, position, stream, is_last) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, is_last
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, stream
        if ll.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        ll.llama_get_logits(context)

    def run(num_tokens: int) -> tuple[float, float]:
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        begun = time.perf_counter()
        for stream in range(streams):
            rows = [(token, at, stream, at == length - 1) for at, token in enumerate(prompt(stream, length))]
            for at in range(0, length, CHUNK):
                step(rows[at : at + CHUNK])
        first = time.perf_counter()
        for at in range(length, length + num_tokens - 1):
            step([(5, at, stream, True) for stream in range(streams)])
        return first - begun, streams * (num_tokens - 1) / (time.perf_counter() - first)

    return run


def albireo(path: str, threads: int, streams: int, length: int) -> Run:
    """Requests of one token and of all: what lies between is decoding."""
    from albireo import LLM, SamplingParams

    options = {"max_model_len": length + 384, "max_num_seqs": streams, "enable_prefix_caching": False}
    llm = LLM(path, num_threads=threads, skip_tokenizer_init=True, **options)
    prompts = [{"prompt_token_ids": prompt(stream, length)} for stream in range(streams)]

    def seconds(num_tokens: int) -> float:
        params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True)
        begun = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - begun

    def run(num_tokens: int) -> tuple[float, float]:
        first = seconds(1)
        return first, streams * (num_tokens - 1) / (seconds(num_tokens) - first)

    return run


def measure(engine: str, path: str, *shape: int) -> None:
    """In a process of its own: medians, as JSON."""
    run = {"llamacpp": llama_cpp}.get(engine, albireo)(path, *shape)
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
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each stream's prompt")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        return measure(asked.measure, asked.file, asked.threads, asked.streams, asked.prompt)
    pythons = {"albireo": sys.executable, "before": asked.before, "llamacpp": asked.llamacpp}
    found: dict[str, list[list[float]]] = {name: [] for name, python in pythons.items() if python}
    for _ in range(asked.rounds):
        for name, results in found.items():
            words = [pythons[name], str(Path(__file__).resolve()), asked.file, "--measure", name]
            words += ["--threads", str(asked.threads), "--streams", str(asked.streams), "--prompt", str(asked.prompt)]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    for name, results in found.items():
        firsts, speeds = zip(*results, strict=True)
        first = f"{statistics.median(firsts) * 1e3:.0f} ms ({min(firsts) * 1e3:.0f} to {max(firsts) * 1e3:.0f})"
        speed = f"{statistics.median(speeds):.1f} tok/s ({min(speeds):.1f} to {max(speeds):.1f})"
        print(f"{name:<9} first token {first:<24} decode {speed}")


if __name__ == "__main__":
    main()
