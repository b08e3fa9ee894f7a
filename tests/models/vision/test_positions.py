"""Tables of positions resampled to grids, against torch; and what rotations are."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.models.blocks.rope import base_frequencies
from albireo.models.vision.positions import (
    center_weights,
    corner_weights,
    cubic_weights,
    places,
    resampled,
    rotations,
    smooth_weights,
)

torch = pytest.importorskip("torch")

#: Weights, and what torch calls the same.
KINDS = {
    "corners": (corner_weights, {"mode": "bilinear", "align_corners": True}),
    "smooth": (smooth_weights, {"mode": "bilinear", "align_corners": False, "antialias": True}),
    "centers": (center_weights, {"mode": "bilinear", "align_corners": False}),
    "cubic": (cubic_weights, {"mode": "bicubic", "align_corners": False}),
}
GRIDS = [(7, 7), (3, 12), (1, 5), (20, 2), (14, 33), (1, 1)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_resampled_table(grid: tuple[int, int], kind: str) -> None:
    table = np.random.default_rng(2).standard_normal((49, 10), np.float32)
    weights, rule = KINDS[kind]
    ours = resampled(table, *(weights(count, 7) for count in grid))
    square = torch.tensor(table).double().reshape(1, 7, 7, 10).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(square, size=grid, **rule)[0].permute(1, 2, 0)
    assert ours.shape == (*grid, 10) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=5e-6)


def test_a_table_of_its_own_size_stays() -> None:
    table = np.random.default_rng(3).standard_normal((49, 10), np.float32)
    for weights in (center_weights, corner_weights, smooth_weights):
        assert np.array_equal(resampled(table, weights(7, 7), weights(7, 7)).reshape(49, 10), table)


def test_cubic_weights_are_where_grid_sample_looks() -> None:
    """Of a table of its own size: that turns places to -1 .. 1 and back, which rounds."""
    table = np.random.default_rng(3).standard_normal((49, 10), np.float32)
    found = resampled(table, cubic_weights(7, 7), cubic_weights(7, 7)).reshape(49, 10)
    np.testing.assert_allclose(found, table, rtol=0, atol=5e-6)
    square = torch.tensor(table).reshape(1, 7, 7, 10).permute(0, 3, 1, 2)
    for grid in GRIDS:
        rows, columns = ((torch.arange(count) + 0.5) / count * 2 - 1 for count in grid)
        looked = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
        how = {"mode": "bicubic", "padding_mode": "border", "align_corners": False}
        theirs = torch.nn.functional.grid_sample(square, looked, **how)[0].permute(1, 2, 0)
        ours = resampled(table, *(cubic_weights(count, 7) for count in grid))
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=5e-6)


def test_rows_turn_the_first_pairs_and_columns_the_others() -> None:
    each = base_frequencies(10000.0, 6)
    np.testing.assert_allclose(each, [10000.0 ** (-2 * i / 6) for i in range(3)], rtol=1e-6)
    turned = rotations(places((2, 3)), each, each * 2)
    for patch, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]):
        angles = np.concatenate([row * each, column * each * 2]).astype(np.float64)
        np.testing.assert_allclose(turned[patch], np.concatenate([np.cos(angles), np.sin(angles)]), atol=1e-6)
