"""OpenVINO GenAI: python worker_openvino.py EXPORTED_MODEL THREADS

EXPORTED_MODEL comes from: optimum-cli export openvino --model MODEL --task text-generation-with-past
--weight-format fp16 EXPORTED_MODEL
"""

from __future__ import annotations

import sys
import time

import numpy as np
import openvino as ov
import openvino_genai as og
from fixed_requests import Request
from worker import serve  # first: it takes stdout

scheduler = og.SchedulerConfig()
scheduler.cache_size = 4
scheduler.enable_prefix_caching = True
scheduler.max_num_seqs = 64
scheduler.dynamic_split_fuse = True
options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": int(sys.argv[2])}
pipe = og.ContinuousBatchingPipeline(sys.argv[1], scheduler, "CPU", options)


def run(requests: list[Request]) -> tuple[float, float | None]:
    start = time.perf_counter()
    handles = []
    for i, (ids, length) in enumerate(requests):
        config = og.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = length
        config.ignore_eos = True
        config.do_sample = False
        config.eos_token_id = -1
        handles.append(pipe.add_request(i, ov.Tensor(np.array([ids], dtype=np.int64)), config))
    first = None
    while pipe.has_non_finished_requests():
        pipe.step()
        if first is None and len(requests) == 1 and handles[0].can_read():
            handles[0].read()
            first = time.perf_counter() - start
    wall_s = time.perf_counter() - start
    if len(requests) > 1:
        assert [len(h.read_all()[0].generated_ids) for h in handles] == [n for _, n in requests]
    return wall_s, first


serve(run)
