"""Packing: every pair of types and every pattern against torch's casts, panels and constants against numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu import pack
from albireo.backends.cpu.pack import constant_offsets, pack_constants
from albireo.backends.reference.rounding import round_to
from albireo.backends.rope_table import rope_table
from albireo.dtypes import COMPUTE_DTYPES, itemsize
from albireo.errors import WeightMismatch
from albireo.graph.node import ConstantDef, RowSegment
from albireo.graph.ops import RopeSpec
from albireo.graph.program import PackedConstant
from backends.cpu.harness import (
    F32,
    Array,
    Guarded,
    assert_same_bits,
    decode,
    encode,
    hard_to_round,
    normal,
    panels,
    pool,
)

torch = pytest.importorskip("torch")

PAIRS = [(source, target) for source in COMPUTE_DTYPES for target in COMPUTE_DTYPES]


def torch_cast(stored: Array, source: str, target: str) -> Array:
    """Stored numbers of one type as they are stored in another."""
    bits = {"float32": np.int32}.get(target, np.int16)
    signed = torch.from_numpy(stored.view({4: np.int32, 2: np.int16}[stored.itemsize]))
    cast = signed.view(getattr(torch, source)).to(getattr(torch, target))
    return np.asarray(cast.view({np.int32: torch.int32, np.int16: torch.int16}[bits]).numpy())


def patterns(dtype: str) -> Array:
    """Every 16-bit pattern of dtype; of float32 those that are hard to round to 16 bits."""
    if dtype == "float32":
        return hard_to_round()
    return np.arange(2**16, dtype=np.uint16).view(np.float16 if dtype == "float16" else np.uint16)


def native_pack(
    addresses: NDArray[np.uint64],
    k: int,
    source: str,
    target: str,
    out: Guarded,
    *,
    as_panels: bool,
    threads: int = 1,
    wide: bool = True,
) -> None:
    _native.pack(pool(threads), addresses, k, source, target, out.address, as_panels, wide)
    out.check_guards()


def row_addresses(stored: Array) -> NDArray[np.uint64]:
    return np.uint64(stored.ctypes.data) + np.arange(len(stored), dtype=np.uint64) * np.uint64(stored.strides[0])


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_pattern_is_converted_as_torch_does(source: str, target: str) -> None:
    numbers = patterns(source).reshape(1, -1)
    out = Guarded.poisoned(numbers.shape, target)
    native_pack(row_addresses(numbers), numbers.shape[1], source, target, out, as_panels=False)
    wanted = torch_cast(numbers, source, target)
    if source == target:
        assert_same_bits(out.stored.view(wanted.dtype), wanted, "a copy")
        return
    nan = np.isnan(numbers) if source != "bfloat16" else (numbers & 0x7FFF) > 0x7F80
    assert np.isnan(out.values[nan]).all()
    assert_same_bits(out.stored.view(wanted.dtype)[~nan], wanted[~nan], f"{source} to {target}")


@pytest.mark.parametrize(("threads", "wide"), [(1, False), (1, True), (3, True)])
@pytest.mark.parametrize("k", [1, 2, 15, 16, 17, 33, 64, 101])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_panels(source: str, target: str, k: int, threads: int, wide: bool) -> None:
    """Three panels; some rows of zeros, as padding is."""
    rows = normal(192, k, dtype=source)
    empty = [0, 5, 63, 64, 130, *range(170, 192)]
    stored = np.ascontiguousarray(encode(rows, source))
    addresses = row_addresses(stored)
    addresses[empty] = 0
    rows[empty] = 0
    wanted = panels(round_to(rows, target), target)
    out = Guarded.poisoned(wanted.shape, target)
    native_pack(addresses, k, source, target, out, as_panels=True, threads=threads, wide=wide)
    assert_same_bits(out.stored, wanted.stored, "panels")
    assert _native.panel_bytes(target, k) * 3 == wanted.stored.nbytes


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_rows_from_anywhere(source: str, target: str) -> None:
    """Rows need not be aligned to their elements, as in a file; more of them than a thread claims at once."""
    rows = normal(150, 7, dtype=source)
    size = itemsize(source)
    raw = np.zeros(rows.size * size + 1, np.uint8)
    raw[1:] = np.ascontiguousarray(encode(rows, source)).view(np.uint8).reshape(-1)
    addresses = np.uint64(raw.ctypes.data + 1) + np.arange(150, dtype=np.uint64)[::-1] * np.uint64(7 * size)
    out = Guarded.poisoned((150, 7), target)
    native_pack(np.ascontiguousarray(addresses), 7, source, target, out, as_panels=False, threads=2)
    assert_same_bits(out.stored, encode(round_to(rows[::-1], target), target), "rows")


def test_panels_must_be_whole() -> None:
    with pytest.raises(ValueError, match="whole panels"):
        _native.pack(pool(), np.zeros(65, np.uint64), 4, "float32", "float32", 0, True)


@pytest.mark.parametrize("dtype", ["int7", "float64", ""])
def test_unknown_types_are_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="unknown dtype"):
        _native.panel_bytes(dtype, 4)


# -- constants ---------------------------------------------------------------------------------------------------------


@dataclass
class Stored:
    """A tensor as a checkpoint gives it."""

    values: F32
    dtype: str
    _bytes: Array = field(init=False)

    def __post_init__(self) -> None:
        self._bytes = np.ascontiguousarray(encode(self.values, self.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def address(self) -> int:
        return int(self._bytes.ctypes.data)

    def to_float32(self) -> F32:
        return decode(self._bytes, self.dtype)


@dataclass
class Weights:
    """A checkpoint; remembers what was let go."""

    tensors: Mapping[str, Stored]
    released: list[str] = field(default_factory=list)
    encodings: Mapping[str, str] = field(default_factory=dict)

    def tensor(self, name: str) -> Stored:
        return self.tensors[name]

    def blocks(self, name: str) -> None:
        """There are none."""

    def release(self, name: str) -> None:
        self.released.append(name)


def constant(name: str, packing: str, rows: int, cols: int, *segments: tuple[str | None, int, int]) -> PackedConstant:
    kind, _, dtype = packing.partition(".")
    count = -(-rows // 64)
    num_bytes = count * _native.panel_bytes(dtype, cols) if kind == "p64" else rows * cols * itemsize(dtype)
    return PackedConstant(name, packing, rows, cols, num_bytes, ConstantDef(tuple(RowSegment(*s) for s in segments)))


def packed(
    weights: Weights, *constants: PackedConstant, progress: list[int] | None = None
) -> dict[str, NDArray[np.uint8]]:
    by_name = {c.name: c for c in constants}
    offsets, num_bytes = constant_offsets(by_name)
    memory = _native.Memory(num_bytes)
    memory.view()[:] = 0xFF
    done: list[int] = [] if progress is None else progress
    pack_constants(pool(2), by_name, weights, memory, offsets, done.append)
    return {name: memory.view()[offsets[name] : offsets[name] + c.num_bytes].copy() for name, c in by_name.items()}


def test_offsets_leave_room_for_a_panel_of_padding() -> None:
    """Kernels read vectors to the end of their last panel, and every constant starts on a page."""
    constants = [constant(str(n), "row.float32", 1, n, ("v", 0, n)) for n in (1, 960, 1024, 1025)]
    offsets, end = constant_offsets({c.name: c for c in constants})
    ends = [*list(offsets.values())[1:], end]
    assert all(start % 4096 == 0 for start in offsets.values())
    for c, stop in zip(constants, ends, strict=True):
        assert offsets[c.name] + c.num_bytes + 64 * 4 <= stop
    assert constant_offsets({}) == ({}, 0)


@pytest.mark.parametrize("source", COMPUTE_DTYPES)
@pytest.mark.parametrize("target", COMPUTE_DTYPES)
def test_a_matrix_is_joined_from_segments(source: str, target: str) -> None:
    a, b = normal(70, 11, dtype=source), normal(9, 11, seed=1, dtype=source)
    weights = Weights({"a": Stored(a, source), "b": Stored(b, source)})
    segments = [("a", 3, 60), (None, 0, 5), ("b", 2, 9), ("a", 0, 2)]
    joined = round_to(np.concatenate([a[3:60], np.zeros((5, 11)), b[2:9], a[:2]]), target)
    done: list[int] = []
    constants = constant("p", f"p64.{target}", 71, 11, *segments), constant("r", f"row.{target}", 71, 11, *segments)
    got = packed(weights, *constants, progress=done)
    assert_same_bits(got["p"], panels(joined, target).stored.view(np.uint8).reshape(-1), "panels")
    assert_same_bits(got["r"], np.ascontiguousarray(encode(joined, target)).view(np.uint8).reshape(-1), "rows")
    assert sum(done) == sum(c.num_bytes for c in constants)
    assert set(weights.released) == {"a", "b"}


@pytest.mark.parametrize("source", COMPUTE_DTYPES)
@pytest.mark.parametrize("target", COMPUTE_DTYPES)
def test_a_matrix_of_some_columns(source: str, target: str) -> None:
    """A rank's part: rows of the checkpoint are longer than those of the constant."""
    a = normal(70, 40, dtype=source)
    weights = Weights({"a": Stored(a, source)})
    for first, end in ((0, 16), (16, 40), (38, 40)):
        rows = [("a", 3, 60), (None, 0, 5), ("a", 0, 2)]
        whole = [constant(kind, f"{kind}.{target}", 64, end - first, *rows) for kind in ("p64", "row")]
        parts = [replace(c, definition=replace(c.definition, columns=(first, end))) for c in whole]
        wanted = round_to(np.concatenate([a[3:60], np.zeros((5, 40)), a[:2]])[:, first:end], target)
        got = packed(weights, *parts)
        assert_same_bits(got["p64"], panels(wanted, target).stored.view(np.uint8).reshape(-1), "panels")
        assert_same_bits(got["row"], np.ascontiguousarray(encode(wanted, target)).view(np.uint8).reshape(-1), "rows")


def test_slices_are_seamless(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = normal(300, 10, dtype="bfloat16")
    weights = Weights({"a": Stored(rows, "bfloat16")})
    monkeypatch.setattr(pack, "SLICE_BYTES", 2 * 64 * 10 * 2 + 5)
    done: list[int] = []
    constants = [constant(kind, f"{kind}.bfloat16", 300, 10, ("a", 0, 300)) for kind in ("p64", "row")]
    got = packed(weights, *constants, progress=done)
    assert_same_bits(got["p64"], panels(rows, "bfloat16").stored.view(np.uint8).reshape(-1), "panels")
    assert_same_bits(got["row"], np.ascontiguousarray(encode(rows, "bfloat16")).view(np.uint8).reshape(-1), "rows")
    assert len(done) == 3 + 3
    assert sum(done) == sum(c.num_bytes for c in constants)


@pytest.mark.parametrize("target", ["int8", "int4.g32"])
def test_what_is_no_number_is_not_rounded(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would become some other number, and the model another. The row is named as the checkpoint has it."""
    monkeypatch.setattr(pack, "SLICE_BYTES", 1)
    a, b = normal(70, 32, dtype="bfloat16"), normal(80, 32, seed=1, dtype="bfloat16")
    b[75, 31] = np.nan
    weights = Weights({"a": Stored(a, "bfloat16"), "b": Stored(b, "bfloat16")})
    whole = constant("p", f"p64.{target}", 140, 32, ("a", 0, 60), (None, 0, 10), ("b", 10, 80))
    with pytest.raises(WeightMismatch, match=f"'b' holds a number that is not finite in row 75;.*rounded to {target}"):
        packed(weights, whole)
    packed(weights, constant("p", f"p64.{target}", 60, 32, ("a", 0, 60)))


@pytest.mark.parametrize("source", COMPUTE_DTYPES)
def test_vectors_are_widened(source: str) -> None:
    v = normal(50, dtype=source)
    weights = Weights({"v": Stored(v, source), "w": Stored(2 * v, source)})
    got = packed(weights, constant("v", "row.float32", 1, 65, ("w", 10, 50), (None, 0, 5), ("v", 0, 20)))
    wanted = np.concatenate([2 * v[10:], np.zeros(5, np.float32), v[:20]])
    assert_same_bits(got["v"].view(np.float32), wanted, "vector")


@pytest.mark.parametrize("packing", ["p64.float32", "p64.bfloat16", "row.float32", "row.bfloat16"])
def test_a_matrix_of_one_row_is_no_vector(packing: str) -> None:
    row = normal(1, 6, dtype="bfloat16")
    dtype = packing.partition(".")[2]
    got = packed(Weights({"a": Stored(row, "bfloat16")}), constant("a", packing, 1, 6, ("a", 0, 1)))["a"]
    wanted = panels(row, dtype).stored if packing.startswith("p64") else encode(row, dtype)
    assert_same_bits(got, np.ascontiguousarray(wanted).view(np.uint8).reshape(-1), packing)


def test_rope_tables_are_cosines_then_sines() -> None:
    spec = RopeSpec((1.0, 0.1, 0.003), 1.25)
    table = PackedConstant("rope.0", "rope", 40, 6, 40 * 6 * 4, rope=spec)
    got = packed(Weights({}), table)["rope.0"].view(np.float32).reshape(40, 2, 3)
    angles = np.arange(40)[:, None] * np.array(spec.inv_freq)
    np.testing.assert_allclose(got[:, 0], 1.25 * np.cos(angles), atol=4e-6)
    np.testing.assert_allclose(got[:, 1], 1.25 * np.sin(angles), atol=4e-6)
    assert_same_bits(
        got, np.ascontiguousarray(rope_table(spec, np.arange(40, dtype=np.int32)).transpose(0, 2, 1)), "table"
    )


def test_joined_tensors_must_be_of_one_type() -> None:
    values: dict[str, Any] = {"a": Stored(normal(4, 3), "float32"), "b": Stored(normal(4, 3), "bfloat16")}
    with pytest.raises(
        WeightMismatch, match=r"^qkv joins tensors of different types: .*'a': 'float32', 'b': 'bfloat16'"
    ):
        packed(Weights(values), constant("qkv", "p64.float32", 8, 3, ("a", 0, 4), ("b", 0, 4)))
