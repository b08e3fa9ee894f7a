"""Blocks of GGUF against the gguf package: random bytes of every type, and its own quantization where it has one."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.encodings import encoding
from albireo.errors import WeightMismatch
from albireo.quantization.formats.gguf_blocks import BLOCKS, TYPE_NAMES, read_blocks

gguf = pytest.importorskip("gguf")
KINDS = [name for name, block in BLOCKS.items() if block.encoding]


def random_blocks(kind: str, n: int, k: int, seed: int) -> np.ndarray:
    """Any bits but for the scales, which are ordinary float16 numbers of both signs."""
    rng = np.random.default_rng(seed)
    block = BLOCKS[kind]
    data = rng.integers(0, 256, (n * k // block.size, block.num_bytes)).astype(np.uint8)
    places = {"Q6_K": [208], "MXFP4": []}.get(kind, [0, 2] if kind in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else [0])
    for place in places:
        scales = (rng.standard_normal(len(data)) * 0.05).astype("<f2")
        data[:, place : place + 2] = scales[:, None].view(np.uint8)
    if kind == "MXFP4":
        data[:, 0] = rng.integers(100, 150, len(data))
    return data.reshape(n, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_any_bits_are_read_as_the_library_reads_them(kind: str) -> None:
    n, k = 6, 768
    data = random_blocks(kind, n, k, 3)
    wanted = gguf.dequantize(data, gguf.GGMLQuantizationType[kind])
    matrix = read_blocks(kind, data, (n, k), "w")
    assert matrix.encoding == encoding(BLOCKS[kind].encoding or "")
    if kind == "Q6_K":  # a scale of 19 bits, rounded to 16
        np.testing.assert_allclose(matrix.decode(), wanted, rtol=2**-16)
        assert not np.array_equal(matrix.decode(), wanted)
    else:
        np.testing.assert_array_equal(matrix.decode(), wanted)
    if matrix.zero is not None:
        assert not (matrix.scale.view(np.uint32) & 0xFF).any()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_the_librarys_own_quantization(kind: str) -> None:
    weight = np.random.default_rng(1).standard_normal((8, 96)).astype(np.float32)
    number = gguf.GGMLQuantizationType[kind]
    data = gguf.quantize(weight, number)
    matrix = read_blocks(kind, data, weight.shape, "w")
    np.testing.assert_array_equal(matrix.decode(), gguf.dequantize(data, number))
    assert np.abs(matrix.decode() - weight).max() < 0.35


def test_sizes_and_numbers_of_types_are_the_librarys() -> None:
    theirs = {kind.name: (int(kind), *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    for number, name in TYPE_NAMES.items():
        assert theirs[name][0] == number
    for name, block in BLOCKS.items():
        assert theirs[name][1:] == (block.size, block.num_bytes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [0x7C00, 0x7E01, 0xFC00])
def test_a_scale_that_is_not_finite_is_named(kind: str, bits: int) -> None:
    data = random_blocks(kind, 2, 256, 5)
    place = 208 if kind == "Q6_K" else 0
    blocks = data.reshape(-1, BLOCKS[kind].num_bytes)
    if kind == "MXFP4":
        blocks[1, 0] = 255
    else:
        blocks[1, place : place + 2] = np.array([bits], "<u2").view(np.uint8)
    with pytest.raises(WeightMismatch, match=r"tensor 'w' holds -?(inf|nan).*finite"):
        read_blocks(kind, data, (2, 256), "w")
