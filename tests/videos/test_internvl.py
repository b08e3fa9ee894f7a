"""Which frames of a video InternVL reads, and what stands for them: as transformers has it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.videos.decode import Footage
from albireo.videos.processor import VideoProcessor, open_video_processor
from images.pictures import picture
from images.without_torchvision import imported
from videos.test_processor import FOOTAGES, frames

pytest.importorskip("transformers")

_CONFIG = {"model_type": "internvl", "vision_config": {"image_size": [56, 56], "patch_size": [14, 14]}}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 1.0]}
_SIZE = {"size": {"height": 56, "width": 56}}


def opened(folder: Path, held: dict[str, Any] | None = None, **others: Any) -> VideoProcessor:
    """Args: held: of videos; None: there is no file. others: of pictures, "image", and of the tokenizer."""
    files = {
        "preprocessor_config.json": others.get("image", {**_SIZE, **_HALF}),
        "video_preprocessor_config.json": held,
    }
    files["tokenizer_config.json"] = others.get("tokenizer", {"video_token": "<video>"})
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return open_video_processor(folder, _CONFIG)


@pytest.mark.parametrize("said", [{"num_frames": 8}, {"fps": 1.0}, {"num_frames": 5, "initial_shift": 0}], ids=str)
@pytest.mark.parametrize("given", FOOTAGES, ids=str)
def test_frames_are_those_of_transformers(tmp_path: Path, said: dict[str, Any], given: Any) -> None:
    footage = Footage(*given)
    chosen = opened(tmp_path, {**_SIZE, **_HALF, **said}).choose(footage)
    kind = imported("transformers.models.internvl.video_processing_internvl").InternVLVideoProcessor
    of = SimpleNamespace(num_frames=said.get("num_frames"), initial_shift=said.get("initial_shift", True))
    metadata = SimpleNamespace(total_num_frames=footage.num_frames, fps=footage.rate)
    wanted = said.get("num_frames", int(footage.num_frames / footage.rate))
    if not 0 < wanted <= footage.num_frames:
        assert 1 <= len(chosen) <= footage.num_frames, "of too few transformers reads none"
        return
    theirs = kind.sample_frames(of, metadata, fps=said.get("fps")).tolist()
    assert len(chosen) == len(theirs) == wanted
    # it counts in 32 bits
    assert max(abs(one - other) for one, other in zip(chosen, theirs, strict=True)) <= (footage.num_frames > 2**14)


def test_what_stands_for_a_video_is_as_transformers_has_it(tmp_path: Path) -> None:
    processor, footage = opened(tmp_path, {**_SIZE, **_HALF, "num_frames": 3}), Footage(9, 3.0, 80, 60)
    prepared = processor.prepare(frames(processor.choose(footage), footage))
    cls = imported("transformers.models.internvl.processing_internvl").InternVLProcessor
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "image_token": "<IMG_CONTEXT>"}
    whole = SimpleNamespace(**named, image_seq_length=4)
    shown = np.stack(prepared.tiles)
    assert prepared.text == cls.replace_video_token(whole, {"pixel_values_videos": [shown]}, 0)
    assert shown.shape == (3, 56, 56, 3) and prepared.grid == (2, 2) and prepared.times == ()
    assert processor.num_rows(3, 56, 56) == 12 and processor.mark == "<video>"
    resized = np.asarray(as_image(picture(80, 60).rotate(processor.choose(footage)[0])).resize((56, 56), 3))
    assert np.array_equal(prepared.tiles[0], resized)
    wanted = (resized[0, 0] / 255 - [0.5, 0.5, 0.5]) / [0.25, 0.5, 1.0]
    np.testing.assert_allclose(processor.normalized(prepared.tiles[0])[0, 0], wanted, atol=1e-6)


def test_without_a_file_of_its_own_frames_are_32_or_all(tmp_path: Path) -> None:
    processor = opened(tmp_path)
    assert len(processor.choose(Footage(1000, 25.0, 9, 9))) == 32
    assert processor.choose(Footage(7, 25.0, 9, 9)) == tuple(range(7))
    assert processor.size(7, 9, 9) == processor.largest_tile() == (56, 56)


@pytest.mark.parametrize(
    "said", [{"extra_special_tokens": {"video_token": "[V]"}}, {"video_token": {"content": "[V]"}}]
)
def test_the_tokenizer_says_what_a_video_is_called(tmp_path: Path, said: dict[str, Any]) -> None:
    assert opened(tmp_path, tokenizer=said).mark == "[V]"


@pytest.mark.parametrize(
    ("held", "others", "error", "says"),
    [
        (None, {"tokenizer": {}}, UnsupportedModel, "tokenizer_config.json: has no video_token"),
        ({**_SIZE, "image_mean": [0, 0, 0]}, {}, UnsupportedModel, r"image_mean=\[0, 0, 0\] .*as of pictures, which"),
        ({"size": {"height": 64, "width": 64}, **_HALF}, {}, ModelError, "size=.* must be the 56 x 56 pixels"),
        ({**_SIZE, **_HALF, "initial_shift": False}, {}, UnsupportedModel, "initial_shift=False"),
        ({**_SIZE, **_HALF, "num_frames": 0}, {}, ModelError, "num_frames=0"),
        ({**_SIZE, **_HALF, "do_center_crop": True}, {}, UnsupportedModel, "do_center_crop"),
        ({**_SIZE, **_HALF, "video_processor_type": "Glm4vVideoProcessor"}, {}, UnsupportedModel, "InternVLVideoProc"),
    ],
)
def test_what_files_may_not_say(tmp_path: Path, held: Any, others: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        opened(tmp_path, held, **others)
