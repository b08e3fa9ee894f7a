"""Two programs on one memory: they compute the same keys and values, and go on from each other's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from albireo.api.load import Loaded, load
from albireo.backends.step_inputs import StepInputs
from albireo.config import EngineConfig
from albireo.errors import InvariantError
from albireo.models import load_architecture
from step_batches import Work, make_step
from tiny_models import make_checkpoint

BLOCK_SIZE = 16
FIRST = [Work([5, 9, 2, 7, 1, 3, 3, 8, 4], 0, [3]), Work([11, 4, 6], 0, [2])]
SECOND = [Work([8, 8], 9, [3]), Work([13], 3, [2])]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    config = load_architecture("qwen3").tiny
    directory = make_checkpoint(tmp_path_factory.mktemp("model"), config, seed=5, dtype="bfloat16")
    limits: dict[str, Any] = {"max_num_seqs": 4, "max_num_batched_tokens": 32, "num_gpu_blocks_override": 8}
    return load(EngineConfig(model=str(directory), num_threads=1, skip_tokenizer_init=True, **limits))


def steps() -> list[StepInputs]:
    return [make_step(works, BLOCK_SIZE, "all", "last") for works in (FIRST, SECOND)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 1)])
def test_each_goes_on_from_the_others_cache(loaded: Loaded, order: tuple[int, int]) -> None:
    assert loaded.pooler is not None
    model, pooler = loaded.model, loaded.pooler.pooler()
    wanted = [(o.logits.copy(), o.top_ids.copy(), o.top_values.copy()) for o in map(model.run, steps())]
    hidden = [pooler.run(step).hidden.copy() for step in steps()]
    for each in (loaded.one_rank._kv.memory, loaded.one_rank._arena, pooler._arena):  # type: ignore[union-attr]
        each.view()[:] = 0xFF
    for step, who, (logits, ids, values), states in zip(steps(), order, wanted, hidden, strict=True):
        got = (model, pooler)[who].run(step)
        assert np.array_equal(got.top_ids, ids) and np.array_equal(got.top_values, values)
        assert (got.logits.size, got.hidden.size) == ((0, states.size) if who else (logits.size, 0))
        assert np.array_equal(got.hidden if who else got.logits, states if who else logits)


def test_a_program_of_other_constants_is_refused(loaded: Loaded) -> None:
    assert loaded.pooler is not None
    model, program = loaded.one_rank, loaded.pooler.pooler().program
    constants = {**program.constants}
    constants.popitem()
    with pytest.raises(InvariantError, match="other constants"):
        model.sharing(replace(program, constants=constants))


def test_activations_are_shared_where_there_is_room(loaded: Loaded) -> None:
    assert loaded.pooler is not None
    model, program = loaded.one_rank, loaded.pooler.pooler().program
    for num_bytes in (model._arena.num_bytes, model._arena.num_bytes + 1):
        other = model.sharing(replace(program, arena_bytes=num_bytes))
        assert (other._arena is model._arena) == (num_bytes <= model._arena.num_bytes)
        assert other._arena.num_bytes >= num_bytes and other._kv is model._kv
