"""LightOnOCR's pictures against transformers' Pixtral, bit for bit, and its text against its own processor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import SIZES, picture

pytest.importorskip("transformers")

from transformers.models.lighton_ocr.processing_lighton_ocr import LightOnOcrProcessor
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from in_turn import in_turn

CONFIG = {"model_type": "lighton_ocr", "vision_config": {"patch_size": 14}, "spatial_merge_size": 2}
_SIDE = {"patch_size": {"height": 28, "width": 28}}
#: Of the image processor, and of the processor.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "of a checkpoint": ({"size": {"longest_edge": 1540}, **_SIDE}, {"patch_size": 14, "spatial_merge_size": 2}),
    "defaults": (_SIDE, {}),
    "small": ({"size": {"longest_edge": 200}, "patch_size": 28}, {"image_token": "<image>"}),
}


def by_transformers(image: Any, settings: str) -> tuple[np.ndarray, str]:
    """float32 [3, height, width] and the text."""
    held, processor = SETTINGS[settings]
    found = PixtralImageProcessorPil(**held)([image])
    whole = SimpleNamespace(effective_patch_size=28, image_token=processor.get("image_token", "<|image_pad|>"))
    return np.asarray(found["pixel_values"][0]), LightOnOcrProcessor.replace_image_token(whole, found, 0)


@in_turn(("settings", SETTINGS), ("name", SIZES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    image = picture(*SIZES[name])
    expected, text = by_transformers(image, settings)
    ours = opened(tmp_path, CONFIG, *SETTINGS[settings])
    assert_prepared(ours, ours.prepare(as_image(image)), [expected], text)


def test_files_that_have_the_side_of_a_patch_mean_what_becomes_a_row(tmp_path: Path) -> None:
    """As first published: Pixtral's processor, which read them, asked for no other side than that."""
    held = {"size": {"longest_edge": 1540}, "patch_size": 14, "image_processor_type": "PixtralImageProcessorFast"}
    tokens = {
        "image_token": "<|image_pad|>",
        "image_break_token": "<|vision_pad|>",
        "image_end_token": "<|vision_end|>",
    }
    ours = opened(tmp_path, CONFIG, held, {"processor_class": "LightOnOCRProcessor", "patch_size": 14, **tokens})
    image = picture(100, 200)
    expected, text = by_transformers(image, "of a checkpoint")
    assert_prepared(ours, ours.prepare(image), [expected], text)


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    PixtralImageProcessorPil(**SETTINGS["of a checkpoint"][0]).save_pretrained(tmp_path)
    ours, image = opened(tmp_path, CONFIG, processor=SETTINGS["of a checkpoint"][1]), picture(90, 200)
    expected, text = by_transformers(image, "of a checkpoint")
    assert_prepared(ours, ours.prepare(image), [expected], text)
    assert (ours.image_token, ours.placeholder) == ("<|image_pad|>", "<|image_pad|>")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "patch_size=16 is not supported; supported: 28, or 14"),
        ({"patch_size": {"height": 28, "width": 14}}, "patch_size=.*supported: 28, or 14"),
        ({"patch_size": 28, "do_center_crop": True}, "'do_center_crop': True"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        opened(tmp_path, CONFIG, settings)
