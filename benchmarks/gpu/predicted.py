"""The question: what should each target of first_hour.py come to on an H200, by what is known without one?

    python benchmarks/gpu/predicted.py

A table of times beside what the target allows, of the shape of Llama-3.1-8B: bytes and products over rates that were
measured (docs/cuda.md), tiles and plans as the backend cuts them, and for every launch what it begins and ends with. It
is a model with the assumptions that stand below; where one of them is wrong, the difference says which. No GPU is
needed, and nothing is launched.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]

#: What an H200's memory is sold with; what was read of it, and multiplied, there: bytes and products a second.
SOLD, READ = 4.8e12, 4.34e12
PRODUCTS = {"bf16": 786e12, "fp8": 1453e12, "int4": 786e12}
#: A launch in a CUDA graph; its first load and its last store, which overlap with no other's; sums of parts that the
#: last program adds: seconds.
LAUNCH, ENDS, ARRIVAL = 1.3e-6, 1.3e-6, 1.0e-6
#: Bytes a second that one multiprocessor takes from the second-level cache: 39 a clock of 1.755 GHz.
OF_ONE = 39 * 1.755e9
#: Part of the rate of products that wide tiles reach: they want 48 bytes a clock of these 39.
OF_TILES = 39 / 48
#: Part of the rate of products that attention of long prompts reaches (not measured: as others' kernels in Triton).
OF_ATTENTION = 0.5
#: Rounds in which parts of attention are merged, eight of them each: a way to L2 and back, and eight merges.
ROUND = 0.5e-6
#: Instructions of warps a second: four schedulers a multiprocessor, which find one in 0.7 of the clocks (assumed).
ISSUED = 0.7 * 132 * 4 * 1.755e9
#: Of a weight in the loop of few tokens, up to 16 and up to 64: counted in machine code for 9.0, all warps of a program
#: over the weights of a turn (Triton 3.9; matmul_smallm, and matmul_e4m3_smallm for fp8).
PER_WEIGHT = {"bf16": (0.048, 0.062), "fp8": (0.048, 0.084), "int4": (0.072, 0.145)}
#: Likewise of a tile of 64 positions of attention with 16 rows.
PER_TILE = {"bf16": 4 * 384, "fp8": 4 * 713}
BYTES = {"bf16": 2.0, "fp8": 1.0 + 4 / 4096, "int4": 0.5 + 5 / 128}
LAYERS, VOCAB, WIDTH = 32, 128256, 4096
LINEARS = {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}
KV_HEADS, HEAD_DIM, GROUP = 8, 128, 4
#: Of a position in one layer: keys and values, and scales of codes.
POSITION = {"bf16": 2 * KV_HEADS * HEAD_DIM * 2, "fp8": 2 * KV_HEADS * (HEAD_DIM + 4)}
PUBLISHED = {(128, 128): 27911, (128, 2048): 26221, (1000, 1000): 17744, (2048, 128): 3538, (2048, 2048): 12194}


@dataclass(frozen=True)
class Line:
    """What is to be reached, what is predicted, in one unit; and what bounds it."""

    what: str
    wanted: float
    found: float
    unit: str
    why: str

    def text(self) -> str:
        wanted, found = (_number(value, self.unit) for value in (self.wanted, self.found))
        verdict = "yes" if self.found >= self.wanted * 1.05 else "no" if self.found < self.wanted else "barely"
        return f"| {self.what} | {wanted} | {found} | {verdict if self.wanted else ''} | {self.why} |"


def _number(value: float, unit: str) -> str:
    return "" if not value else f"{value:,.0f} {unit}" if unit else f"{value:.2f}"


def linear(weights: str, rows: int, k: int, tokens: int) -> float:
    """Seconds of a launch, or of the few that a product of many tokens takes."""
    from albireo.backends.cuda.kernels.matmul_smallm import tile_for
    from albireo.backends.cuda.kernels.parts.tiles import FEW_TOKENS
    from albireo.backends.cuda.sum_parts import num_parts

    dtype = {"bf16": "bfloat16", "fp8": "fp8", "int4": "int4.g128"}[weights]
    size, parts = rows * k * BYTES[weights], num_parts(rows, k, dtype)
    if tokens > FEW_TOKENS:
        rate = PRODUCTS[weights] * OF_TILES * waves(rows, tokens)
        return LAUNCH + ENDS + max(size / READ, 2 * rows * k * tokens / rate)
    programs = parts * -(-rows // tile_for(tokens, dtype).rows)
    resident = 132 * (3 if tokens <= 8 and weights == "bf16" else 2)  # by shared memory
    last = programs % resident or resident
    # the last round has fewer multiprocessors, each of which takes no more than so much
    body = (programs - last) * (size / programs) / READ
    tail = last * (size / programs) / min(READ, min(last, 132) * OF_ONE)
    issue = rows * k * PER_WEIGHT[weights][tokens > 16] / ISSUED
    return LAUNCH + ENDS + (ARRIVAL if parts > 1 else 0.0) + max(body + tail, issue)


def waves(rows: int, tokens: int) -> float:
    """Part of the time of whole rounds in which tiles of 128 by 256 have work, one a multiprocessor."""
    tiles = -(-rows // 128) * -(-tokens // 256)
    return tiles / (132 * -(-tiles // 132)) if tiles > 132 else max(tiles / 132, 0.5)


def attention(kv: str, sequences: int, context: int) -> float:
    """Of decoding, a layer."""
    size = sequences * context * POSITION[kv]
    units, slots = sequences * KV_HEADS, 264 if kv == "bf16" else 396
    splits = -(-context // 512)
    is_split = splits > 1 and 2 * context * slots > units * context
    items = units * (splits if is_split else 1)
    most = -(-items // slots) * (size / items) * (2 if kv == "bf16" else 3)  # of one multiprocessor
    issue = sequences * context / 64 * KV_HEADS * PER_TILE[kv] / ISSUED
    merging = -(-splits // 8) * ROUND if is_split else 0.0
    return LAUNCH + ENDS + max(size / READ, min(most, size) / OF_ONE, issue) + merging


def step(weights: str, kv: str, sequences: int, context: int) -> float:
    """Of one token of each sequence."""
    of_layer = sum(linear(weights, *shape, sequences) for shape in LINEARS.values())
    of_layer += attention(kv, sequences, context) + LAUNCH + ENDS  # and what turns and stores
    head = linear("bf16", VOCAB, WIDTH, sequences) + 6 * (LAUNCH + ENDS)  # embed, lists, norms, the best
    return LAYERS * of_layer + head


def read_bytes(weights: str, kv: str, sequences: int, context: int) -> float:
    matrices = sum(rows * k for rows, k in LINEARS.values()) * BYTES[weights] * LAYERS
    return matrices + VOCAB * WIDTH * 2 + LAYERS * sequences * context * POSITION[kv]


def lines() -> Iterator[Line]:
    for weights, wanted in (("bf16", 0.75), ("bf16", 0.82), ("fp8", 0.70), ("int4", 0.60)):
        seconds = step(weights, "bf16", 1, 512)
        share = read_bytes(weights, "bf16", 1, 512) / seconds / SOLD
        gaps = (6 * LAYERS + 7) * (LAUNCH + ENDS)
        why = f"{seconds * 1e3:.2f} ms, of which launches begin and end for {gaps * 1e3:.2f}"
        yield Line(f"{weights}, batch 1 of 4.8 TB/s", wanted, share, "", why)
    for batch in (8, 64, 256):
        for weights in ("bf16", "fp8", "int4"):
            seconds = step(weights, "bf16", batch, 512)
            share = read_bytes(weights, "bf16", batch, 512) / seconds / SOLD
            why = f"{seconds * 1e3:.2f} ms, {share:.2f} of the bandwidth"
            yield Line(f"{weights}, batch {batch}", 0.0, batch / seconds, "tok/s", why)
    for length in (2048, 8192):
        products = 2 * LAYERS * sum(rows * k for rows, k in LINEARS.values()) * length
        pairs = 2 * LAYERS * GROUP * KV_HEADS * HEAD_DIM * length**2
        inside = LAYERS * sum(linear("bf16", *shape, length) for shape in LINEARS.values())
        seeing = pairs / (PRODUCTS["bf16"] * OF_ATTENTION)
        share = products / (inside + seeing) / PRODUCTS["bf16"]
        both = share * (1 + pairs / products)
        why = f"linears {inside * 1e3:.0f} ms, attention {seeing * 1e3:.0f}; with its products counted {both:.2f}"
        yield Line(f"bf16 prompt of {length:,}, of a product", 0.70 if length == 8192 else 0.0, share, "", why)
    for sequences, context in ((1, 32768), (64, 2048), (256, 1024)):
        for kv in ("bf16", "fp8"):
            seconds = attention(kv, sequences, context)
            share = sequences * context * POSITION[kv] / seconds / SOLD
            wanted = 0.80 if sequences == 1 else 0.0
            yield Line(
                f"attention {kv} {sequences} x {context:,}", wanted, share, "", f"{seconds * 1e6:.0f} us a layer"
            )
    for (prompt, output), published in PUBLISHED.items():
        yield _throughput(prompt, output, published)


def _throughput(prompt: int, output: int, published: int) -> Line:
    """fp8 with an fp8 cache, in steps that have prompts of those that come as others end."""
    context = prompt + output / 2
    seats = min(2048, int(118e9 / (LAYERS * POSITION["fp8"] * context)))
    tokens = int(seats * (1 + prompt / output))
    widest = min(tokens, 8192)
    products = LAYERS * sum(linear("fp8", *shape, widest) for shape in LINEARS.values()) * tokens / widest
    seen = LAYERS * attention("fp8", seats, int(context))
    pairs = 2 * LAYERS * GROUP * KV_HEADS * HEAD_DIM * prompt * (tokens - seats)
    of_prompts = pairs / (PRODUCTS["bf16"] * OF_ATTENTION)
    seconds = products + seen + of_prompts + linear("bf16", VOCAB, WIDTH, seats)
    times = ", ".join(
        f"{name} {part * 1e3:.0f}" for name, part in (("linears", products), ("cache", seen), ("prompts", of_prompts))
    )
    why = f"{seats:,} at once, a token of each in {seconds * 1e3:.0f} ms: {times}"
    return Line(f"fp8 {prompt:,} / {output:,}", 0.9 * published, seats / seconds, "tok/s", why)


def main() -> int:
    print("| target | wanted | predicted | | by |\n| --- | --- | --- | --- | --- |")
    for line in lines():
        print(line.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
