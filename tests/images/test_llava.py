"""LLaVA's pictures against transformers' processor, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
clip = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")

#: Files of the images and of the processor -> of the tower and of the whole.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "of LLaVA 1.5": (
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "do_center_crop": True}
        | {"image_processor_type": "CLIPImageProcessor", "resample": 3},
        {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
        {"vision_config": {"image_size": 336, "patch_size": 14}, "image_seq_length": 576},
    ),
    "larger than its tile, odd, with the class": (
        {"size": {"shortest_edge": 41}, "crop_size": {"height": 30, "width": 30}, "image_mean": [0.1, 0.2, 0.3]},
        {"patch_size": 5, "vision_feature_select_strategy": "full", "num_additional_image_tokens": 1},
        {"vision_config": {"image_size": 30, "patch_size": 5}, "vision_feature_select_strategy": "full"},
    ),
}
_OF_1_5, _ODD = SETTINGS


def processor_of(settings: str) -> Any:
    """transformers' own, with a tokenizer of words."""
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "<image>": 1}, unk_token="[UNK]"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]")
    image, processor, _ = SETTINGS[settings]
    return transformers.LlavaProcessor(clip.CLIPImageProcessorPil(**image), tokenizer, **processor)


def read(directory: Path, settings: str, **changes: Any) -> Any:
    """Args: changes: keys of config.json that differ."""
    image, processor, config = SETTINGS[settings]
    return opened(directory, {"model_type": "llava", **config, **changes}, image, processor)


@pytest.mark.parametrize(
    ("settings", "name"), [(_OF_1_5, name) for name in SIZES] + [(_ODD, name) for name in (*SIZES, *LONG)]
)
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    ours, theirs, image = read(tmp_path, settings), processor_of(settings), picture(*(SIZES | LONG)[name])
    inputs, texts = theirs._process_images([[image]])
    tiles = [np.asarray(each) for each in inputs["pixel_values"]]
    assert_prepared(ours, ours.prepare(as_image(image)), tiles, texts[0])


def test_a_line_is_made_no_longer_than_memory_allows(tmp_path: Path) -> None:
    (tile,) = read(tmp_path, _OF_1_5).prepare(picture(1, 30_000)).tiles
    assert tile.shape == (336, 336, 3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"vision_config": {"image_size": 224, "patch_size": 14}}, "crop_size is 336, but .* has image_size=224"),
        ({"vision_config": {"image_size": 336, "patch_size": 16}}, "patch_size is 14, but .* has patch_size=16"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy=default .*gives, 577 rows of 336"),
    ],
)
def test_a_tower_of_another_checkpoint_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        read(tmp_path, _OF_1_5, **changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"do_center_crop": False}, "'do_center_crop': False"),
        ({"do_pad": True}, "do_pad=True is not supported; pictures are cut to squares"),
        ({"crop_size": {"height": 30, "width": 20}}, "crop_size=.* a square within size.shortest_edge=41"),
        ({"crop_size": {"height": 42, "width": 42}}, "crop_size=.* a square within size.shortest_edge=41"),
        ({"image_processor_type": "LlavaNextImageProcessor"}, "LlavaNextImageProcessor"),
    ],
)
def test_pictures_that_are_read_otherwise_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    image, processor, config = SETTINGS[_ODD]
    with pytest.raises(UnsupportedModel, match=told):
        opened(tmp_path, {"model_type": "llava", **config}, image | changes, processor)
