"""The grids of GGUF's IQ types against those of the gguf package, point by point."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.quantization.formats.gguf_grids import grid

quants = pytest.importorskip("gguf.quants")


@pytest.mark.parametrize("kind", ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"])
def test_points_are_the_librarys(kind: str) -> None:
    theirs = getattr(quants, kind)
    theirs.init_grid()
    wanted = theirs.grid.reshape(theirs.grid_shape)
    np.testing.assert_array_equal(np.array(theirs.grid_map)[grid(kind)], wanted)
