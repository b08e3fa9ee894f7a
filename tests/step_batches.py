"""StepInputs for tests: sequences with their tokens and blocks, put into one step.

Used by the tests of the backends and of the compiler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from albireo.backends.step_inputs import StepInputs

Rows = Literal["all", "last", "none"]


@dataclass(frozen=True)
class Work:
    """Tokens of one sequence to compute: position of the first, and the blocks of the whole sequence.

    state_slot: where what it keeps beside them is; -1: nowhere. snapshot: the slot that it goes to as well, and behind
    how many of the tokens; 0: it does not.
    """

    token_ids: Sequence[int]
    num_computed_tokens: int
    blocks: Sequence[int]
    state_slot: int = -1
    snapshot: tuple[int, int] = (-1, 0)


def make_step(work: Sequence[Work], block_size: int, logits: Rows = "all", top: Rows = "last") -> StepInputs:
    """One step of several sequences, in order. logits, top: which rows of each sequence are wanted."""
    positions = [np.arange(len(w.token_ids)) + w.num_computed_tokens for w in work]
    slots = [
        np.asarray(w.blocks)[p // block_size] * block_size + p % block_size
        for w, p in zip(work, positions, strict=True)
    ]
    query_start = np.cumsum([0, *(len(w.token_ids) for w in work)])
    table = np.zeros((len(work), max(len(w.blocks) for w in work)), np.int32)
    for row, w in zip(table, work, strict=True):
        row[: len(w.blocks)] = w.blocks
    rows = {"all": np.arange(query_start[-1]), "last": query_start[1:] - 1, "none": np.zeros(0)}

    has_snapshots = any(w.snapshot[1] for w in work)

    def ints(values: object) -> np.ndarray:
        return np.ascontiguousarray(values, np.int32)

    return StepInputs(
        token_ids=ints(np.concatenate([w.token_ids for w in work])),
        positions=ints(np.concatenate(positions)),
        slots=ints(np.concatenate(slots)),
        query_start=ints(query_start),
        context_len=ints([w.num_computed_tokens + len(w.token_ids) for w in work]),
        block_table=table,
        logit_rows=ints(rows[logits]),
        top_rows=ints(rows[top]),
        state_slots=ints([w.state_slot for w in work]) if any(w.state_slot >= 0 for w in work) else None,
        snapshot_slots=ints([w.snapshot[0] for w in work]) if has_snapshots else None,
        snapshot_rows=ints([w.snapshot[1] for w in work]) if has_snapshots else None,
    )
