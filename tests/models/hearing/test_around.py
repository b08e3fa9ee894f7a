"""What lies around frames, as torch computes it in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.models.hearing.around import Around, gelu, normed


@pytest.mark.parametrize(("reach", "count"), [(16, 3), (16, 40), (7, 1), (19, 200)])
def test_a_convolution_in_groups(reach: int, count: int) -> None:
    made = np.random.default_rng(reach)
    weight, bias = made.normal(size=(12, 3, reach)), made.normal(size=12).astype(np.float32)
    frames = made.normal(size=(count, 12)).astype(np.float32)
    given = (torch.from_numpy(each.astype(np.float64)) for each in (frames.T[None], weight, bias))
    wanted = torch.nn.functional.conv1d(*given, padding=reach // 2, groups=4)[0, :, :count].T.numpy()
    np.testing.assert_allclose(Around.of(weight, bias, 4)(frames), wanted, atol=2e-5)


def test_what_stands_between() -> None:
    frames = np.linspace(-9.0, 9.0, 4096, dtype=np.float32).reshape(16, 256) ** 3 / 81
    exact = torch.from_numpy(frames.astype(np.float64))
    wanted = torch.nn.functional.gelu(exact).numpy()
    assert np.abs(gelu(frames) - wanted).max() < 1e-6 and np.abs(wanted).max() > 8
    wanted = torch.nn.functional.layer_norm(exact, (256,), eps=1e-5).numpy()
    np.testing.assert_allclose(normed(frames, 1e-5), wanted, atol=1e-6)
