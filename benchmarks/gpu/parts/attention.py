"""Attention of decoding steps over long contexts: how near to the memory's bandwidth.

Of several layers in a recording, each with keys and values of its own, as a step has them: what a recording begins and
ends with is no part of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from report import Row, target
from setup import Setup, attempt

HEADS, KV_HEADS, DIM, BLOCK, LAYERS = 32, 8, 128, 16, 4
#: Of what the memory is sold with, for a context so long.
TARGET, LONG = 0.80, 32768


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.kernels.attention  # noqa: F401 - where it is missing the part is skipped

    shapes = setup.pick(((1, LONG), (64, 2048), (256, 1024)), ((2, 70),))
    for dtype in setup.pick(("bfloat16", "fp8", "int8"), ("bfloat16",)):
        for sequences, context in shapes:
            name = f"{dtype} {sequences} x {context}"
            args = (setup, name, dtype, sequences, context)
            yield from attempt(name, lambda args=args: _decode(*args))


def _decode(setup: Setup, name: str, dtype: str, sequences: int, context: int) -> Iterator[Row]:
    read, seconds, list_seconds = measure(setup, dtype, sequences, context)
    share = read / seconds / setup.bandwidth
    note = f"{seconds * 1e6:.0f} us, {share:.2f} of the bandwidth; the work list, once a step, {list_seconds * 1e6:.0f}"
    yield Row(name, read / seconds / 1e9, "GB/s", note)
    if context == LONG:
        yield target(f"attention {name}, of the bandwidth", share, TARGET)


def measure(setup: Setup, dtype: str, sequences: int, context: int, **options: Any) -> tuple[int, float, float]:
    """Bytes of keys and values of a layer, seconds of its attention, and of the list. options: of AttentionShape."""
    from model import fill_cache

    from albireo.backends.cuda.attention_plan import AttentionShape, work_list, workspace_size
    from albireo.backends.cuda.kernels.attention import attention
    from albireo.backends.cuda.kernels.build_work_list import build_work_list
    from albireo.backends.cuda.kv import DeviceKV
    from albireo.backends.cuda.step import DeviceStep
    from albireo.graph.kv_layout import KVLayout

    heads, kv_heads, dim = setup.pick((HEADS, KV_HEADS, DIM), (4, 2, 16))
    layers = setup.pick(LAYERS, 1)
    layout = KVLayout(layers, kv_heads, dim, dtype, BLOCK)
    blocks = -(-context // BLOCK)
    kv = DeviceKV(layout, sequences * blocks + 1, setup.device)
    fill_cache(setup, kv)

    def ints(values: torch.Tensor) -> torch.Tensor:
        return values.to(torch.int32).to(setup.device)

    # blocks of a sequence lie apart, as they do after a while
    table = 1 + torch.randperm(sequences * blocks, generator=torch.Generator().manual_seed(1)).view(sequences, blocks)
    last = torch.full((sequences,), context - 1)
    none = ints(torch.zeros(0))
    step = DeviceStep(
        token_ids=ints(torch.zeros(sequences)),
        positions=ints(last),
        slots=(ints(table[:, -1] * BLOCK + (context - 1) % BLOCK),),
        query_start=ints(torch.arange(sequences + 1)),
        context_len=ints(last + 1),
        block_table=ints(table).flatten(),
        table_start=(ints(torch.arange(len(table)) * table.shape[1]),),
        rows={},
        top_counts=none,
        state_slots=none,
        snapshot_slots=none,
        snapshot_rows=none,
        sizes={"T": sequences, "B": sequences, "R": 0, "G": 0, "S": 0},
    )
    shape = AttentionShape(heads, kv_heads, dim, context, 0, "bfloat16", dtype, setup.chip, **options)
    work = work_list(shape, sequences, sequences, setup.device)
    scratch = torch.zeros(workspace_size(shape, sequences), device=setup.device)
    q = setup.random(sequences, heads * dim, dtype=torch.bfloat16)
    out = torch.empty_like(q)

    build_work_list(step, work)
    more = (out, step, work, scratch, heads, kv_heads, dim, dim**-0.5, 0, 0.0)

    def all_layers() -> None:
        for layer in kv.layers:
            attention(q, layer, *more)

    seconds = setup.seconds(all_layers) / layers
    list_seconds = setup.seconds(lambda: build_work_list(step, work))
    return sequences * context * layout.position_bytes // layers, seconds, list_seconds
