"""Idefics 2 against transformers' processors, bit for bit; and what stands around pictures of a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.media.images import ImagePlace
from albireo.api.media.places import Places
from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.models.vision.positions import stretched
from albireo.text.tokenizer import Tokenizer
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture
from in_turn import in_turn
from tiny_sights import save

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil  # noqa: E402

PICTURES = {**SIZES, **LONG, "large": (1500, 1100, "RGB"), "tall": (700, 1600, "RGB")}
SETTINGS: dict[str, dict[str, Any]] = {
    "of a checkpoint": {"size": {"longest_edge": 980, "shortest_edge": 378}, "do_image_splitting": True},
    "whole": {"size": {"longest_edge": 200, "shortest_edge": 40}, "do_image_splitting": False},
    "colours": {"size": {"longest_edge": 90, "shortest_edge": 14}, "image_mean": [0.1, 0.2, 0.3], "resample": 3},
}
MARK = "<fake_token_around_image>"


def config(count: int = 64) -> dict[str, Any]:
    vision = {"patch_size": 14, "image_size": 980}
    return {"model_type": "idefics2", "vision_config": vision, "perceiver_config": {"resampler_n_latents": count}}


@in_turn(("settings", SETTINGS), ("name", PICTURES))
def test_tiles_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    image, held = as_image(picture(*PICTURES[name])), SETTINGS[settings]
    ours = opened(tmp_path, config(), held)
    prepared = ours.prepare(image)
    if held.get("do_image_splitting") and min(image.size) < 2:
        assert len(prepared.tiles) == 1, "of a line transformers' processor cuts nothing, and fails"
        held = {**held, "do_image_splitting": False}
    found = Idefics2ImageProcessorPil(**held)([[image]], return_tensors="np")
    # each is filled up to the largest, which is the whole where one is larger than a quarter
    sizes = [(int(mask[:, 0].sum()), int(mask[0].sum())) for mask in found["pixel_attention_mask"][0]]
    tiles = [
        tile[:, :high, :wide].astype(np.float32)
        for tile, (high, wide) in zip(found["pixel_values"][0], sizes, strict=True)
    ]
    text = (f"{MARK}{'<image>' * 64}{MARK}" * len(tiles)).replace(MARK * 2, MARK)
    assert_prepared(ours, prepared, tiles, text)


@pytest.mark.parametrize(
    "text",
    [
        "<image>What is it?",
        "a<image>b",
        "<image><image>c",
        "a <image> b<image>\nc",
        "<image><image>",
        "<image><a",
        "<image>",
    ],
)
def test_what_stands_around_pictures_is_as_transformers_has_it(tmp_path: Path, text: str) -> None:
    """Of marks side by side one is left, and words behind one begin with a blank."""
    folder = save(tmp_path, "idefics2")
    ours = opened(folder, {**config(5), "vision_config": {"patch_size": 8, "image_size": 48}})
    tokenizer = Tokenizer.from_directory(folder)
    places = Places(tokenizer, ImagePlace(ours, lambda value: value))
    images = [as_image(picture(30, 20, "RGB"))] * text.count("<image>")
    ids, found = places.placed(tokenizer.encode(text, add_special_tokens=False), {"image": _given(images)})
    split = {"size": {"shortest_edge": 16, "longest_edge": 48}, "do_image_splitting": True}
    theirs = transformers.Idefics2Processor(
        Idefics2ImageProcessorPil(**split), transformers.AutoTokenizer.from_pretrained(folder), image_seq_len=5
    )
    wanted = theirs(text=text, images=images or None, add_special_tokens=False)["input_ids"][0]
    assert ids == wanted
    assert [sum(end - start for start, end in each.spans) for each in found] == [25] * len(images)


def _given(images: list[Any]) -> list[Any]:
    from albireo.image_input import GivenImage

    return [GivenImage(image) for image in images]


@pytest.mark.parametrize("side", [16, 32, 64, 70])
def test_positions_are_stretched_as_in_transformers(side: int) -> None:
    """Of Idefics 2, whose side is 70, of Phi-4 multimodal, 32, and of two more."""
    bounds = torch.arange(1 / side, 1.0, 1 / side)
    for own in range(1, side + 1):
        shares = torch.clamp(torch.arange(own, dtype=torch.float32) * (1.0 / torch.tensor(own)), max=(1.0 - 1e-6))
        assert stretched(own, own, side).tolist() == torch.bucketize(shares, bounds, right=True).tolist()


@pytest.mark.parametrize(
    ("settings", "processor", "told"),
    [
        ({"size": {"longest_edge": 1000, "shortest_edge": 378}}, {}, "sides of up to 980 pixels"),
        ({"size": {"longest_edge": 98, "shortest_edge": 378}}, {}, "sides of up to 980 pixels"),
        ({"size": {"longest_edge": 980, "shortest_edge": 13}}, {}, "and of a patch of 14 or more"),
        ({"size": {"height": 98, "width": 98}}, {}, "'height': 98|shortest_edge is missing"),
        ({}, {"image_seq_len": 32}, "image_seq_len is 32, but .* resampler_n_latents=64"),
        ({"do_resize": False}, {}, "'do_resize': False"),
        ({"image_processor_type": "CLIPImageProcessor"}, {}, "for this model: Idefics2ImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(
    tmp_path: Path, settings: dict[str, Any], processor: dict[str, Any], told: str
) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, config(), settings, processor)
