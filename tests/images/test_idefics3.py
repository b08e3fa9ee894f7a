"""Idefics3 and SmolVLM against transformers' processors, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture
from in_turn import in_turn

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

PICTURES = {**SIZES, **LONG}
#: Of other means for each channel than for the others.
SETTINGS: dict[str, dict[str, Any]] = {
    "small": {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}},
    "colours": {
        "size": {"longest_edge": 200},
        "max_image_size": {"longest_edge": 64},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.9, 0.8, 0.7],
        "resample": 3,
    },
    "whole": {"size": {"longest_edge": 101}, "max_image_size": {"longest_edge": 64}, "do_image_splitting": False},
    "one tile": {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 64}},
    "an odd side": {"size": {"longest_edge": 151}, "max_image_size": {"longest_edge": 48}},
}


def config(side: int, patch: int = 8, scale: int = 2, model_type: str = "idefics3") -> dict[str, Any]:
    return {"model_type": model_type, "scale_factor": scale, "vision_config": {"patch_size": patch, "image_size": side}}


def processor_of(settings: dict[str, Any], image_seq_len: int) -> Any:
    """transformers' own, with a tokenizer of words."""
    words = {"[UNK]": 0, "<image>": 1, "<fake_token_around_image>": 2, "<end_of_utterance>": 3}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]")
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    return transformers.Idefics3Processor(Idefics3ImageProcessorPil(**settings), tokenizer, image_seq_len=image_seq_len)


@in_turn(("settings", SETTINGS), ("name", PICTURES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    side = SETTINGS[settings]["max_image_size"]["longest_edge"]
    num_rows = (side // 16) ** 2
    theirs = processor_of(SETTINGS[settings], num_rows)
    image = picture(*PICTURES[name])
    found, texts = theirs._process_images([[image]], return_row_col_info=True)
    ours = opened(tmp_path, config(side), SETTINGS[settings], {"image_seq_len": num_rows})
    assert_prepared(ours, ours.prepare(as_image(image)), list(np.asarray(found["pixel_values"])[0]), texts[0])


@pytest.mark.parametrize("patch", [16, 14])
def test_sizes_of_checkpoints_are_those_of_transformers(tmp_path: Path, patch: int) -> None:
    """SmolVLM's, and of what stands for absent keys."""
    if patch == 16:
        settings, num_rows = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}, 64
        ours = opened(tmp_path, config(512, 16, 4, "smolvlm"), settings, {"image_seq_len": 64})
    else:
        settings, num_rows = {}, 169
        ours = opened(tmp_path, config(364, 14), {}, {})
    image = picture(640, 300)
    found, texts = processor_of(settings, num_rows)._process_images([[image]], return_row_col_info=True)
    assert_prepared(ours, ours.prepare(image), list(np.asarray(found["pixel_values"])[0]), texts[0])


def test_the_longer_side_has_a_limit_of_its_own(tmp_path: Path) -> None:
    settings = {"size": {"longest_edge": 5000}, "max_image_size": {"longest_edge": 512}}
    image = picture(700, 90)
    found, texts = processor_of(settings, 1024)._process_images([[image]], return_row_col_info=True)
    ours = opened(tmp_path, config(512), settings, {"image_seq_len": 1024})
    assert_prepared(ours, ours.prepare(image), list(np.asarray(found["pixel_values"])[0]), texts[0])


@pytest.mark.parametrize("name", ["small", "ordinary", "tall"])
def test_smolvlm_is_prepared_as_its_own_classes_do(tmp_path: Path, name: str) -> None:
    from transformers.models.smolvlm import processing_smolvlm
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    image = picture(*PICTURES[name])
    theirs = SmolVLMImageProcessorPil(**SETTINGS["small"])
    found = theirs([image], return_row_col_info=True)
    theirs.save_pretrained(tmp_path)
    ours = opened(tmp_path, config(64, model_type="smolvlm"), processor={"image_seq_len": 16})
    marks = ("<fake_token_around_image>", "<image>", "<global-img>")
    text = processing_smolvlm.get_image_prompt_string(found["rows"][0][0], found["cols"][0][0], 16, *marks)
    assert_prepared(ours, ours.prepare(image), list(np.asarray(found["pixel_values"])[0]), text)


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    theirs = processor_of(SETTINGS["colours"], 16)
    theirs.save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    ours, image = opened(tmp_path, config(64)), picture(90, 200)
    found, texts = theirs._process_images([[image]], return_row_col_info=True)
    assert_prepared(ours, ours.prepare(image), list(np.asarray(found["pixel_values"])[0]), texts[0])


def test_names_of_the_prompt(tmp_path: Path) -> None:
    ours = opened(tmp_path, config(64), SETTINGS["small"], {"image_seq_len": 16})
    assert (ours.image_token, ours.placeholder) == ("<image>", "<image>")


def test_rows_that_the_tower_does_not_give_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"image_seq_len is 169, but of a tile of 64 x 64 pixels .* 16 rows"):
        opened(tmp_path, config(64), SETTINGS["small"], {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_resize", False),
        ("do_normalize", False),
        ("size", {"height": 64, "width": 64}),
        ("new_key", 3),
        ("image_processor_type", "CLIPImageProcessor"),
    ],
    ids=str,
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    image = {**SETTINGS["small"], key: value}
    with pytest.raises((UnsupportedModel, ModelError), match="height|longest_edge|" + key):
        opened(tmp_path, config(64), image, {"image_seq_len": 16})
