"""The processor of GLM-4V and GLM-OCR against transformers', bit for bit: its patches put together again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import SIZES, picture
from images.test_qwen2_vl import config, put_together

pytest.importorskip("transformers")

from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.glm4v.processing_glm4v import Glm4vProcessor
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil

from in_turn import in_turn

#: model_type, class of transformers, and what its file holds. Pixels are those of two frames.
SETTINGS: dict[str, tuple[str, type, dict[str, Any]]] = {
    "defaults": ("glm4v", Glm4vImageProcessorPil, {}),
    "few pixels": ("glm4v_moe", Glm4vImageProcessorPil, {"size": {"shortest_edge": 3136, "longest_edge": 90_000}}),
    "many pixels": ("glm_ocr", Glm46VImageProcessorPil, {"size": {"shortest_edge": 99_999, "longest_edge": 400_000}}),
    "merged by three": ("glm46v", Glm46VImageProcessorPil, {"merge_size": 3, "patch_size": 8, "resample": 2}),
    "three frames": ("glm4v", Glm46VImageProcessorPil, {"temporal_patch_size": 3, "patch_size": 7}),
}


def put_beside(tmp_path: Path, settings: str, image: Any) -> None:
    model_type, kind, held = SETTINGS[settings]
    theirs = kind(**held)
    found = theirs([image])
    whole = SimpleNamespace(image_processor=theirs, image_token="<|image|>")
    text = Glm4vProcessor.replace_image_token(whole, found, 0)
    ours = opened(tmp_path, config(model_type, held), held)
    assert_prepared(ours, ours.prepare(as_image(image)), [put_together(found, theirs)], text)


@in_turn(("settings", SETTINGS), ("name", SIZES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    put_beside(tmp_path, settings, picture(*SIZES[name]))


@pytest.mark.parametrize(
    ("width", "height"), [(1, 200), (3, 29), (27, 27), (11, 2200), (14, 2800), (2800, 14), (29, 3), (28, 28), (28, 27)]
)
def test_pictures_at_the_edge_are_those_of_transformers(tmp_path: Path, width: int, height: int) -> None:
    """Smaller than what becomes a row, as long as is allowed, or both."""
    put_beside(tmp_path, "defaults", picture(width, height))


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    Glm46VImageProcessorPil(**SETTINGS["many pixels"][2]).save_pretrained(tmp_path)
    ours, plain = opened(tmp_path, {"model_type": "glm_ocr"}), tmp_path / "plain"
    theirs = opened(plain, {"model_type": "glm_ocr"}, SETTINGS["many pixels"][2])
    image = picture(90, 200)
    assert (ours.prepare(image).tiles[0] == theirs.prepare(image).tiles[0]).all()
    assert (ours.image_token, ours.placeholder) == ("<|image|>", "<|image|>")


def test_no_tile_is_larger_than_the_largest(tmp_path: Path) -> None:
    """Of so many pixels, which two frames share."""
    ours = opened(tmp_path, {"model_type": "glm4v"}, {"size": {"shortest_edge": 784, "longest_edge": 80_000}})
    largest = ours.rows(*ours.largest_tile())
    assert largest == 80_000 // 2 // 28**2
    for width, height in ((500, 500), (900, 300), (40, 2000), (28, 1400)):
        assert ours.prepare(picture(width, height)).text.count("<|image|>") <= largest


@pytest.mark.parametrize(("width", "height"), [(1, 201), (3, 2000), (2000, 3)])
def test_pictures_that_transformers_refuses_are_refused(tmp_path: Path, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="aspect ratio"):
        Glm4vImageProcessorPil()([picture(width, height)])
    with pytest.raises(InvalidParams, match=f"{width} x {height} pixels is too long in one direction: at most 200 to"):
        opened(tmp_path, {"model_type": "glm4v"}, {}).prepare(picture(width, height))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "for this model: Glm4vImageProcessor, Glm46VImage"),
        ({"size": {"height": 9, "width": 9}}, "size: shortest_edge is missing"),
        ({"do_rescale": False}, "'do_rescale': False"),
        # which transformers' class does not ask
        ({"max_pixels": 3136}, "'max_pixels': 3136"),
        ({"patch_expand_factor": 2}, "'patch_expand_factor': 2"),
        ({"merge_size": 3}, "merge_size is 3, but .*spatial_merge_size=2"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=words):
        opened(tmp_path, {"model_type": "glm4v", "vision_config": {"spatial_merge_size": 2}}, settings)
