"""VisionRunner: rows depend on the tile alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from albireo.backends.cpu.machine import isa_levels
from albireo.errors import InvariantError
from in_turn import in_turn
from tiny_towers import FAMILIES, opened, save, tiles


@in_turn(("dtype", ["float32", "bfloat16", "float16"]), ("name", FAMILIES))
def test_bits_do_not_depend_on_threads_nor_on_tiles_before(name: str, dtype: str, tmp_path: Path) -> None:
    given = [*tiles(name), *tiles(name, seed=2)]
    folder = save(tmp_path, name)
    runner = opened(folder, dtype)
    alone = [runner.rows(tile) for tile in given]
    assert all(np.isfinite(rows).all() for rows in alone)
    others = opened(folder, dtype, num_threads=3, max_patches=max(300, FAMILIES[name].max_patches + 100))
    for tile, rows in zip(reversed(given), reversed(alone), strict=True):
        assert np.array_equal(others.rows(tile), rows)
        assert np.array_equal(runner.rows(tile), rows)


@pytest.mark.parametrize("level", isa_levels())
def test_every_isa_level_gives_nearly_the_same_rows(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (tile,) = save(tmp_path, "idefics3"), tiles("idefics3")
    wanted = opened(folder).rows(tile)
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    assert np.linalg.norm(opened(folder).rows(tile) - wanted) < 3e-6 * np.linalg.norm(wanted)


def test_rows_are_the_callers_own(tmp_path: Path) -> None:
    runner, (first,), (second,) = opened(save(tmp_path, "smolvlm")), tiles("smolvlm"), tiles("smolvlm", seed=2)
    rows = runner.rows(first)
    kept = rows.copy()
    assert not np.array_equal(runner.rows(second), rows)
    assert np.array_equal(rows, kept) and rows.flags.writeable


def test_a_tile_larger_than_planned(tmp_path: Path) -> None:
    (tile,) = tiles("idefics3")
    with pytest.raises(InvariantError, match="a tile of 144 patches; memory is planned for 100"):
        opened(save(tmp_path, "idefics3"), max_patches=100).rows(tile)
