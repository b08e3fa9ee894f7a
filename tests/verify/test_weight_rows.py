"""Rows of a constant as the reference reads them: the same as the whole, whatever it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from albireo.backends.reference.interpret import constant_array
from albireo.compiler.pipeline import run_passes
from albireo.dtypes import COMPUTE_DTYPES
from albireo.errors import InvariantError
from albireo.graph.node import TensorType, Value
from albireo.models import load_architecture, open_checkpoint
from albireo.verify import weight_rows
from albireo.verify.weight_rows import WeightRows
from tiny_models import make_checkpoint, random_weights
from verify.models import graph_of

LLAMA = load_architecture("llama").tiny


@pytest.mark.parametrize("stored", COMPUTE_DTYPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parts_are_of_the_whole(stored: str, dtype: str, tmp_path: Path) -> None:
    """Merged, with rows of zeros or not, and rounded from another type."""
    checkpoint = make_checkpoint(tmp_path, LLAMA, seed=3, dtype=stored)
    graph = graph_of(checkpoint, dtype)
    fused, _ = run_passes(graph)
    with open_checkpoint(checkpoint, graph) as weights:
        arrays = {name: weights.tensor(name).to_float32() for name in random_weights(LLAMA, 3)}
        for value in fused.constants.values():
            rows, whole = WeightRows(value, weights), constant_array(value, arrays)
            assert (rows.shape, len(rows)) == (whole.shape, len(whole))
            assert np.array_equal(rows[:], whole)
            for start, stop in ((0, 1), (len(whole) // 3, len(whole) - 1), (len(whole) - 1, len(whole) + 9)):
                assert np.array_equal(rows[start:stop], whole[start:stop])
            picked = np.array([len(whole) - 1, 0, 0], np.int32)
            assert np.array_equal(rows[picked], whole[picked])
    assert any(len(value.constant.segments) > 1 for value in fused.constants.values() if value.constant)


def test_small_constants_are_widened_once_and_large_ones_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = make_checkpoint(tmp_path, LLAMA, seed=3, dtype="float16")
    graph = graph_of(checkpoint, "bfloat16")
    with open_checkpoint(checkpoint, graph) as weights:
        value = graph.constants["model.embed_tokens.weight"]
        kept = WeightRows(value, weights)
        assert kept[2:9] is kept[2:9] and not kept[2:9].flags.writeable
        monkeypatch.setattr(weight_rows, "KEPT_BYTES", 4 * value.type.dims[0] * value.type.dims[1] - 1)
        read = WeightRows(value, weights)
        assert read[2:9] is not read[2:9] and np.array_equal(read[2:9], kept[2:9])


def test_a_value_that_is_computed_has_no_rows(built: tuple[Path, Path]) -> None:
    with (
        open_checkpoint(built[0], graph_of(built[0], "bfloat16")) as weights,
        pytest.raises(InvariantError, match="is not a constant"),
    ):
        WeightRows(Value("7", TensorType("float32", ("T", 3))), weights)
