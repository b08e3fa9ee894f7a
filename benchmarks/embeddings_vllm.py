"""The texts of benchmarks/embeddings.py, embedded by vLLM; run in an environment of its own.

    python benchmarks/embeddings_vllm.py MODEL --num-threads 2

MODEL: a directory with weights and a tokenizer. Prints the median and spread of each set of texts, to be run in
turn with benchmarks/embeddings.py MODEL.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

from embedded_texts import texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-threads", type=int, default=2)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(args.num_threads))
    import vllm

    options: dict[str, Any] = {"runner": "pooling", "dtype": args.dtype}
    llm = vllm.LLM(args.model, enable_prefix_caching=False, **options)
    for name, each in texts(llm.llm_engine.model_config.hf_config.vocab_size).items():
        prompts = [{"prompt_token_ids": ids} for ids in each]
        took = []
        for turn in range(args.rounds + 1):
            start = time.perf_counter()
            llm.embed(prompts, use_tqdm=False)
            if turn:
                took.append(time.perf_counter() - start)
        median = statistics.median(took)
        spread = f"({min(took) * 1e3:.1f} to {max(took) * 1e3:.1f})"
        speed = sum(map(len, each)) / median
        print(f"{name:16} vllm {args.dtype:16} {speed:8,.0f} tok/s   {median * 1e3:8.1f} ms {spread}")


if __name__ == "__main__":
    main()
