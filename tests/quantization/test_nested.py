"""Nested encodings as those without nests: the same numbers, where a float32 of 16 bits can hold their scales."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.encodings import ENCODINGS, NEST, encoding, plain_encoding
from albireo.errors import InvariantError
from albireo.quantization.encoded import Encoded
from albireo.quantization.formats.gguf_blocks import BLOCKS, read_blocks
from albireo.quantization.nested import held_as, is_held_as, plain
from quantization.formats.gguf_random import random_blocks, scaled

#: Bits that a number of a grid is held in.
GRIDS = {"iq3_xxs": 4.3125, "iq3_s": 4.3125, "iq2_xxs": 3.3125, "iq2_s": 3.5625, "iq1_s": 3.3125, "iq1_m": 3.5625}
NESTED = [name for name, e in ENCODINGS.items() if e.is_nested]


def matrix_of(name: str, n: int = 4, k: int = 768) -> Encoded:
    kind, rng = name.upper(), np.random.default_rng(1)
    count = n * k // NEST
    blocks = scaled(kind, random_blocks(kind, count, rng), rng.standard_normal((2, count)) * 0.05)
    return read_blocks(kind, blocks.reshape(n, -1), (n, k), "w")


@pytest.mark.parametrize("name", NESTED)
def test_without_nests_the_numbers_are_the_same(name: str) -> None:
    nested = matrix_of(name)
    found = plain(nested)
    assert found.encoding == plain_encoding(nested.encoding) and not found.encoding.is_nested
    if name == "q6_k":  # a scale of 19 bits, rounded to 16
        np.testing.assert_allclose(found.decode(), nested.decode(), rtol=2**-16)
        assert not np.array_equal(found.decode(), nested.decode())
    else:
        np.testing.assert_array_equal(found.decode(), nested.decode())
    assert plain(found) is found


def test_the_one_number_of_q3_k_that_is_no_int8() -> None:
    """-4 times -32, which is 128: held with its sign turned."""
    blocks = np.zeros((1, 110), np.uint8)  # every code is -4, every scale -32
    nested = read_blocks("Q3_K", scaled("Q3_K", blocks, np.array([0.5])), (1, 256), "w")
    matrix = plain(nested)
    assert (matrix.codes == 0).all() and (matrix.scale == -0.5).all()
    np.testing.assert_array_equal(matrix.decode(), np.full((1, 256), 64.0, np.float32))
    np.testing.assert_array_equal(nested.decode(), matrix.decode())


def test_numbers_at_equal_distances_are_nibbles_without_nests() -> None:
    assert plain(matrix_of("iq3_s")).encoding.name == "int4.g32.affine"


@pytest.mark.parametrize("name", NESTED)
def test_columns_are_whole_nests(name: str) -> None:
    matrix = matrix_of(name)
    part = matrix.columns(NEST, 3 * NEST)
    np.testing.assert_array_equal(part.decode(), matrix.decode()[:, NEST:])
    np.testing.assert_array_equal(matrix.rows(1, 3).decode(), matrix.decode()[1:3])
    with pytest.raises(InvariantError, match="no whole groups"):
        matrix.columns(32, 3 * NEST)


def test_what_can_be_held_as_what() -> None:
    assert is_held_as("q4_k", "q4_k") and is_held_as("q4_k", "int4.g32.affine") and is_held_as("int8", "int8")
    assert not is_held_as("int4.g32.affine", "q4_k") and not is_held_as("numbers", "q4_k")
    matrix = matrix_of("q5_k")
    assert held_as(matrix, "q5_k") is matrix and held_as(matrix, "int8.g32.affine").encoding.bits == 8


def test_a_file_is_held_in_hardly_more_than_its_bits() -> None:
    for name in NESTED:
        block = BLOCKS[name.upper()]
        stored, held = 8 * block.num_bytes / block.size, 8 * encoding(name).bytes_per_weight
        if name in GRIDS:  # points of 8 or 4 numbers, whose codes we have one by one
            assert stored <= held <= GRIDS[name]
        else:
            assert stored <= held <= 1.04 * stored or (name == "q2_k" and held == 3.125)
