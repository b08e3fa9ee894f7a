"""Attention over a paged cache against torch in float64, for decoding, prompts and both; copies of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from model import fill_cache
from setup import Setup

Found = Iterator[tuple[str, float]]


def attention(setup: Setup) -> Found:
    from albireo.backends.cuda.attention_plan import AttentionShape, work_list, workspace_size
    from albireo.backends.cuda.kernels.attention import attention
    from albireo.backends.cuda.kernels.build_work_list import build_work_list
    from albireo.backends.cuda.kv import DeviceKV
    from albireo.backends.cuda.step import DeviceStep
    from albireo.graph.program import KVLayout

    heads, kv_heads, dim, size = setup.pick((32, 8, 128, 16), (4, 2, 16, 8))
    #: (new tokens, context) of each sequence
    batches = {
        "decode": setup.pick([(1, 1), (1, 700), (1, 3000)], [(1, 9)]),
        "prompt": setup.pick([(600, 600)], [(5, 5)]),
        "mixed": setup.pick([(1, 900), (130, 1200), (1, 65)], [(1, 7), (3, 6)]),
    }
    for name, batch in batches.items():
        longest = max(context for _, context in batch)
        blocks = -(-longest // size)
        kv = DeviceKV(KVLayout(1, kv_heads, dim, "bfloat16", size), 1 + blocks * len(batch), setup.device)
        fill_cache(setup, kv)
        table = 1 + torch.arange(len(batch) * blocks).view(len(batch), blocks).flip(1)
        starts = torch.tensor([0, *(new for new, _ in batch)]).cumsum(0)
        positions = torch.cat([torch.arange(context - new, context) for new, context in batch])
        total = len(positions)

        def ints(values: torch.Tensor) -> torch.Tensor:
            return values.to(torch.int32).to(setup.device)

        step = DeviceStep(
            token_ids=ints(torch.zeros(total)),
            positions=ints(positions),
            slots=ints(torch.zeros(total)),
            query_start=ints(starts),
            context_len=ints(torch.tensor([context for _, context in batch])),
            block_table=ints(table).flatten(),
            table_start=ints(torch.arange(len(table)) * table.shape[1]),
            rows={},
            top_counts=ints(torch.zeros(0)),
            sizes={"T": total, "B": len(batch), "R": 0, "G": 0, "S": 0},
        )
        shape = AttentionShape(heads, kv_heads, dim, longest, 0, "bfloat16", "bfloat16", setup.chip)
        work = work_list(shape, total, len(batch), setup.device)
        scratch = torch.zeros(workspace_size(shape, total), device=setup.device)
        q = setup.random(total, heads * dim, dtype=torch.bfloat16)
        out = torch.empty(q.shape, device=setup.device)
        build_work_list(step, work)
        attention(q, kv.layers[0], out, step, work, scratch, heads, kv_heads, dim, dim**-0.5, 0, 0.0)
        error = 0.0
        for b, (new, context) in enumerate(batch):
            k, v = (
                part[table[b].to(setup.device)].transpose(1, 2).flatten(0, 1)[:context].double()
                for part in (kv.layers[0].k, kv.layers[0].v)
            )
            rows = slice(int(starts[b]), int(starts[b + 1]))
            error = max(error, _error(q[rows], k, v, out[rows], heads // kv_heads, context - new))
        yield f"attention, {name}", error
        yield f"attention to codes, {name}", _off_in_codes(q, kv.layers[0], step, work, scratch, heads, kv_heads, dim)


def _off_in_codes(q: torch.Tensor, kv: Any, step: Any, work: Any, scratch: torch.Tensor, *heads: int) -> float:
    """Rows of codes that are not what a launch of their own makes of the rounded rows, by two."""
    from albireo.backends.cuda.kernels.attention import attention
    from albireo.backends.cuda.kernels.elementwise import elementwise
    from albireo.dtypes import TOKEN, natural_stride

    numbers, (tokens, cols) = torch.empty_like(q), q.shape
    found, wanted = (
        torch.zeros((tokens, -(-natural_stride(TOKEN, cols) // 64) * 64), dtype=torch.uint8, device=q.device)
        for _ in range(2)
    )
    told = (*heads, heads[2] ** -0.5, 0, 0.0)
    attention(q, kv, numbers, step, work, scratch, *told)
    elementwise("cast", numbers, None, wanted, cols)
    attention(q, kv, found, step, work, scratch, *told, rows=torch.empty_like(q))
    return 2.0 * float((found != wanted).any(1).sum())


def _error(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, group: int, before: int) -> float:
    """The largest difference as a part of 2^-7 of the values' largest: weights are rounded to bfloat16."""
    tokens, dim = len(q), k.shape[2]
    k, v = (part.repeat_interleave(group, dim=1) for part in (k, v))
    scores = torch.einsum("thd,chd->htc", q.double().view(tokens, -1, dim), k) * dim**-0.5
    seen = torch.arange(len(k), device=k.device)[None] <= before + torch.arange(tokens, device=k.device)[:, None]
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    wanted = torch.einsum("htc,chd->thd", weights, v).flatten(1)
    return float((out.double() - wanted).abs().max() / (2.0**-7 * v.abs().max()))


def copies(setup: Setup) -> Found:
    from albireo.backends.cuda.kernels.copy_blocks import copy_blocks
    from albireo.backends.cuda.kernels.swap_blocks import HostKV, swap_in, swap_out
    from albireo.backends.cuda.kv import DeviceKV
    from albireo.graph.program import KVLayout

    kv = DeviceKV(KVLayout(2, 2, setup.pick(128, 16), "bfloat16", 16), 8, setup.device)
    fill_cache(setup, kv)
    before = kv.numbers.clone()
    copy_blocks(kv, [(1, 4), (2, 5), (4, 6)])
    wanted = before[:, :, [0, 1, 2, 3, 1, 2, 1, 7]]
    yield "copy_blocks", 0.0 if torch.equal(kv.numbers, wanted) else float("inf")
    host = HostKV(kv, 4, 2)
    swap_out(kv, host, [(1, 0), (2, 3), (5, 1)])
    swap_in(kv, host, [(0, 7), (3, 3)])
    wanted = wanted[:, :, [0, 1, 2, 2, 4, 5, 6, 1]]
    yield "swap_blocks", 0.0 if torch.equal(kv.numbers, wanted) else float("inf")


CHECKS = {"attention": attention, "copies": copies}
