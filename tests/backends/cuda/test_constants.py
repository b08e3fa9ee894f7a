"""Constants come to a device as a checkpoint has them: types, rows, columns, encodings; in the bytes planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from albireo.backends.cuda.constants import place_constants
from albireo.backends.cuda.encoded_matrix import empty_matrix
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.rope_table import rope_table
from albireo.compiler.layouts import packed_bytes
from albireo.dtypes import COMPUTE_DTYPES
from albireo.encodings import ENCODINGS, encoding
from albireo.errors import WeightMismatch
from albireo.graph.node import ConstantDef, RowSegment
from albireo.graph.ops import RopeSpec
from albireo.graph.program import PackedConstant
from albireo.models.checkpoint.safetensors_file import RawTensor
from albireo.quantization.encoded import Encoded
from albireo.quantization.nested import plain
from albireo.quantization.rounding import round_weights
from backends.cuda.encoded import as_encoded, decoded, random_encoded
from backends.cuda.linears import random

CPU = torch.device("cpu")
WITHOUT_NESTS = [name for name, e in ENCODINGS.items() if not e.is_nested]


@dataclass
class Weights:
    """A checkpoint in memory; tensors lie where nothing aligns them."""

    numbers: Mapping[str, torch.Tensor]
    coded: Mapping[str, Encoded] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)

    @property
    def encodings(self) -> Mapping[str, str]:
        return {name: item.encoding.name for name, item in self.coded.items()}

    def tensor(self, name: str) -> RawTensor:
        tensor = self.numbers[name]
        data = np.concatenate([np.zeros(1, np.uint8), tensor.contiguous().view(torch.uint8).numpy().reshape(-1)])[1:]
        dtype = str(tensor.dtype).removeprefix("torch.")
        return RawTensor(name, dtype, tuple(tensor.shape), data.data, data.ctypes.data)

    def encoded(self, name: str) -> Encoded:
        return self.coded[name]

    def release(self, name: str) -> None:
        self.released.append(name)


def load(constant: PackedConstant, weights: Weights, slice_bytes: int = 1 << 20) -> DeviceMatrix | torch.Tensor:
    done: list[int] = []
    matrices, vectors = place_constants({constant.name: constant}, weights, CPU, done.append, slice_bytes)
    assert sum(done) == constant.num_bytes
    return (matrices | vectors)[constant.name]


def matrix_of(packing: str, cols: int, *segments: RowSegment, columns: tuple[int, int] | None = None) -> PackedConstant:
    definition = ConstantDef(segments, columns)
    rows = definition.num_rows
    return PackedConstant("w", packing, rows, cols, packed_bytes(packing, rows, cols), definition)


@pytest.mark.parametrize("name", [*COMPUTE_DTYPES, *ENCODINGS])
@pytest.mark.parametrize(("rows", "cols"), [(5, 7), (64, 128), (3, 200)])
def test_the_memory_plan_knows_the_bytes(name: str, rows: int, cols: int) -> None:
    matrix = empty_matrix(name, rows, cols, CPU)
    parts = (matrix.codes, matrix.scale, matrix.zero, matrix.offset, matrix.gamma)
    held = sum(part.numel() * part.element_size() for part in parts if part is not None)
    assert held == packed_bytes(f"row.{name}", rows, cols)


@pytest.mark.parametrize("source", COMPUTE_DTYPES)
@pytest.mark.parametrize("target", COMPUTE_DTYPES)
def test_rows_are_gathered_and_rounded(source: str, target: str) -> None:
    a, b = (random(9, 6, seed=seed, dtype=getattr(torch, source)) for seed in (1, 2))
    constant = matrix_of(f"row.{target}", 6, RowSegment("b", 2, 9), RowSegment(None, 0, 3), RowSegment("a", 0, 1))
    weights = Weights({"a": a, "b": b})
    found = load(constant, weights, slice_bytes=40)
    wanted = torch.cat([b[2:], torch.zeros(3, 6), a[:1]]).to(getattr(torch, target))
    assert isinstance(found, DeviceMatrix) and found.dtype == target
    assert torch.equal(found.codes, wanted)
    assert set(weights.released) == {"a", "b"}


def test_a_rank_takes_its_columns() -> None:
    a = random(4, 10, seed=1)
    found = load(matrix_of("row.bfloat16", 3, RowSegment("a", 0, 4), columns=(4, 7)), Weights({"a": a}))
    assert isinstance(found, DeviceMatrix)
    assert torch.equal(found.codes, a[:, 4:7].to(torch.bfloat16))


def test_vectors_and_rotation_tables_are_float32() -> None:
    a = random(6, seed=1, dtype=torch.float16)
    definition = ConstantDef((RowSegment("a", 2, 6), RowSegment(None, 0, 2)))
    found = load(PackedConstant("v", "row.float32", 1, 6, 24, definition), Weights({"a": a}))
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, torch.cat([a[2:].float(), torch.zeros(2)]))
    spec = RopeSpec((1.0, 0.25, 0.01), 1.5)
    table = load(PackedConstant("rope", "rope", 11, 6, 11 * 24, rope=spec), Weights({}))
    assert isinstance(table, torch.Tensor) and table.shape == (11, 2, 3)
    wanted = rope_table(spec, np.arange(11, dtype=np.int32))
    assert np.array_equal(table[:, 0].numpy(), wanted[:, :, 0]) and np.array_equal(table[:, 1].numpy(), wanted[:, :, 1])


@pytest.mark.parametrize("name", [name for name in WITHOUT_NESTS if encoding(name).kind != "affine"])
def test_numbers_are_rounded_on_the_way(name: str) -> None:
    a = random(70, 100, seed=1, dtype=torch.bfloat16) * torch.logspace(-3, 2, 70)[:, None].to(torch.bfloat16)
    a[8], a[9], a[10, 0] = 0, 1e-41, 3e38
    a[11], a[12, ::2], a[13, 1::2] = torch.arange(-50, 50) / 2, 0, -0.0  # ties, and zeros of both signs
    constant = matrix_of(f"row.{name}", 100, RowSegment("a", 5, 70), RowSegment(None, 0, 2))
    found = load(constant, Weights({"a": a}), slice_bytes=4096)
    assert isinstance(found, DeviceMatrix) and found.dtype == name
    wanted = round_weights(a[5:].float().numpy(), encoding(name)).decode()
    numbers = decoded(found)
    assert np.array_equal(numbers[:65], wanted)
    assert not numbers[65:].any()


@pytest.mark.parametrize("name", ENCODINGS)
def test_encoded_matrices_keep_their_codes(name: str) -> None:
    e = encoding(name)
    coded = {key: random_encoded(e, 40, 96, seed) for seed, key in enumerate(("a", "b"))}
    constant = matrix_of(f"row.{name}", 96, RowSegment("b", 0, 40), RowSegment("a", 3, 9))
    found = load(constant, Weights({}, coded), slice_bytes=2000)
    assert isinstance(found, DeviceMatrix)
    wanted = np.concatenate([coded["b"].decode(), coded["a"].decode()[3:9]])
    if e.is_nested:
        kept = as_encoded(found)
        for part in ("codes", "scale", "zero", "gamma", "offset"):
            arrays = [getattr(coded[key], part) for key in ("b", "a")]
            if arrays[0] is None:
                assert getattr(kept, part) is None
            else:
                assert np.array_equal(getattr(kept, part), np.concatenate([arrays[0], arrays[1][3:9]])), part
    if name.startswith("int8.g"):  # affine: codes are signed on a device, and zero points need not leave them 8 bits
        assert found.dtype == f"int8.g{e.group}.affine"
        scale = np.concatenate([coded["b"].scale, coded["a"].scale[3:9]])
        size = np.abs(wanted) + 512 * np.abs(np.repeat(scale, e.group or 1, 1)[:, :96])
        assert (np.abs(decoded(found) - wanted) <= 2.0**-23 * size).all()
    else:
        assert found.dtype == name
        assert np.array_equal(decoded(found), wanted)


@pytest.mark.parametrize("name", [name for name, e in ENCODINGS.items() if e.is_nested])
def test_nested_matrices_lose_their_nests_where_ranks_cut_them(name: str) -> None:
    nested = random_encoded(encoding(name), 40, 512, seed=1)
    nested.gamma[:] = nested.gamma % 64 + (96 if name == "q3_k" else 0)  # as many bits as files have
    held = plain(nested).encoding.name
    found = load(matrix_of(f"row.{held}", 256, RowSegment("a", 3, 40), columns=(256, 512)), Weights({}, {"a": nested}))
    assert isinstance(found, DeviceMatrix) and found.dtype == held
    wanted = nested.decode()[3:, 256:]
    np.testing.assert_allclose(decoded(found), wanted, rtol=2**-16, atol=2**-14 * np.abs(plain(nested).scale).max())
    with pytest.raises(WeightMismatch, match=f"wanted as int4.g64, the checkpoint has {{'a': '{name}'}}"):
        load(matrix_of("row.int4.g64", 512, RowSegment("a", 0, 40)), Weights({}, {"a": nested}))


def test_zero_points_that_leave_eight_bits_are_taken_off() -> None:
    e = encoding("int8.g32")
    coded = random_encoded(e, 8, 64, seed=1)
    coded = Encoded(e, (coded.codes % 100 + 60).astype(np.uint8), coded.scale, coded.zero % 100 + np.uint8(60))
    found = load(matrix_of("row.int8.g32", 64, RowSegment("a", 0, 8)), Weights({}, {"a": coded}))
    assert isinstance(found, DeviceMatrix) and found.dtype == "int8.g32" and found.offset is None
    assert np.array_equal(decoded(found), coded.decode())


def test_encodings_are_not_mixed() -> None:
    weights = Weights(
        {}, {"a": random_encoded(encoding("int4.g32"), 4, 64, 1), "b": random_encoded(encoding("int8"), 4, 64, 1)}
    )
    with pytest.raises(WeightMismatch, match="wanted as int8"):
        load(matrix_of("row.int8", 64, RowSegment("a", 0, 4), RowSegment("b", 0, 4)), weights)
