"""build_work_list: every row and every position it sees is in one item, and parts have places of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from albireo.backends.cuda.attention_plan import AttentionShape, WorkList, plan_attention, work_list
from albireo.backends.cuda.chip import Chip
from albireo.backends.cuda.kernels.build_work_list import build_work_list
from albireo.backends.cuda.step import DeviceStep
from albireo.errors import InvariantError

SPLIT = 64
KINDS: dict[str, Any] = {
    "num_heads": 6,
    "num_kv_heads": 2,
    "head_dim": 64,
    "max_context": 1000,
    "window": 0,
    "q_dtype": "bfloat16",
    "kv_dtype": "bfloat16",
    "chip": Chip(132),
}


def step_of(rows: list[int], contexts: list[int], padding_tokens: int = 0) -> DeviceStep:
    starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int32)
    none = torch.zeros(0, dtype=torch.int32)
    sizes = {"T": int(starts[-1]) + padding_tokens, "B": len(rows)}
    context_len = torch.tensor(contexts, dtype=torch.int32)
    # block tables of no length: a sequence's begins at its number
    tables = torch.arange(len(rows), dtype=torch.int32)
    return DeviceStep(
        none, none, (none,), torch.from_numpy(starts), context_len, none, (tables,), {}, none, *[none] * 3, sizes
    )


def built(step: DeviceStep, **options: Any) -> tuple[WorkList, np.ndarray]:
    """The list; its items."""
    work = work_list(
        AttentionShape(**(KINDS | {"split": SPLIT} | options)), step.sizes["T"], step.sizes["B"], torch.device("cpu")
    )
    for memory in (work.count, work.items):
        memory.fill_(-7)
    build_work_list(step, work)
    assert int(work.count[1]) == 0
    return work, work.items[: int(work.count[0])].numpy()


@pytest.mark.parametrize(("window", "in_chunks"), [(0, False), (1, False), (100, False), (100, True)])
@pytest.mark.parametrize("options", [{}, {"chip": Chip(1)}, {"max_parts": 0}, {"max_parts": 30}, {"tile_rows": 64}])
def test_items_cover_what_rows_see_once(window: int, in_chunks: bool, options: dict[str, Any]) -> None:
    def first_seen(position: int) -> int:
        if in_chunks:
            return position // window * window
        return max(0, position - window + 1) if window else 0

    rows, contexts = [1, 70, 0, 3, 1, 20, 0], [900, 130, 0, 64, 1, 300, 0]
    step = step_of(rows, contexts, 4)
    work, items = built(step, window=window, in_chunks=in_chunks, **options)
    plan = work.plan(step)
    assert len(items) <= plan.max_items
    starts = step.query_start.numpy()
    seen = {(b, row): [] for b, n in enumerate(rows) for row in range(3 * n)}
    places: dict[int, tuple[int, int]] = {}
    tiles: dict[int, list[int]] = {}
    padding = [item for item in items.tolist() if item[1] == sum(rows)]
    assert [item[2] for item in padding] == list(range(0, 3 * 4, plan.tile_rows))
    assert all(item[3:] == [12, 0, 0, 0, -1, 0, 0] for item in padding) and items.tolist()[-len(padding) :] == padding
    for i, item in enumerate(items.tolist()[: -len(padding)]):
        b, start, first_row, num_rows, base, first, end, part, before, splits = item
        assert (start, num_rows, base) == (starts[b], 3 * rows[b], contexts[b] - rows[b])
        if part >= 0:
            tiles.setdefault(i - (first - before), []).append(first - before)
            assert end == first + 1 and splits == -(-contexts[b] // SPLIT) - before
        for row in range(first_row, min(first_row + plan.tile_rows, num_rows)):
            position = base + row // 3
            lowest = first_seen(position)
            seen[b, row] += [at for at in range(first * SPLIT, end * SPLIT) if lowest <= at <= position]
            if part >= 0:
                place = part + row // 3
                assert place < plan.max_parts and places.setdefault(place, (start + row // 3, first)) == (
                    start + row // 3,
                    first,
                )
    for (b, row), positions in seen.items():
        position = contexts[b] - rows[b] + row // 3
        assert positions == list(range(first_seen(position), position + 1))
    for first_item, found in tiles.items():
        assert found == list(range(items[first_item, 9])), "the parts of a tile follow each other"


def test_long_contexts_are_cut_where_programs_would_wait() -> None:
    lonely = built(step_of([1], [900]))[1]
    assert len(lonely) == 15 and (lonely[:, 7] >= 0).all()
    crowd = built(step_of([1] * 64, [900] * 64), chip=Chip(1))[1]
    assert len(crowd) == 64 and (crowd[:, 7] == -1).all()
    # one of two does not fit: it is whole, and comes first
    items = built(step_of([1, 1], [900, 900]), max_parts=20)[1]
    assert items[:, 0].tolist() == [1] + [0] * 15
    assert items[0, 5:].tolist() == [0, 15, -1, 0, 15]


def shape_of(**options: Any) -> AttentionShape:
    return AttentionShape(**(KINDS | options))


def test_plans_by_shape() -> None:
    llama = {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "max_context": 32768}
    steps = ((64, 64), (576, 65), (8192, 8))
    plans = [plan_attention(shape_of(**llama), *step) for step in steps]
    assert [plan.tile_rows for plan in plans] == [16, 64, 128]
    assert [plan.programs for plan in plans] == [264, 132, 132]
    assert plan_attention(shape_of(**(llama | {"max_context": 512})), 1, 1).programs == 8
    fixed = shape_of(**llama, tile_rows=64)
    assert {plan_attention(fixed, *step).tile_rows for step in steps} == {64}
    largest = [({"q_dtype": "float32"}, 16), ({"kv_dtype": "float16"}, 16), ({"chip": Chip(108, 80)}, 64)]
    for options, rows in largest:
        assert plan_attention(shape_of(**llama, **options), 8192, 8).tile_rows == rows


def test_a_step_that_is_too_large() -> None:
    work = work_list(shape_of(max_context=100), 8, 2, torch.device("cpu"))
    with pytest.raises(InvariantError, match="room for"):
        build_work_list(step_of([9], [9]), work)
    with pytest.raises(InvariantError, match="multiple of KV heads"):
        shape_of(num_heads=5)
