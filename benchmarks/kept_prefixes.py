"""The question: how long does a first token take where the prompt was kept in files, beside computing it?

    python benchmarks/kept_prefixes.py MODEL [--prompts 512 2048] [--rounds 5]

The KV pool holds one prompt, so that another one between two runs leaves nothing in memory. In turn: computed, read
while the system still has the files in memory, and read from the disk (they are dropped from the page cache before).
Prints medians and ranges, and appends all to benchmarks/results/kept_prefixes.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from albireo import LLM, SamplingParams

RESULTS = Path(__file__).resolve().parent / "results" / "kept_prefixes.jsonl"


def drop(folder: Path) -> int:
    """Take the files of a folder out of the page cache. Returns: their bytes."""
    os.sync()
    total = 0
    for path in folder.rglob("*.block"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            total += path.stat().st_size
    return total


def measure(model: str, length: int, rounds: int, num_threads: int | None) -> dict[str, object]:
    """Seconds to a first token of prompts of so many tokens."""
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"computed": [], "files in memory": [], "files on disk": []}
    with tempfile.TemporaryDirectory(prefix="albireo-prefixes-") as folder:
        llm = LLM(
            model,
            prefix_cache_dir=folder,
            num_gpu_blocks_override=length // 16 + 8,
            max_model_len=length + 16,
            num_threads=num_threads,
        )
        assert llm.loaded is not None
        top = llm.loaded.model_config.vocab_size

        def first_token(prompt: list[int], expected: int) -> float:
            started = time.perf_counter()
            (output,) = llm.generate(
                {"prompt_token_ids": prompt}, SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
            )
            assert output.num_cached_tokens == expected, (output.num_cached_tokens, expected)
            return time.perf_counter() - started

        cached = (length - 1) // 16 * 16
        for _ in range(rounds):
            prompt, *others = rng.integers(10, top, (3, length)).tolist()
            seconds["computed"].append(first_token(prompt, 0))
            first_token(others[0], 0)
            time.sleep(1)  # until all is written
            seconds["files in memory"].append(first_token(prompt, cached))
            first_token(others[1], 0)
            time.sleep(1)
            num_bytes = drop(Path(folder))
            seconds["files on disk"].append(first_token(prompt, cached))
        llm.close()
    return {"model": Path(model).name, "tokens": length, "file_bytes": num_bytes, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-threads", type=int)
    args = parser.parse_args()
    for length in args.prompts:
        found = measure(args.model, length, args.rounds, args.num_threads)
        seconds = found["seconds"]
        assert isinstance(seconds, dict)
        base = statistics.median(seconds["computed"])
        for name, each in seconds.items():
            median = statistics.median(each)
            spread = f"({min(each) * 1e3:.1f} to {max(each) * 1e3:.1f})"
            print(f"{length:6} tokens  {name:16} {median * 1e3:9.1f} ms {spread:22} {base / median:6.1f} ×")
        with RESULTS.open("a") as file:
            print(json.dumps({"time": time.strftime("%Y-%m-%d"), **found}), file=file)


if __name__ == "__main__":
    main()
