"""Gemma3's pictures against transformers' processor, bit for bit."""

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
gemma3 = pytest.importorskip("transformers.models.gemma3.image_processing_pil_gemma3")

PICTURES = {**SIZES, **LONG}
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {}),
    "of a checkpoint": (
        {"size": {"height": 896, "width": 896}, "do_convert_rgb": None, "do_pan_and_scan": None}
        | {"image_seq_length": 256, "pan_and_scan_max_num_crops": None},
        {"image_seq_length": 256},
    ),
    "small": (
        {"size": {"height": 60, "width": 60}, "image_mean": [0.1, 0.2, 0.3], "pan_and_scan_min_crop_size": 256},
        {"image_seq_length": 9},
    ),
}


def processor_of(settings: str) -> Any:
    """transformers' own, with a tokenizer of words."""
    names = ("<image_soft_token>", "<start_of_image>", "<end_of_image>")
    words = {word: i for i, word in enumerate(("[UNK]", *names))}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    marks = dict(zip(("image_token", "boi_token", "eoi_token"), names, strict=True))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, unk_token="[UNK]", extra_special_tokens=marks
    )
    held, processor = SETTINGS[settings]
    return transformers.Gemma3Processor(gemma3.Gemma3ImageProcessorPil(**held), tokenizer, **processor)


def config(settings: str) -> dict[str, Any]:
    held, processor = SETTINGS[settings]
    tower = {"image_size": held.get("size", {"height": 224})["height"]}
    return {
        "model_type": "gemma3",
        "vision_config": tower,
        "mm_tokens_per_image": processor.get("image_seq_length", 256),
    }


def assert_same(ours: Any, theirs: Any, image: Any) -> None:
    inputs, texts = theirs._process_images([[image]], do_pan_and_scan=False)
    assert_prepared(
        ours, ours.prepare(as_image(image)), [np.asarray(each) for each in inputs["pixel_values"]], texts[0]
    )


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        pytest.param(settings, name, marks=() if (i + j) % 2 == 0 else pytest.mark.thorough)
        for i, settings in enumerate(("defaults", "small"))
        for j, name in enumerate(PICTURES)
    ]
    + [("of a checkpoint", "ordinary")],
)
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    ours = opened(tmp_path, config(settings), *SETTINGS[settings])
    assert_same(ours, processor_of(settings), picture(*PICTURES[name]))


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    theirs = processor_of("small")
    theirs.save_pretrained(tmp_path)
    assert_same(opened(tmp_path, config("small")), theirs, picture(90, 200))


def test_names_of_the_prompt(tmp_path: Path) -> None:
    ours = opened(tmp_path, config("small"), *SETTINGS["small"])
    assert (ours.image_token, ours.placeholder) == ("<image_soft_token>", "<start_of_image>")
    assert ours.prepare(picture(9, 9)).text.count(ours.placeholder) == 1


def test_pan_and_scan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="do_pan_and_scan"):
        opened(tmp_path, config("small"), {**SETTINGS["small"][0], "do_pan_and_scan": True}, SETTINGS["small"][1])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mm_tokens_per_image": 16}, "image_seq_length is 9, but .* has mm_tokens_per_image=16"),
        ({"vision_config": {"image_size": 64}}, "size.height is 60, but .*vision_config has image_size=64"),
    ],
)
def test_a_tower_of_another_checkpoint_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        opened(tmp_path, config("small") | changes, *SETTINGS["small"])


def test_a_size_that_is_none_of_a_tile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="size: height is missing"):
        opened(tmp_path, {"model_type": "gemma3"}, {"size": {"longest_edge": 60}})
