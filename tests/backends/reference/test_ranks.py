"""interpret_ranks and all_reduce: the order of sums, and ranks that fail."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.linear import tree_sum
from albireo.backends.reference.ranks import interpret_ranks
from albireo.errors import InvariantError
from compiler.examples import BLOCK_SIZE
from compiler.ranks import rank_graphs, wide_config, wide_graph
from step_batches import Work, make_step
from tiny_models import random_weights

STEP = make_step([Work([5, 9, 2], 0, [1])], BLOCK_SIZE)


def test_neighbours_first() -> None:
    """In this order the small ones survive; in a chain they are lost, one by one, in the large one."""
    parts = [np.float32([x]) for x in (2.0**24, 1, 1, 1, 1, 1, 1, 1)]
    assert tree_sum(parts)[0] == np.float32(2.0**24 + 6)  # (2^24 + 1) rounds to 2^24; + 2; + 4
    assert tree_sum(parts[:1])[0] == 2.0**24


def test_a_rank_alone_is_refused() -> None:
    config = wide_config("llama")
    (first, _) = rank_graphs(wide_graph(config), 2, ())
    with pytest.raises(InvariantError, match=r"node \d+ all_reduce \(layers.0.attn.o\): a rank needs the others here"):
        interpret(first, STEP, random_weights(config, 0), ReferenceKV(4, BLOCK_SIZE))


def test_too_few_ranks_are_refused() -> None:
    config = wide_config("llama")
    graphs = rank_graphs(wide_graph(config), 4, ())[:2]
    with pytest.raises(InvariantError, match="2 ranks run a graph that was cut for 4"):
        interpret_ranks(graphs, STEP, random_weights(config, 0), [ReferenceKV(4, BLOCK_SIZE) for _ in graphs])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_ends_the_step_of_all(rank: int) -> None:
    config = wide_config("llama")
    weights = random_weights(config, 0)
    # in the columns of one rank alone, so that only its sums are no numbers
    weights["model.layers.1.mlp.down_proj.weight"][:, 56 * rank] = np.nan
    graphs = rank_graphs(wide_graph(config), 2, ())
    with pytest.raises(InvariantError, match=r"layers\.1\.mlp\.down.*holds NaN"):
        interpret_ranks(graphs, STEP, weights, [ReferenceKV(4, BLOCK_SIZE) for _ in graphs])
