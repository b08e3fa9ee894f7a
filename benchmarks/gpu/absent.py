"""The question: does all that a model launches compile for a GPU that is not here, and what do launches cost the host?

    python benchmarks/gpu/absent.py [--weights bf16,fp8,…] [--capability 90,89,…] [--kv bfloat16,fp8] [--layers 2]
                                    [--experts]

A Llama-3.1-8B shape, or a Qwen3-30B-A3B one, without memory (compile_ahead.py), launched step by step for an absent
GPU: each kernel is compiled as a GPU would be given it, and the second time of a step is the host's alone. Needs torch
and Triton, no GPU; a process a model.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="bf16,fp8,fp8-a16,int8,int4")
    parser.add_argument("--capability", default="90")
    parser.add_argument("--kv", default="bfloat16", help="types of the cache: bfloat16, fp8, int8")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--experts", action="store_true", help="a Qwen3-30B-A3B shape")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    if args.one:
        return _one(args.weights, int(args.capability), args.kv, args.layers, args.experts)
    failed = 0
    for weights, capability, kv in product(args.weights.split(","), args.capability.split(","), args.kv.split(",")):
        told = ["--weights", weights, "--capability", capability, "--kv", kv, "--layers", str(args.layers)]
        told += ["--experts"] * args.experts
        done = subprocess.run([sys.executable, __file__, "--one", *told], capture_output=True, text=True, check=False)
        failed += done.returncode != 0
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        print(
            done.stdout.strip() if done.returncode == 0 else f"{weights} {capability} {kv}: FAILED {last}", flush=True
        )
    return failed


def _one(weights: str, capability: int, kv: str, layers: int, experts: bool) -> int:
    from albireo.backends.cuda.absent_gpu import AbsentGpu
    from albireo.backends.cuda.chip import Chip

    gpu = AbsentGpu.take(Chip(132, capability))
    from model import ENCODINGS, LLAMA_8B, QWEN3_30B_A3B, encoding_of

    from albireo.backends.cuda.buckets import DRAWS, Bucket
    from albireo.backends.cuda.catalog import CudaCatalog
    from albireo.backends.cuda.compile_ahead import empty_model, launch_all
    from albireo.compiler.passes import choose_precision
    from albireo.compiler.pipeline import compile_graph
    from albireo.models import build_graph, load_architecture
    from albireo.models.config_keys import parse_config

    config, encoding = QWEN3_30B_A3B if experts else LLAMA_8B, ENCODINGS[weights]
    rules = load_architecture(config["model_type"]).rules
    graph = build_graph(parse_config(config | {"num_hidden_layers": layers}, rules), 8192)
    if encoding is not None:
        choose_precision.run(graph, encoding_of(encoding), weights == "fp8-a16")
    maxima = {"T": 8192, "R": 1280, "G": 256}
    catalog = CudaCatalog(capability)
    program = compile_graph(graph, catalog, maxima=maxima, block_size=16, max_positions=8192, kv_dtype=kv)
    model, start = empty_model(program, 8192), time.perf_counter()
    launch_all(model)
    told = [f"{len(gpu.loaded)} kernels in {time.perf_counter() - start:.0f} s"]
    for bucket in (Bucket(64, True, DRAWS), Bucket(16, True, DRAWS, 512)):
        launch, times = model.placed.whole(bucket.sizes, DRAWS, feeds=False, states=model.hidden_states), []
        launch()
        before = gpu.num_launches
        for _ in range(9):
            begun = time.perf_counter()
            launch()
            times.append(time.perf_counter() - begun)
        count = (gpu.num_launches - before) // 9
        told.append(
            f"{bucket.sizes['T']} tokens: {count} launches, {statistics.median(times) / count * 1e6:.0f} us each"
        )
    print(f"{weights} {capability} {kv}: {'; '.join(told)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
