"""GOT-OCR's pictures against transformers' processor, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture

pytest.importorskip("transformers")

from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from in_turn import in_turn

_CONFIG = {"model_type": "got_ocr2", "vision_config": {"image_size": 96, "patch_size": 8}}
_SIDE = {"size": {"height": 96, "width": 96}}


@in_turn(("name", (*SIZES, *LONG)))
def test_tiles_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    theirs, image = GotOcr2ImageProcessorPil(**_SIDE), as_image(picture(*(SIZES | LONG)[name]))
    found, ours = theirs([image], crop_to_patches=False), opened(tmp_path, _CONFIG, _SIDE)
    assert_prepared(ours, ours.prepare(image), [np.asarray(found["pixel_values"][0])], "<imgpad>" * 9)


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    GotOcr2ImageProcessorPil(size={"height": 1024, "width": 1024}).save_pretrained(tmp_path)
    ours = opened(tmp_path, {"model_type": "got_ocr2", "vision_config": {}})
    assert (ours.largest_tile(), ours.rows(1024, 1024), ours.placeholder) == ((1024, 1024), 256, "<imgpad>")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"size": {"height": 96, "width": 88}}, "tiles are squares"),
        ({"size": {"height": 88, "width": 88}}, "size is 88, but .* has image_size=96"),
        ({**_SIDE, "image_processor_type": "Idefics3ImageProcessor"}, "for this model: GotOcr2ImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, _CONFIG, settings)
