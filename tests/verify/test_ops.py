"""Judging what a call wrote: the worst element by name, what is no number, and best logits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from albireo.graph.node import Node, TensorType, Value
from albireo.graph.program import Call
from albireo.verify.bounds import Bounded
from albireo.verify.ops import check_call
from albireo.verify.walk import Seen
from step_batches import Work, make_step

STEP = make_step([Work([1, 2, 3], 0, [1])], 16, logits="none", top="last")


def seen(results: list[Any], types: list[TensorType], family: str = "linear") -> Seen:
    outputs = tuple(Value(f"v{i}", type_) for i, type_ in enumerate(types))
    call = Call(family, f"{family}.float32.scalar", {}, {}, "T", "rows", True, "layers.0.mlp.down")
    return Seen(7, 1, STEP, call, Node("fused", {}, {}, outputs), {}, results)


def judge(result: Any, wanted: Any, tolerance: Any) -> Any:
    result = np.array(result, np.float32)
    return check_call(
        seen([result], [TensorType("float32", ("T", 2))]), [Bounded(np.array(wanted, np.float32), tolerance)]
    )


def test_the_worst_element_is_named() -> None:
    check = judge([[1, 2], [3, 4.5]], [[1, 2.25], [3, 4]], np.array([[0, 0.5], [0, 0.25]]))
    assert (check.num_values, check.num_exact, check.num_wrong) == (4, 2, 1)
    assert check.worst is not None and not check.is_right
    assert (check.worst.result, check.worst.at, check.worst.seen, check.worst.wanted) == ("v0", (1, 1), 4.5, 4.0)
    assert (check.worst.tolerance, check.worst.used) == (0.25, 2.0)
    assert (check.index, check.step_idx, check.origin) == (7, 1, "layers.0.mlp.down")


def test_no_tolerance_means_equal() -> None:
    assert judge([[1, -0.0]], [[1, 0.0]], 0.0).is_right
    check = judge([[1, 2]], [[1, np.nextafter(np.float32(2), np.float32(3))]], 0.0)
    assert check.worst.used == math.inf and check.num_wrong == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_wrong(bad: float) -> None:
    assert judge([[bad, 1]], [[1, 1]], 10.0).num_wrong == 1
    assert judge([[1, 1]], [[bad, 1]], 10.0).num_wrong == 1
    assert judge([[np.inf, 1]], [[np.inf, 1]], 0.0).is_right


def test_keys_and_values_are_looked_at_both() -> None:
    k, v = np.ones((3, 1, 2), np.float32), np.ones((3, 1, 2), np.float32)
    wrong = v.copy()
    wrong[2, 0, 1] = 5
    kv = TensorType("kv", ())
    check = check_call(seen([(k, wrong)], [kv]), [Bounded(None, (0.0, 0.5), (k, v))])
    assert check.worst is not None
    assert (check.worst.result, check.worst.at, check.num_values, check.num_wrong) == ("v", (2, 0, 1), 12, 1)


def top(ids: list[int], values: list[float], error: float = 0.1) -> bool:
    """One row of two best of five logits."""
    logits = np.array([[1, 5, 4, 4, 0]], np.float32)
    step = make_step([Work([1, 2, 3], 0, [1])], 16, logits="none", top="last")
    given_ids, given = np.full((1, 4), -1, np.int32), np.full((1, 4), -np.inf, np.float32)
    given_ids[0, :2], given[0, :2] = ids, values
    types = [TensorType("int32", ("G", 4)), TensorType("float32", ("G", 4))]
    step.top_counts[:] = 2
    one = seen([given_ids, given], types, "head_top")
    judged = check_call(
        Seen(0, 0, step, one.call, one.node, {}, one.results),
        [Bounded(given_ids), Bounded(given, np.full((1, 5), error), (logits,))],
    )
    return judged.is_right


def test_best_logits() -> None:
    assert top([1, 2], [5, 4])
    assert top([1, 3], [5.05, 4.05]), "equals may change places within the tolerance"
    assert not top([1, 2], [5.2, 4]), "a logit that is not its id's"
    assert not top([1, 0], [5, 1]), "a better one is left out"
    assert not top([1, 1], [5, 5]), "one id twice"
    assert not top([2, 1], [4, 5]), "out of order"
    assert not top([1, 7], [5, 4]), "no id"
