"""Blocks of the KV cache to host memory and back: how fast, beside one large copy; and tokens are the same with it.

The last is a run of the engine with a cache that is too small for its requests: once with room for all of them, once
with preempted sequences computed again, once with their blocks in host memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from report import VERDICT, Row
from setup import Setup, attempt

if TYPE_CHECKING:
    from traffic import Asked

    from albireo.backends.cuda.kernels.swap_blocks import HostKV
    from albireo.backends.cuda.kv import DeviceKV

#: Blocks of a cache of Llama-3.1-8B that are moved at once: of one sequence of 4,096 tokens, and of eight.
BLOCKS, MANY = 256, 2048


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.kernels.swap_blocks  # noqa: F401 - where it is missing the part is skipped

    yield from attempt("one copy", lambda: _one_copy(setup))
    for dtype in setup.pick(("bfloat16", "fp8"), ("bfloat16",)):
        yield from attempt(f"swap of {dtype}", lambda dtype=dtype: _swap(setup, dtype))
    yield from attempt("tokens with swapping", lambda: _tokens(setup))


def _rate(setup: Setup, copy: Callable[[], object], size: int) -> float:
    """GB/s; the median of a few, by the host's clock: what a step waits for."""
    times = []
    for _ in range(setup.pick(6, 1)):
        start = time.perf_counter()
        copy()
        if not setup.is_dry:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return size / sorted(times)[len(times) // 2] / 1e9


def _one_copy(setup: Setup) -> Iterator[Row]:
    size = setup.pick(1 << 30, 1 << 12)
    host = torch.zeros(size, dtype=torch.uint8, pin_memory=not setup.is_dry)
    there = torch.zeros(size, dtype=torch.uint8, device=setup.device)
    yield Row("one copy out", _rate(setup, lambda: host.copy_(there, non_blocking=True), size), "GB/s")
    yield Row("one copy in", _rate(setup, lambda: there.copy_(host, non_blocking=True), size), "GB/s")


def _swap(setup: Setup, dtype: str) -> Iterator[Row]:
    from model import BLOCK_SIZE, fill_cache

    from albireo.api.machine.swapping import LINK_BYTES_PER_S
    from albireo.backends.cuda.kernels.swap_blocks import HostKV
    from albireo.backends.cuda.kv import DeviceKV
    from albireo.backends.cuda.model import _STAGED
    from albireo.graph.kv_layout import KVLayout

    layers, heads, dim = setup.pick((32, 8, 128), (2, 2, 16))
    some, many = setup.pick((BLOCKS, MANY), (3, 5))
    layout = KVLayout(layers, heads, dim, dtype, BLOCK_SIZE)
    kv = DeviceKV(layout, many + 1, setup.device)
    fill_cache(setup, kv)
    host = HostKV(kv, many, min(_STAGED, many))
    assumed = LINK_BYTES_PER_S / 1e9
    for count, kind in ((some, "in a row"), (many, "in a row"), (many, "scattered")):
        yield from _there_and_back(setup, kv, host, count, kind, assumed, dtype)


def _there_and_back(
    setup: Setup, kv: DeviceKV, host: HostKV, count: int, kind: str, assumed: float, dtype: str
) -> Iterator[Row]:
    from albireo.backends.cuda.kernels.swap_blocks import swap_in, swap_out

    blocks = np.arange(1, count + 1)
    if kind == "scattered":  # what is in a row in host memory is one copy
        blocks = np.random.default_rng(1).permutation(blocks)
    kept = blocks - 1 if kind == "scattered" else np.arange(count)
    pairs = list(zip(np.arange(1, count + 1).tolist(), kept.tolist(), strict=True))
    back = [(number, block) for block, number in pairs]
    size = count * sum(array[:, :, 0].numel() * array.element_size() for array in (*kv.numbers, *kv.scales))
    (numbers,) = kv.numbers
    before = numbers[:, :, 1 : count + 1].clone()
    out = _rate(setup, lambda: swap_out(kv, host, pairs), size)
    numbers.view(torch.uint8)[:, :, 1 : count + 1] = 0
    back_rate = _rate(setup, lambda: swap_in(kv, host, back), size)
    same = torch.equal(numbers[:, :, 1 : count + 1].view(torch.uint8), before.view(torch.uint8))
    for way, rate in (("out", out), ("in", back_rate)):
        yield Row(f"swap {way}, {dtype}, {count} blocks {kind}", rate, "GB/s", f"{size / 2**20:.0f} MiB", is_good=same)
    both = 2 / (1 / out + 1 / back_rate)
    note = f"there and back; api/swapping.LINK_BYTES_PER_S is {assumed:.0f} GB/s"
    yield Row(f"{VERDICT}swap of {dtype}, {count} blocks {kind}", both, "GB/s", note)


def _tokens(setup: Setup) -> Iterator[Row]:
    from model import BLOCK_SIZE, random_model
    from traffic import Asked, served, settings_of

    layers, num, prompt, output = setup.pick((4, 24, 300, 200), (1, 2, 14, 4))
    rng = np.random.default_rng(3)
    vocab, step_tokens = setup.pick(
        (
            128_256,
            2048,
        ),
        (160, 32),
    )
    asked: list[Asked] = [
        Asked(rng.integers(3, vocab, prompt + int(rng.integers(0, prompt // 3))).tolist(), output) for _ in range(num)
    ]
    longest = max(len(one.prompt) for one in asked) + output
    blocks = 1 + num * -(-longest // BLOCK_SIZE)
    few, host = setup.pick((blocks // 3, blocks), (4, blocks))
    found = {}
    runs = (("room", blocks, 0), ("swapped", few, host), ("computed again", few, 0))
    for name, num_blocks, num_host in runs[: setup.pick(3, 2)]:
        maxima = {"T": step_tokens, "R": num, "G": num}
        model = random_model(
            setup, "bf16", maxima, setup.pick(1024, 64), num_blocks, layers=layers, num_host_blocks=num_host
        )
        # a cost of nothing: whoever can be swapped is
        settings = settings_of(model, num, step_tokens, longest, num_host_blocks=num_host, swap_cost_tokens=0.0)
        run = served(model, asked, settings)
        found[name], stats = run, run.stats
        note = f"{stats.num_preemptions} preemptions, {stats.num_swap_outs} swapped, {run.seconds:.2f} s"
        is_met = (stats.num_preemptions > 0) == (name != "room") and (stats.num_swap_outs > 0) == (name == "swapped")
        differ = found["room"].differences(run)
        same = num - len(differ)
        yield Row(
            f"tokens as with room, {name}, of {num}", same, "", "; ".join([note, *differ[:2]]), is_met and not differ
        )
        del model
        setup.release()
