"""Vectors made of parts of stored ones, in any order."""

from __future__ import annotations

import numpy as np

from albireo.backends.vectors import vector_of
from albireo.graph.node import ConstantDef, RowSegment
from backends.cpu.test_pack import Stored, Weights


def test_parts_in_any_order_with_zeros_between() -> None:
    stored = np.arange(8, dtype=np.float32)
    weights = Weights({"a": Stored(stored, "float32"), "b": Stored(10 * stored, "bfloat16")})
    segments = (("a", 0, 1), ("a", 2, 3), (None, 0, 2), ("b", 1, 4), ("a", 1, 2))
    definition = ConstantDef(tuple(RowSegment(*each) for each in segments), plus=1.0, factor=2.0)
    assert vector_of(definition, weights).tolist() == [2, 6, 0, 0, 22, 42, 62, 4]
