"""rope with numbers of each head by which it grows, at every level: against the reference and what transformers has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.reference import rope as reference
from albireo.backends.reference.call import OpCall
from albireo.backends.rope_table import rope_table
from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import TensorType, Value
from albireo.graph.ops import RopeSpec
from backends.cpu.harness import assert_same_bits, normal, pool, rows_step, variants

F32 = NDArray[np.float32]
LEVELS = [level for dtype, level in variants("rope") if dtype == "float32"]
TOKENS, HEADS, DIM = 9, 3, 20
SPEC = RopeSpec(tuple(0.7**i for i in range(DIM // 2)))


def run(level: str, x: F32, vectors: dict[str, Any], threads: int = 1) -> F32:
    """Args: vectors: weight, bias and first_key of the kernel."""
    step, out = rows_step(len(x)), np.full(x.shape, np.nan, np.float32)
    table = np.ascontiguousarray(rope_table(SPEC, np.arange(64, dtype=np.int32)).transpose(0, 2, 1))
    args: dict[str, Any] = {"x": x, "rope": table, "out": out, "k": DIM, "num_heads": HEADS}
    args |= {"x_stride": x.shape[1], "out_stride": x.shape[1], "rows": "T"} | vectors
    values = {name: v.ctypes.data if isinstance(v, np.ndarray) else v for name, v in args.items()}
    program = _native.Program(pool(threads), 4)
    program.add("rope", level, "float32", values)
    program.run(*step.arrays, np.zeros((4, _native.TOP_MOST), np.int32), np.zeros((4, _native.TOP_MOST), np.float32))
    return out


@pytest.mark.parametrize("level", LEVELS)
def test_heads_grow_by_numbers_of_their_own(level: str) -> None:
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.mistral_large4.modeling_mistral_large4")
    x, slope, start = normal(TOKENS, HEADS * DIM), normal(1, 16, seed=1)[0], normal(1, 16, seed=2)[0]
    turned = run(level, x, {})
    grown = run(level, x, {"weight": slope, "bias": start, "first_key": 1})
    theirs = modeling.MistralLarge4TextSoftmaxScaling(HEADS)
    theirs.load_state_dict({"scale": torch.tensor(slope[:HEADS]), "bias": torch.tensor(start[:HEADS])})
    positions = torch.tensor(rows_step(TOKENS).positions[None].astype(np.int64))
    assert len(set(positions[0].tolist())) > 3, "at one position nothing would grow"
    with torch.no_grad():
        of_heads = torch.tensor(turned.reshape(1, TOKENS, HEADS, DIM))
        wanted = theirs(of_heads, positions, head_dim_first=False).numpy().reshape(TOKENS, -1)
    np.testing.assert_allclose(grown, wanted, rtol=1e-5, atol=1e-6)
    call = OpCall(
        {"x": x, "positions": rows_step(TOKENS).positions, "slope": slope[:HEADS], "start": start[:HEADS]},
        {"num_heads": HEADS, "head_dim": DIM, "rope": SPEC, "ahead": 1},
        rows_step(TOKENS),
    )
    np.testing.assert_allclose(reference.rope(call)[0], wanted, rtol=1e-5, atol=1e-6)
    assert_same_bits(run(level, x, {"weight": slope, "bias": start, "first_key": 1}, threads=3), grown)


@pytest.mark.parametrize("level", LEVELS)
def test_what_does_not_grow_is_what_it_was(level: str) -> None:
    x = normal(TOKENS, HEADS * DIM)
    still = {"weight": np.zeros(16, np.float32), "bias": np.ones(16, np.float32), "first_key": 1}
    assert_same_bits(run(level, x, still), run(level, x, {}))


@pytest.mark.parametrize("missing", ["slope", "start", "ahead"])
def test_numbers_come_together(missing: str) -> None:
    b, x = GraphBuilder(), Value("x", TensorType("float32", ("T", HEADS * DIM)))
    inputs = {"x": x, "positions": b.positions} | {
        role: Value(role, TensorType("float32", (HEADS,))) for role in ("slope", "start") if role != missing
    }
    attrs = {"num_heads": HEADS, "head_dim": DIM, "rope": SPEC} | ({} if missing == "ahead" else {"ahead": 1})
    with pytest.raises(InvariantError, match="slope, start and ahead come together"):
        b._node("rope", inputs, **attrs)


def test_numbers_are_one_for_each_head() -> None:
    b, x = GraphBuilder(), Value("x", TensorType("float32", ("T", HEADS * DIM)))
    slope, start = (Value(role, TensorType("float32", (count,))) for role, count in (("s", HEADS), ("t", HEADS + 1)))
    with pytest.raises(InvariantError, match="of each"):
        b.rope(x, SPEC, HEADS, DIM, (slope, start))
