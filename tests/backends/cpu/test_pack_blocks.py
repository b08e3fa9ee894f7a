"""Blocks of GGUF packed where they lie: the same panels, to the byte, as of the arrays that they are read as, which the
gguf package vouches for (quantization/formats/test_gguf_blocks.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu import pack_encoded as packing
from albireo.backends.cpu.pack_encoded import pack_encoded
from albireo.errors import WeightMismatch
from albireo.graph.node import ConstantDef, RowSegment
from albireo.graph.program import PANEL, PackedConstant
from albireo.quantization.blocks import Blocks
from albireo.quantization.encoded import Encoded
from albireo.quantization.formats.gguf_blocks import BLOCKS, TYPE_NUMBERS, read_blocks
from backends.cpu.harness import Guarded, pool
from quantization.formats.gguf_random import random_blocks, scaled

KINDS = [
    kind
    for kind, block in BLOCKS.items()
    if block.encoding and _native.packs_blocks(TYPE_NUMBERS[kind], 256, block.encoding)
]


@dataclass
class Matrix:
    """Tensors of a file, one below the other, of types that become one encoding; rows in an order of their own."""

    tensors: list[tuple[str, NDArray[np.uint8]]]
    k: int
    order: NDArray[np.intp]

    def encoded(self) -> Encoded:
        found = [read_blocks(kind, data, (len(data), self.k), "w") for kind, data in self.tensors]
        arrays = {
            part: None if getattr(found[0], part) is None else np.concatenate([getattr(e, part) for e in found])
            for part in ("codes", "scale", "zero", "gamma", "offset")
        }
        return Encoded(found[0].encoding, **{p: None if a is None else a[self.order] for p, a in arrays.items()})

    def blocks(self) -> Blocks:
        lies = [np.uint64(data.ctypes.data) + np.uint64(data.strides[0]) * np.arange(len(data)).astype(np.uint64)
                for _, data in self.tensors]  # fmt: skip
        types = [np.full(len(data), TYPE_NUMBERS[kind], np.uint8) for kind, data in self.tensors]
        rows, numbers = np.concatenate(lies)[self.order], np.concatenate(types)[self.order]
        return Blocks(self.encoding, (len(rows), self.k), numbers, rows, ())

    @property
    def encoding(self) -> str:
        return str(BLOCKS[self.tensors[0][0]].encoding)


@dataclass
class Weights:
    """A checkpoint of such matrices. is_read: they are given as arrays alone."""

    matrices: Mapping[str, Matrix]
    is_read: bool
    read: list[str] = field(default_factory=list)

    @property
    def encodings(self) -> Mapping[str, str]:
        return {name: matrix.encoding for name, matrix in self.matrices.items()}

    def encoded(self, name: str) -> Encoded:
        self.read.append(name)
        return self.matrices[name].encoded()

    def blocks(self, name: str) -> Blocks | None:
        return None if self.is_read else self.matrices[name].blocks()


def tensor_of(kind: str, n: int, k: int, seed: int) -> NDArray[np.uint8]:
    """Any bits but for the scales, numbers of both signs and all sizes; in memory that nothing aligns, whose end is
    that of its allocation."""
    rng = np.random.default_rng(seed)
    count = n * k // BLOCKS[kind].size
    size = np.exp2(rng.integers(-30, 10, (2, count)))
    blocks = scaled(kind, random_blocks(kind, count, rng), rng.standard_normal((2, count)) * size)
    if kind == "MXFP4":
        blocks[:, 0] = rng.integers(0, 255, count)
    return np.concatenate([np.zeros(1, np.uint8), blocks.reshape(-1)])[1:].reshape(n, -1)


def panels_of(weights: Weights, k: int, *segments: RowSegment) -> tuple[list[int], NDArray[np.uint8]]:
    """The bytes written one by one, and what they are."""
    definition = ConstantDef(segments)
    name = next(iter(weights.encodings.values()))
    out = Guarded.poisoned((-(-definition.num_rows // PANEL) * _native.panel_bytes(name, k) // 4,), "float32")
    constant = PackedConstant("c", f"p64.{name}", definition.num_rows, k, out.stored.nbytes, definition)
    done = [num_bytes for _, num_bytes in pack_encoded(pool(2), constant, weights, out.address)]
    out.check_guards()
    return done, out.stored.view(np.uint8)


def check(matrices: Mapping[str, Matrix], *segments: RowSegment) -> list[int]:
    k = next(iter(matrices.values())).k
    lying = Weights(matrices, is_read=False)
    done, found = panels_of(lying, k, *segments)
    _, wanted = panels_of(Weights(matrices, is_read=True), k, *segments)
    assert not lying.read and sum(done) == found.nbytes
    np.testing.assert_array_equal(found, wanted)
    return done


def test_the_types_that_are_packed_where_they_lie() -> None:
    wanted = {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4"}
    assert wanted <= set(KINDS)
    assert not _native.packs_blocks(TYPE_NUMBERS["Q4_K"], 256, "int4.g32.affine")
    assert not _native.packs_blocks(TYPE_NUMBERS["Q4_K"], 128, "q4_k")  # no whole block
    with pytest.raises(ValueError, match="such blocks are not packed to q5_k"):
        _native.pack_blocks(pool(1), np.ones(64, np.uint64), np.full(64, 12, np.uint8), 256, "q5_k", 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blocks", [1, 3])
def test_panels_are_those_of_the_arrays(kind: str, blocks: int) -> None:
    """Rows in any order, a tail of no whole four, and rows of zeros between."""
    k = blocks * BLOCKS[kind].size
    matrices = {name: Matrix([(kind, tensor_of(kind, n, k, n))], k, np.random.default_rng(n).permutation(n))
                for name, n in (("a", 75), ("b", 9))}  # fmt: skip
    check(matrices, RowSegment("a", 3, 75), RowSegment(None, 0, 5), RowSegment("b", 0, 7))


@pytest.mark.parametrize("kinds", [("Q8_0", "Q5_0"), ("Q4_1", "Q4_1"), ("Q6_K", "Q6_K")])
def test_tensors_of_several_types_one_below_the_other(kinds: tuple[str, str]) -> None:
    """Also in one line of columns: rows of two types, dealt out."""
    k = 512
    tensors = [(kind, tensor_of(kind, 40, k, seed)) for seed, kind in enumerate(kinds)]
    order = np.random.default_rng(1).permutation(80)
    check({"a": Matrix(tensors, k, order)}, RowSegment("a", 0, 80))


def test_slices_are_whole_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SLICE_BYTES", 1)
    matrix = Matrix([("Q4_K", tensor_of("Q4_K", 150, 256, 1))], 256, np.arange(150))
    assert check({"a": matrix}, RowSegment("a", 0, 150)) == [_native.panel_bytes("q4_k", 256)] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [0x7C00, 0xFE01])
def test_a_scale_that_is_not_finite_is_named(kind: str, bits: int) -> None:
    """By the tensor that has it, of two in a constant."""
    k = 2 * BLOCKS[kind].size
    matrices = {name: Matrix([(kind, tensor_of(kind, 70, k, 1))], k, np.arange(70)) for name in "ab"}
    blocks = matrices["b"].tensors[0][1].reshape(-1, BLOCKS[kind].num_bytes)
    if kind == "MXFP4":
        blocks[2 * 37 + 1, 0] = 255
    else:
        blocks[2 * 37 + 1] = scaled(kind, blocks[2 * 37 + 1 :][:1], np.array([bits], "<u2").view("<f2"))[0]
    weights = Weights(matrices, is_read=False)
    with pytest.raises(WeightMismatch, match=r"tensor 'w' holds -?(inf|nan).*finite"):
        panels_of(weights, k, RowSegment("a", 0, 70), RowSegment("b", 0, 70))
    assert weights.read == ["b"]
    done, _ = panels_of(weights, k, RowSegment("b", 0, 37))  # the row is not there
    assert len(done) == 1
