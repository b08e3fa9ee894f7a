"""Slopes of heads against transformers' own."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.models.blocks.alibi import slopes_of, slopes_of_mpt
from tiny_models import parse_tiny


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 20, 32, 71, 112])
def test_slopes_equal_transformers(heads: int) -> None:
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    mpt = pytest.importorskip("transformers.models.mpt.modeling_mpt")
    np.testing.assert_allclose(slopes_of(heads), bloom._get_alibi_slopes(heads, "cpu").numpy(), rtol=1e-6)
    for span in (8, 16):
        # of two positions, what the first has
        theirs = -mpt.build_mpt_alibi_tensor(heads, 2, span).numpy()[:, 0, 0]
        np.testing.assert_allclose(slopes_of_mpt(heads, span), theirs, rtol=1e-6)


def test_falcons_are_divided_as_its_scores_are() -> None:
    assert parse_tiny("falcon").blocks.slopes == ()
    found = parse_tiny("falcon", alibi=True, hidden_size=64).blocks
    assert not found.has_rotation
    np.testing.assert_allclose(found.slopes, np.array(slopes_of(4)) / 4)
