"""Albireo: python worker_albireo.py MODEL THREADS [QUANTIZATION [KV_CACHE_DTYPE]]"""

from __future__ import annotations

import sys
import time

from fixed_requests import Request
from worker import serve  # first: it takes stdout

from albireo import LLM, SamplingParams

given = dict(zip(("quantization", "kv_cache_dtype"), sys.argv[3:], strict=False))
llm = LLM(
    sys.argv[1],
    dtype="bfloat16",
    max_model_len=4096,
    num_threads=int(sys.argv[2]),
    kv_cache_memory_bytes=4 << 30,
    **given,
)


def run(requests: list[Request]) -> tuple[float, float | None]:
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True, detokenize=False) for _, n in requests]
    start = time.perf_counter()
    outputs = llm.generate([{"prompt_token_ids": ids} for ids, _ in requests], params, use_tqdm=False)
    wall_s = time.perf_counter() - start
    assert [len(o.outputs[0].token_ids) for o in outputs] == [n for _, n in requests]
    return wall_s, outputs[0].metrics.first_token_latency if len(requests) == 1 else None


serve(run)
