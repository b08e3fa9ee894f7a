"""The steps are legal, mixed, and fit short contexts."""

from __future__ import annotations

import pytest

from albireo.verify.steps import NUM_BLOCKS, walk_steps

TOKENS = list(range(5, 95))


@pytest.mark.parametrize("block_size", [8, 16, 32])
@pytest.mark.parametrize("model_len", [1, 2, 3, 7, 16, 50, 51, 4096])
def test_steps_are_legal(model_len: int, block_size: int) -> None:
    steps = walk_steps(TOKENS, model_len, block_size)
    for step in steps:
        step.check(block_size)
        assert step.context_len.max() <= model_len
        assert step.block_table.max() < NUM_BLOCKS
        assert step.block_table.min() >= 0
        assert len(step.top_rows) == step.num_sequences
        assert set(step.token_ids.tolist()) <= set(TOKENS)


def test_all_kinds_of_work_are_there() -> None:
    first, second, third = walk_steps(TOKENS, 4096, 16)
    lengths = [(step.query_start[1:] - step.query_start[:-1]).tolist() for step in (first, second, third)]
    assert lengths == [[49, 6], [1, 7, 5], [1, 1, 1]]
    assert len(first.logit_rows) > 1 and len(second.logit_rows) > 1
    assert len(third.logit_rows) == 0, "decoding asks for the best alone"
    assert set(second.top_counts.tolist()) == {1, 5}
