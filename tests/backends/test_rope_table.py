"""The rope table against transformers' rotary embedding, near and far."""

from __future__ import annotations

import math

import numpy as np
import pytest

from albireo.backends.rope_table import rope_table
from albireo.graph.ops import RopeSpec


def test_table_equals_transformers_at_every_distance() -> None:
    torch = pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(
        hidden_size=128,
        num_attention_heads=1,
        rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0},
        max_position_embeddings=2**17,
    )
    rotary = llama.LlamaRotaryEmbedding(config)
    positions = np.int32([0, 1, 2, 17, 4095, 65535, 131071])
    cos, sin = rotary(torch.zeros(1), torch.from_numpy(positions)[None])
    spec = RopeSpec(tuple(rotary.inv_freq.tolist()), rotary.attention_scaling)
    table = rope_table(spec, positions)
    assert table.shape == (7, 64, 2) and table.dtype == np.float32
    np.testing.assert_allclose(table[:, :, 0], cos[0, :, :64].numpy(), rtol=0, atol=2e-7)
    np.testing.assert_allclose(table[:, :, 1], sin[0, :, :64].numpy(), rtol=0, atol=2e-7)


def test_attention_factor_multiplies_both() -> None:
    plain, doubled = (rope_table(RopeSpec((1.0, 0.5), f), np.int32([3])) for f in (1.0, 2.0))
    np.testing.assert_array_equal(doubled, 2 * plain)


def test_cosines_are_exact_after_the_one_rounding_of_the_angle() -> None:
    inv_freq, positions = (1.0, 0.31622776, 0.001), np.arange(0, 100_000, 997, dtype=np.int32)
    table = rope_table(RopeSpec(inv_freq), positions)
    for row, position in zip(table, positions, strict=True):
        for (cos, sin), frequency in zip(row, inv_freq, strict=True):
            angle = float(np.float32(position) * np.float32(frequency))
            assert cos == np.float32(math.cos(angle)) and sin == np.float32(math.sin(angle))


def test_a_pair_that_never_turns_is_not_multiplied() -> None:
    table = rope_table(RopeSpec((1.0, 0.0), 1.5), np.int32([0, 7]))
    np.testing.assert_array_equal(table[:, 1], [[1.0, 0.0]] * 2)
    assert table[0, 0, 0] == 1.5
