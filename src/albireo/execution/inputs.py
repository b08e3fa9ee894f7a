"""StepPlan -> StepInputs: the plan's lists as flat arrays.

Called by runner.py once a step. Does not know why anything is in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.step_inputs import StepInputs
from albireo.step import SampleTask, SequenceWork, StepPlan


@dataclass(frozen=True, slots=True)
class PackedStep:
    """A step ready to run, and how to read what comes out.

    Fields:
        tasks: in the plan's order; drafts: by a task's place among them, its drafts, whose rows follow its own.
        task_rows: for each task its row in logits, or among the rows of best logits when is_top.
        prompt_rows: (work, first row in logits) for each work that wants prompt log-probabilities.
    """

    inputs: StepInputs
    tasks: list[SampleTask]
    task_rows: list[int]
    is_top: bool
    prompt_rows: list[tuple[SequenceWork, int]]
    drafts: dict[int, Sequence[int]] = field(default_factory=dict)


class TableRows:
    """Block tables as rows of one array, kept from step to step: a row that has grown costs what is new in it.

    The array is lent: until the next call it is that of the tables given last.
    """

    def __init__(self) -> None:
        self._array = np.zeros((0, 0), np.int32)
        self._known: list[list[int]] = []

    def of(self, tables: Sequence[Sequence[int]]) -> NDArray[np.int32]:
        """[len(tables), any] row b begins with tables[b]; behind it is the null block."""
        rows, columns = self._array.shape
        longest = max(map(len, tables), default=0)
        if len(tables) > rows or longest > columns:
            grown = np.zeros((max(len(tables), rows), max(longest + longest // 2, columns, 1)), np.int32)
            grown[:rows, :columns] = self._array
            self._array = grown
            self._known += [[] for _ in range(len(grown) - rows)]
        for i, (blocks, known) in enumerate(zip(tables, self._known, strict=False)):
            if blocks == known:
                continue
            num = len(known) if blocks[: len(known)] == known else 0
            self._array[i, num : len(blocks)] = blocks[num:]
            self._array[i, len(blocks) : len(known)] = 0
            self._known[i] = list(blocks)
        return self._array[: len(tables)]


class GroupTables:
    """Block tables of sequences as rows of arrays, one a block group, kept from step to step as TableRows does."""

    def __init__(self) -> None:
        self._groups: list[TableRows] = []

    def of(self, tables: Sequence[tuple[Sequence[int], ...]], num_blocks: int) -> NDArray[np.int32]:
        """[groups, len(tables), num_blocks] the first of each, a copy. Args: tables: of each sequence, one a group."""
        num_groups = len(tables[0]) if tables else 1
        self._groups += [TableRows() for _ in range(num_groups - len(self._groups))]
        rows = [self._groups[group].of([each[group] for each in tables]) for group in range(num_groups)]
        return np.stack([each[:, :num_blocks] for each in rows])


def pack_step(
    plan: StepPlan,
    block_size: int,
    *,
    is_top_greedy: bool = False,
    tables: GroupTables | None = None,
    num_ahead: int = 0,
) -> PackedStep:
    """Flatten a plan.

    Args:
        is_top_greedy: the best few logits are for those that take the best one. Where a device draws tokens from
            logits itself; and where a step cannot be computed again, should the best few not decide.
        tables: of the caller's steps before; None: nothing is kept.
        num_ahead: block tables are to reach so many positions behind the context.

    The best few logits are enough when no task of the step needs more; otherwise all rows take the way through the
    logits, so that the head is read once.
    Cost: O(T), what is new in block tables, and a copy of them.
    """
    works = plan.work
    counts = np.fromiter((len(w.token_ids) for w in works), np.int32, len(works))
    starts = np.fromiter((w.num_computed_tokens for w in works), np.int32, len(works))
    query_start = np.zeros(len(works) + 1, np.int32)
    np.cumsum(counts, out=query_start[1:])
    context_len = starts + counts

    num_blocks = max(1, -(-(int(context_len.max(initial=0)) + num_ahead) // block_size))
    group_tables = (tables or GroupTables()).of([work.block_tables for work in works], num_blocks)
    owner = np.repeat(np.arange(len(works), dtype=np.int32), counts)
    positions = (np.arange(plan.num_tokens, dtype=np.int32) - query_start[owner] + starts[owner]).astype(np.int32)
    group_slots = group_tables[:, owner, positions // block_size] * np.int32(block_size)
    group_slots += positions % np.int32(block_size)
    token_ids = np.fromiter(chain.from_iterable(w.token_ids for w in works), np.int32, plan.num_tokens)

    rows, tasks, task_rows, prompt_rows, drafts = _rows(works, query_start.tolist())
    is_top = not prompt_rows and not any(task.params.needs_logits for task in tasks)
    if is_top_greedy:
        is_top = is_top and all(task.params.is_greedy for task in tasks)
    wanted = np.array(rows, np.int32)
    none = np.zeros(0, np.int32)
    state_slots = _those_held(np.fromiter((work.state_slot for work in works), np.int32, len(works)))
    orders = [] if state_slots is None else [(work.snapshot_slot, work.snapshot_rows) for work in works]
    inputs = StepInputs(
        token_ids=token_ids,
        positions=positions,
        slots=group_slots[0],
        query_start=query_start,
        context_len=context_len,
        block_table=group_tables[0],
        logit_rows=none if is_top else wanted,
        top_rows=wanted if is_top else none,
        top_counts=_top_counts(len(rows), tasks, task_rows, drafts) if is_top else none,
        adapter_slots=_adapter_slots(works, owner) if plan.adapters else None,
        token_types=_token_types(works, owner, positions),
        state_slots=state_slots,
        row_ends=_row_ends(works, owner, positions),
        **_snapshots(orders),
        **_by_group(group_slots, group_tables),
    )
    return PackedStep(inputs, tasks, task_rows, is_top, prompt_rows, drafts)


def _by_group(slots: NDArray[np.int32], tables: NDArray[np.int32]) -> dict[str, Any]:
    """What a step says of block groups, where there are several."""
    return {} if len(tables) == 1 else {"group_slots": slots, "group_tables": tables}


def _adapter_slots(works: Sequence[SequenceWork], owner: NDArray[np.int32]) -> NDArray[np.int32] | None:
    """[T] the slot of each token's adapter; None where no work has one."""
    slots = [work.adapter_slot for work in works]
    return np.array(slots, np.int32)[owner] if max(slots, default=-1) >= 0 else None


def _token_types(
    works: Sequence[SequenceWork], owner: NDArray[np.int32], positions: NDArray[np.int32]
) -> NDArray[np.int32] | None:
    """[T] 1 for tokens of a second text; None where there is no second text."""
    starts = [work.type_start for work in works]
    if max(starts, default=-1) < 0:
        return None
    first = np.array(starts, np.int32)[owner]
    return ((first >= 0) & (positions >= first)).astype(np.int32)


def _row_ends(
    works: Sequence[SequenceWork], owner: NDArray[np.int32], positions: NDArray[np.int32]
) -> NDArray[np.int32] | None:
    """[T] the length of their prompts, of tokens of prompts that see themselves, else 0; None where there are none."""
    ends = np.array([work.prefix for work in works], np.int32)[owner] if any(work.prefix for work in works) else None
    if ends is None or (positions >= ends).all():
        return None
    return np.where(positions < ends, ends, np.int32(0))


def _those_held(slots: NDArray[np.int32]) -> NDArray[np.int32] | None:
    """[B] slots, of states or adapters; None where none is held."""
    return slots if slots.max(initial=-1) >= 0 else None


def _snapshots(orders: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """What a step says of snapshots, where one is taken. Args: orders: slot and rows of each sequence."""
    if not any(rows for _, rows in orders):
        return {}
    slots, rows = np.array(orders, np.int32).T
    return {"snapshot_slots": np.ascontiguousarray(slots), "snapshot_rows": np.ascontiguousarray(rows)}


def pack_next(
    token_ids: list[int],
    positions: list[int],
    tables: NDArray[np.int32],
    tasks: list[SampleTask],
    block_size: int,
    is_top: bool,
    state_slots: list[int],
    snapshots: Sequence[tuple[int, int]] = (),
    adapter_slots: Sequence[int] = (),
) -> PackedStep:
    """A step in which each sequence computes one token and draws one.

    Args: tables: as GroupTables gives them. is_top: all take the best token. state_slots, adapter_slots: see
        SequenceWork. snapshots: slot and rows, 0 or 1, of each sequence's snapshot; none: none is taken.
    """
    count = len(tasks)
    at = np.array(positions, np.int32)
    rows, none = np.arange(count, dtype=np.int32), np.zeros(0, np.int32)
    slots = tables[:, rows, at // block_size] * np.int32(block_size) + at % np.int32(block_size)
    inputs = StepInputs(
        token_ids=np.array(token_ids, np.int32),
        positions=at,
        slots=slots[0],
        query_start=np.arange(count + 1, dtype=np.int32),
        context_len=at + np.int32(1),
        block_table=tables[0],
        logit_rows=none if is_top else rows,
        top_rows=rows if is_top else none,
        adapter_slots=_those_held(np.array(adapter_slots, np.int32)),
        state_slots=_those_held(np.array(state_slots, np.int32)),
        **_snapshots(snapshots),
        **_by_group(slots, tables),
    )
    return PackedStep(inputs, tasks, list(range(count)), is_top, [])


def step_of(
    given: tuple[NDArray[np.float32], ...],
    rope_rows: NDArray[np.float32] | None,
    sequences: Sequence[int],
    block_size: int,
) -> StepInputs:
    """A step whose tokens are rows that come with it; all of them are wanted. Args: sequences: tokens of each."""
    count, lengths = len(given[0]), np.array(sequences, np.int32)
    starts = np.cumsum([0, *lengths], dtype=np.int32)
    num_blocks = -(-lengths // block_size)
    # behind the null block; a block is of one sequence
    first_block = 1 + np.cumsum([0, *num_blocks[:-1]], dtype=np.int32)
    places = np.arange(count, dtype=np.int32)
    positions = places - np.repeat(starts[:-1], lengths)
    none = np.zeros(0, np.int32)
    return StepInputs(
        token_ids=np.zeros(count, np.int32),
        positions=positions,
        slots=positions + np.repeat(first_block, lengths) * np.int32(block_size),
        query_start=starts,
        context_len=lengths,
        # entries behind a sequence's own are not read
        block_table=first_block[:, None] + np.arange(num_blocks.max(), dtype=np.int32),
        logit_rows=places,
        top_rows=none,
        given=tuple(np.ascontiguousarray(rows, np.float32) for rows in given),
        rope_rows=None if rope_rows is None else np.ascontiguousarray(rope_rows, np.float32),
    )


def with_logits(inputs: StepInputs) -> StepInputs:
    """The same step with full logits for the rows of which the best few were wanted."""
    return replace(inputs, logit_rows=inputs.top_rows, top_rows=inputs.logit_rows, top_counts=inputs.top_counts[:0])


def with_hidden(inputs: StepInputs, works: list[SequenceWork]) -> StepInputs:
    """The same step with the hidden states that works want, in their order, in place of logits."""
    starts = inputs.query_start.tolist()
    rows = []
    for work, first, end in zip(works, starts, starts[1:], strict=False):
        if work.pooling is not None:
            count, is_first = work.pooling.num_rows, work.pooling.params.pooling_type == "cls"
            rows.append(range(first, first + count) if is_first else range(end - count, end))
    return replace(inputs, logit_rows=np.array([row for each in rows for row in each], np.int32))


def _top_counts(
    num_rows: int, tasks: list[SampleTask], task_rows: list[int], drafts: dict[int, Sequence[int]]
) -> NDArray[np.int32]:
    """How many of its best logits each row wants: for top-k one more, which shows whether others equal the k-th."""
    counts = np.ones(num_rows, np.int32)
    for place, (task, row) in enumerate(zip(tasks, task_rows, strict=True)):
        if not task.params.is_greedy:
            end = row + 1 + len(drafts.get(place, ()))
            counts[row:end] = np.maximum(counts[row:end], task.params.num_top + 1)
    return counts


def _rows(
    works: list[SequenceWork], query_start: list[int]
) -> tuple[list[int], list[SampleTask], list[int], list[tuple[SequenceWork, int]], dict[int, Sequence[int]]]:
    rows: list[int] = []
    tasks: list[SampleTask] = []
    task_rows: list[int] = []
    prompt_rows: list[tuple[SequenceWork, int]] = []
    drafts: dict[int, Sequence[int]] = {}
    for work, first, end in zip(works, query_start, query_start[1:], strict=False):
        if work.prompt_logprobs is not None and work.prompt_targets:
            prompt_rows.append((work, len(rows)))
            rows.extend(range(first, first + len(work.prompt_targets)))
        if work.samples:
            if work.num_drafts:
                drafts[len(tasks)] = work.draft_token_ids
            tasks.extend(work.samples)
            task_rows.extend([len(rows)] * len(work.samples))
            rows.extend(range(end - 1 - work.num_drafts, end))
    return rows, tasks, task_rows, prompt_rows, drafts
