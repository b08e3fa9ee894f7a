"""Ovis 2's pictures against transformers' processor, bit for bit; and the marks around their tiles."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvariantError, ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.images.ovis2 import Ovis2
from images.compared import opened
from images.pictures import LONG, SIZES, picture

pytest.importorskip("transformers")

from transformers.models.ovis2 import image_processing_pil_ovis2 as theirs
from transformers.models.ovis2.processing_ovis2 import Ovis2Processor

from in_turn import in_turn

_CONFIG = {"model_type": "ovis2", "vision_config": {"image_size": 64, "patch_size": 8, "hidden_stride": 2}}
_SIDE = {"size": {"height": 64, "width": 64}}
_WHOLE = {"processor_class": "Ovis2Processor", "image_seq_length": 16}
_CUT = {"crop_to_patches": True}


def ovis(folder: Path, **settings: Any) -> Ovis2:
    found = opened(folder, _CONFIG, {**_SIDE, **settings}, _WHOLE)
    assert isinstance(found, Ovis2)
    return found


@in_turn(
    ("settings", [{}, _CUT, _CUT | {"max_patches": 5}, _CUT | {"use_covering_area_grid": False, "min_patches": 2}]),
    ("name", (*SIZES, *LONG)),
)
def test_tiles_are_those_of_transformers(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    image, ours = as_image(picture(*(SIZES | LONG)[name])), ovis(tmp_path, **settings)
    found, prepared = theirs.Ovis2ImageProcessorPil(**_SIDE, **settings)([image]), ours.prepare(image)
    wanted = [np.asarray(each) for each in found["pixel_values"]]
    assert len(prepared.tiles) == len(wanted)
    for tile, each in zip(prepared.tiles, wanted, strict=True):
        np.testing.assert_array_equal(ours.normalized(tile)[:, :64].transpose(2, 0, 1), each)
    named = SimpleNamespace(image_seq_length=16)
    text = Ovis2Processor.replace_image_token(named, {"grids": [np.array(found["grids"][0])]}, 0)
    assert prepared.text == text
    tokens = text.count("<")
    assert sum(ours.rows(*tile.shape[:2]) for tile in prepared.tiles) == tokens


def test_grids_are_those_of_transformers(tmp_path: Path) -> None:
    ours = ovis(tmp_path, **_CUT)
    sizes = np.random.default_rng(0).integers(8, 700, (150, 2)).tolist()
    found = [ours.grid(*size) for size in sizes]
    assert found == [theirs.get_min_tile_covering_grid(tuple(size), 64, 12) for size in sizes]
    assert len(set(found)) > 15


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    theirs.Ovis2ImageProcessorPil(size={"height": 448, "width": 448}, crop_to_patches=True).save_pretrained(tmp_path)
    config = {"model_type": "ovis2", "vision_config": {"image_size": 448, "hidden_stride": 2}}
    ours = opened(tmp_path, config)
    assert (ours.largest_tile(), ours.rows(448, 448), ours.placeholder) == ((448, 448), 259, "<IMG_ATOM>")
    assert len(ours.prepare(as_image(picture(1200, 700))).tiles) > 4


def test_a_tile_that_says_no_marks(tmp_path: Path) -> None:
    ours = ovis(tmp_path)
    for width in (63, 69):
        with pytest.raises(InvariantError, match=f"a tile of 64 x {width} pixels says no marks around it"):
            ours.rows(64, width)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"size": {"height": 64, "width": 48}}, "tiles are squares"),
        ({"size": {"height": 48, "width": 48}}, "must be the 64 x 64 pixels of config.json's tower"),
        ({**_SIDE, "min_patches": 13}, "min_patches=13 must be at most max_patches=12"),
        ({**_SIDE, "image_processor_type": "GotOcr2ImageProcessor"}, "for this model: Ovis2ImageProcessor"),
        ({**_SIDE, "do_center_crop": True}, "'do_center_crop': True"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, _CONFIG, settings, _WHOLE)


def test_rows_of_a_tile_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="image_seq_length is 256, but of a tile of 64 x 64 pixels the tower"):
        opened(tmp_path, _CONFIG, _SIDE)
