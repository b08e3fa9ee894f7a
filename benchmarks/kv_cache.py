"""The question: what does attention over a KV cache of int8 or fp8 cost, beside one of bf16?

    python benchmarks/kv_cache.py [--rounds 7] [--context 4096] [--prompt 2048] [--dim 64 128] [--groups 1 2 4 7 8]

One core, the processor time of one thread, so that what others take of the machine is left out; caches of several
layers take turns and are larger than the processor's caches, or (in cache) one of 512 positions is used again. The
minimum over rounds, types in turn. Prints a line for each shape and appends all to benchmarks/results/kv_cache.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from albireo import _native
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.step_inputs import StepInputs

RESULTS = Path(__file__).resolve().parent / "results" / "kv_cache.jsonl"
TYPES = ("bfloat16", "int8", "fp8")
BLOCK_SIZE, KV_HEADS = 16, 2
#: More than the last cache of any processor this is run on.
FROM_MEMORY_BYTES = 256 << 20


@dataclass(frozen=True)
class Shape:
    """new tokens at the end of a context; group: query heads of a KV head."""

    dim: int
    group: int
    context: int
    new: int
    is_cached: bool

    def __str__(self) -> str:
        place = "in cache" if self.is_cached else "from memory"
        return f"D={self.dim} G={self.group} {self.new} of {self.context} {place}"


class Attention:
    """Attention of one shape and cache type, on as many layers as it takes to leave the caches."""

    def __init__(self, shape: Shape, kv_dtype: str) -> None:
        self._blocks = -(-shape.context // BLOCK_SIZE)
        layer = (1 + self._blocks) * _native.block_bytes(kv_dtype, KV_HEADS, shape.dim, BLOCK_SIZE, True)
        self.layers = 1 if shape.is_cached else max(1, FROM_MEMORY_BYTES // layer)
        self.read_bytes = layer
        self._kv = _native.Memory(self.layers * layer)
        # small numbers of every type: 0x3c is 60, 1.5 and 0.0115, and a scale of 0.0115
        self._kv.view()[:] = 0x3C
        width = KV_HEADS * shape.group * shape.dim
        self._x, self._out = (_native.Memory(shape.new * width * 2) for _ in range(2))
        self._x.view()[:] = 0x3C
        self._program = _native.Program(thread_pool(1), 0)
        for i in range(self.layers):
            args = {"x": self._x.address, "out": self._out.address, "kv": self._kv.address + i * layer}
            args |= {"kv_dtype": kv_dtype, "num_kv_heads": KV_HEADS, "head_dim": shape.dim, "block_size": BLOCK_SIZE}
            args |= {"num_heads": KV_HEADS * shape.group, "scale": shape.dim**-0.5}
            args |= {"x_dtype": "bfloat16", "out_dtype": "bfloat16"}
            self._program.add("attention", isa_levels()[0], "bfloat16", args)
        self._step = self._make_step(shape)

    def run(self) -> float:
        """Seconds of processor time a layer."""
        top = np.zeros((0, _native.TOP_MOST), np.int32), np.zeros((0, _native.TOP_MOST), np.float32)
        started = time.thread_time()
        self._program.run(*self._step.arrays, *top)
        return (time.thread_time() - started) / self.layers

    def _make_step(self, shape: Shape) -> StepInputs:
        def ints(values: object) -> np.ndarray:
            return np.ascontiguousarray(values, np.int32)

        positions = np.arange(shape.context - shape.new, shape.context)
        table = 1 + np.random.default_rng(0).permutation(self._blocks)
        return StepInputs(
            token_ids=ints(positions * 0),
            positions=ints(positions),
            slots=ints(table[positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE),
            query_start=ints([0, shape.new]),
            context_len=ints([shape.context]),
            block_table=ints([table]),
            logit_rows=ints([]),
            top_rows=ints([]),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--prompt", type=int, default=2048)
    parser.add_argument("--dim", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 2, 4, 7, 8])
    options = parser.parse_args()
    shapes = [
        Shape(dim, group, context, 1, context != options.context)
        for dim in options.dim
        for context in (512, options.context)
        for group in options.groups
    ]
    shapes += [Shape(dim, 4, options.prompt, options.prompt, True) for dim in options.dim]
    for shape in shapes:
        best = measure(shape, options.rounds)
        ratios = ", ".join(f"{kv} {best[kv] / best[TYPES[0]]:.2f}" for kv in TYPES[1:])
        print(f"{shape}: bf16 {best[TYPES[0]] * 1e6:,.1f} us; {ratios}", flush=True)
        record = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "level": isa_levels()[0], **asdict(shape), "us": best}
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")


def measure(shape: Shape, rounds: int) -> dict[str, float]:
    """Seconds a layer by cache type, the least of some rounds."""
    kernels = {kv: Attention(shape, kv) for kv in TYPES}
    repeats = max(1, int(2e-3 / max(1e-6, kernels[TYPES[0]].run()))) if shape.is_cached else 1
    best = dict.fromkeys(TYPES, float("inf"))
    for _ in range(rounds):
        for kv, kernel in kernels.items():
            best[kv] = min(best[kv], sum(kernel.run() for _ in range(repeats)) / repeats)
    return best


if __name__ == "__main__":
    main()
