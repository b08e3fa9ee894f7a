"""Blocks of GGUF against the gguf package: random bytes of every type, and its own quantization where it has one."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.encodings import encoding
from albireo.errors import WeightMismatch
from albireo.quantization.formats.gguf_blocks import BLOCKS, TYPE_NAMES, read_blocks
from quantization.formats.gguf_random import random_blocks, scaled

gguf = pytest.importorskip("gguf")
KINDS = [name for name, block in BLOCKS.items() if block.encoding]
#: Of llama.cpp, younger than the package, or than what it can decode: block, bytes, by the numbers of codes.
YOUNGER = {"Q1_0": (128, 18, (-1, 1)), "Q2_0": (64, 18, (-1, 0, 1, 2))}


def blocks_of(kind: str, n: int, k: int, seed: int) -> np.ndarray:
    """Any bits but for the scales, which are ordinary numbers of both signs."""
    rng = np.random.default_rng(seed)
    count = n * k // BLOCKS[kind].size
    blocks = scaled(kind, random_blocks(kind, count, rng), rng.standard_normal((2, count)) * 0.05)
    if kind == "MXFP4":
        blocks[:, 0] = rng.integers(100, 150, count)
    return blocks.reshape(n, -1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in YOUNGER])
def test_any_bits_are_read_as_the_library_reads_them(kind: str) -> None:
    n, k = 6, 768
    data = blocks_of(kind, n, k, 3)
    wanted = gguf.dequantize(data, gguf.GGMLQuantizationType[kind])
    matrix = read_blocks(kind, data, (n, k), "w")
    assert matrix.encoding == encoding(BLOCKS[kind].encoding or "")
    np.testing.assert_array_equal(matrix.decode(), wanted)
    if matrix.encoding.kind == "integer":
        assert not (matrix.scale.view(np.uint32) & 0xFF).any()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "TQ1_0", "TQ2_0"])
def test_the_librarys_own_quantization(kind: str) -> None:
    weight = np.random.default_rng(1).standard_normal((8, 256 if kind.startswith("TQ") else 96)).astype(np.float32)
    number = gguf.GGMLQuantizationType[kind]
    data = gguf.quantize(weight, number)
    matrix = read_blocks(kind, data, weight.shape, "w")
    np.testing.assert_array_equal(matrix.decode(), gguf.dequantize(data, number))
    if kind.startswith("TQ"):  # the largest number of 256, with a sign or without one number at all
        assert (np.abs(matrix.decode()).max(axis=1) == np.abs(weight).max(axis=1).astype(np.float16)).all()
    else:
        assert np.abs(matrix.decode() - weight).max() < 0.35


@pytest.mark.parametrize("kind", YOUNGER)
def test_a_float16_times_one_of_a_few_numbers(kind: str) -> None:
    """By what ggml-common.h says of them: a scale, then codes one behind the other, the lowest bits of a byte first."""
    size, num_bytes, numbers = YOUNGER[kind]
    data, bits = blocks_of(kind, 4, 2 * size, 7), size // (num_bytes - 2)
    assert (BLOCKS[kind].size, BLOCKS[kind].num_bytes) == (size, num_bytes)
    wanted = []
    for block in data.reshape(-1, num_bytes).tolist():
        scale = np.frombuffer(bytes(block[:2]), "<f2")[0].astype(np.float32)
        word, width = int.from_bytes(bytes(block[2:]), "little"), 8 // bits
        wanted.append([scale * np.float32(numbers[(word >> (width * i)) & (2**width - 1)]) for i in range(size)])
    got = read_blocks(kind, data, (4, 2 * size), "w").decode()
    np.testing.assert_array_equal(got, np.array(wanted, np.float32).reshape(4, -1))


def test_a_factor_beside_a_matrix() -> None:
    """Of NVFP4, in float32."""
    data, factor = blocks_of("NVFP4", 4, 128, 8), np.array([0.375], np.float32)
    number = gguf.GGMLQuantizationType["NVFP4"]
    got = read_blocks("NVFP4", data, (4, 128), "w", factor)
    np.testing.assert_array_equal(got.decode(), gguf.dequantize(data, number) * factor)
    with pytest.raises(WeightMismatch, match="'w' holds inf"):
        read_blocks("NVFP4", data, (4, 128), "w", np.array([np.inf], np.float32))


def test_sizes_and_numbers_of_types_are_the_librarys() -> None:
    theirs = {kind.name: (int(kind), *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    for number, name in TYPE_NAMES.items():
        assert theirs[name][0] == number if name != "Q2_0" else number == 42
    for name, block in BLOCKS.items():
        if name == "Q2_0":
            continue
        assert theirs[name][1:] == (block.size, block.num_bytes)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "NVFP4"])
@pytest.mark.parametrize("bits", [0x7C00, 0x7E01, 0xFC00])
def test_a_scale_that_is_not_finite_is_named(kind: str, bits: int) -> None:
    blocks = blocks_of(kind, 2, 256, 5).reshape(-1, BLOCKS[kind].num_bytes)
    if kind == "MXFP4":
        blocks[1, 0] = 255
    else:
        blocks[1] = scaled(kind, blocks[1:2], np.array([bits], "<u2").view("<f2"))
    with pytest.raises(WeightMismatch, match=r"tensor 'w' holds -?(inf|nan).*finite"):
        read_blocks(kind, blocks.reshape(2, -1), (2, 256), "w")


def test_what_a_type_costs_is_said() -> None:
    """Where a weight takes half as much again as in the file, or more."""
    assert BLOCKS["TQ1_0"].note == "the numbers are kept, in 4.25 bits each instead of 1.69"
    assert {kind for kind in BLOCKS if not BLOCKS[kind].note} == {
        "F32", "F16", "BF16", "I32", "Q8_0", "Q4_0", "Q4_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "MXFP4",
        "NVFP4",
        "IQ3_S", "IQ3_XXS", "IQ2_S",
    }  # fmt: skip
