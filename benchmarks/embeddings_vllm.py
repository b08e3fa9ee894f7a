"""The texts of benchmarks/embeddings.py, embedded by vLLM; run in an environment of its own.

    python benchmarks/embeddings_vllm.py MODEL --texts 32 --length 128 --num-threads 2

MODEL: a directory with weights and a tokenizer. Prints the median and spread of each set of texts, to be run in
turn with benchmarks/embeddings.py MODEL.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-threads", type=int, default=2)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(args.num_threads))
    import vllm

    options: dict[str, Any] = {"runner": "pooling", "dtype": args.dtype}
    llm = vllm.LLM(args.model, enable_prefix_caching=False, **options)
    rng = np.random.default_rng(0)
    lengths = {
        f"{args.texts} of {args.length}": [args.length] * args.texts,
        f"{args.texts} of 8 to 300": rng.integers(8, 301, args.texts).tolist(),
        "1 of 16": [16],
    }
    vocab_size = llm.llm_engine.model_config.hf_config.vocab_size
    for name, each in lengths.items():
        prompts = [{"prompt_token_ids": rng.integers(1000, vocab_size, n).tolist()} for n in each]
        took = []
        for turn in range(args.rounds + 1):
            start = time.perf_counter()
            llm.embed(prompts, use_tqdm=False)
            if turn:
                took.append(time.perf_counter() - start)
        median = statistics.median(took)
        spread = f"({min(took) * 1e3:.1f} to {max(took) * 1e3:.1f})"
        print(f"{name:16} vllm {args.dtype:16} {sum(each) / median:8,.0f} tok/s   {median * 1e3:8.1f} ms {spread}")


if __name__ == "__main__":
    main()
