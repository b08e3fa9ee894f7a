"""What a layer of experts costs on the processor: against its limits, and against a dense MLP of the active size.

    PYTHONPATH=tests python benchmarks/experts.py [--quantization int8] [--num-experts 64]

A layer in the shape of Qwen3-30B-A3B with random weights. Processor time of one thread, least of a few runs, probes in
the same run, so that what else runs on the machine disturbs little. Needs 6 GB.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from albireo import _native
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.compiler.passes import choose_precision
from albireo.compiler.pipeline import compile_graph
from albireo.graph.program import Call
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from albireo.quantization.schemes import Precision
from backends.cpu.test_gather import Stored, Weights
from step_batches import Work, make_step

HIDDEN, WIDTH, TOP_K = 2048, 768, 8
SHAPE = {
    "vocab_size": 1024,
    "hidden_size": HIDDEN,
    "intermediate_size": TOP_K * WIDTH,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}
READ_BYTES = 1 << 28


def model(architecture: str, quantization: str | None, **changes: Any) -> CpuModel:
    """Random; matrices of one shape are the same numbers."""
    known = load_architecture(architecture)
    graph = build_graph(parse_config({**known.tiny, **SHAPE, **changes}, known.rules), 4096)
    if quantization:
        choose_precision.run(graph, Precision(quantization).of)
    program = compile_graph(
        graph, CpuCatalog(isa_levels()), maxima={"T": 2048, "R": 1, "G": 64}, block_size=16, max_positions=4096
    )
    rng, made, tensors = np.random.default_rng(0), {}, {}
    for value in graph.constants.values():
        assert value.constant is not None
        for segment in value.constant.segments:
            shape = (len(segment), *(int(dim) for dim in value.type.dims[1:]))
            if shape not in made:
                made[shape] = Stored(rng.standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5), "bfloat16")
            tensors[segment.source] = made[shape]
    return CpuModel(program, Weights(tensors), thread_pool(1), 600)


def least(run: Callable[[], object], times: int) -> float:
    """Seconds of processor time."""
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantization")
    parser.add_argument("--num-experts", type=int, default=64)
    args = parser.parse_args()
    experts = {"num_experts": args.num_experts, "num_experts_per_tok": TOP_K, "moe_intermediate_size": WIDTH}
    moe = model("qwen3_moe", args.quantization, num_hidden_layers=1, mlp_only_layers=[], **experts)
    dense = model("qwen3", args.quantization, num_hidden_layers=2)
    of_moe = [call for call in moe.program.calls if call.family == "expert_linear"]
    of_dense = [
        call for call in dense.program.calls if call.family == "linear" and call.origin.startswith("layers.0.mlp")
    ]
    ids = next(call for call in moe.program.calls if call.family == "route").args["ids"]
    memory = _native.Memory(READ_BYTES)
    memory.view()[:] = 1
    for tokens in (1, 4, 8, 32, 512, 2048):
        prompt = np.random.default_rng(tokens).integers(0, 1000, tokens).tolist()
        step = make_step([Work(prompt, 0, list(range(tokens // 16 + 1)))], 16, "none", "last")
        times = 9 if tokens <= 64 else 3
        moe.run(step)
        dense.run(step)
        chosen = len(np.unique(moe.value(ids, step)))

        def seconds(of: CpuModel, calls: list[Call], step: Any = step, times: int = times) -> float:
            runner = of.runner(calls)
            return least(lambda: runner(step), times)

        both = seconds(moe, of_moe)
        num_bytes = sum(moe.program.constants[call.args["weight"]].num_bytes for call in of_moe)
        read = READ_BYTES / least(lambda: _native.probe_read(moe.pool, memory), 5)
        start, wall = time.process_time(), time.perf_counter()
        dot = _native.probe_dot(moe.pool, "bfloat16", 3_000_000)
        dot *= (time.perf_counter() - wall) / (time.process_time() - start)
        rate = num_bytes * chosen / args.num_experts / both, 2 * tokens * TOP_K * 3 * WIDTH * HIDDEN / both
        ratios = [seconds(moe, [a]) / seconds(dense, [b]) for a, b in zip(of_moe, of_dense, strict=True)]
        print(
            f"{tokens:5d} tokens, {chosen:3d} experts  {1e3 * both:8.2f} ms  {rate[0] / read:.2f} of read "
            f"({read / 1e9:.0f} GB/s)  {rate[1] / dot:.2f} of dot ({dot / 1e9:.0f} Gflop/s)  against dense: gate/up "
            f"{ratios[0]:.2f}, down {ratios[1]:.2f}; for each weight read "
            + ", ".join(f"{ratio * TOP_K / chosen:.2f}" for ratio in ratios),
            flush=True,
        )


if __name__ == "__main__":
    main()
