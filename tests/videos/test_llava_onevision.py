"""Which frames of a video LLaVA-OneVision reads, and what stands for them: as transformers has it."""

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

from transformers.video_utils import default_sample_indices_fn

# 27 patches on a side, as of the published models
_CONFIG = {"model_type": "llava_onevision", "vision_config": {"image_size": 54, "patch_size": 2}}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 1.0]}
_SIZE = {"size": {"height": 54, "width": 54}}


def opened(folder: Path, held: dict[str, Any] | None = None, image: Any = None) -> VideoProcessor:
    """Args: held: of videos; None: there is no file."""
    files = {"preprocessor_config.json": image or {**_SIZE, **_HALF}, "video_preprocessor_config.json": held}
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return open_video_processor(folder, _CONFIG)


@pytest.mark.parametrize("said", [{}, {"num_frames": 8}, {"fps": 1.0}], ids=str)
@pytest.mark.parametrize("given", FOOTAGES, ids=str)
def test_frames_are_those_of_transformers(tmp_path: Path, said: dict[str, Any], given: Any) -> None:
    footage = Footage(*given)
    chosen = opened(tmp_path, {**_SIZE, **_HALF, **said}).choose(footage)
    metadata = SimpleNamespace(total_num_frames=footage.num_frames, fps=footage.rate)
    fps, count = said.get("fps"), said.get("num_frames", 32)
    wanted = int(fps * footage.num_frames / footage.rate) if fps else count
    if not 0 < wanted <= footage.num_frames:
        assert len(chosen) == min(max(wanted, 1), footage.num_frames), "of too few transformers reads none"
        return
    theirs = default_sample_indices_fn(metadata, None if fps else count, fps)
    assert list(chosen) == theirs.tolist()


def test_what_stands_for_a_video_is_as_transformers_has_it(tmp_path: Path) -> None:
    processor, footage = opened(tmp_path, {**_SIZE, **_HALF, "num_frames": 3}), Footage(9, 3.0, 80, 60)
    prepared = processor.prepare(frames(processor.choose(footage), footage))
    cls = imported("transformers.models.llava_onevision.processing_llava_onevision").LlavaOnevisionProcessor
    whole = SimpleNamespace(video_token="<video>", num_image_tokens=27**2)
    shown = np.stack([tile[:, :54] for tile in prepared.tiles])
    assert prepared.text == cls.replace_video_token(whole, {"pixel_values_videos": [shown]}, 0)
    assert shown.shape == (3, 54, 54, 3) and prepared.grid == (14, 14) and prepared.times == ()
    assert [tile.shape[1] for tile in prepared.tiles] == [54, 54, 55], "the last one says that it is"
    assert prepared.rows == (196, 196, 197) and processor.num_rows(3, 54, 54) == 3 * 196 + 1
    resized = np.asarray(as_image(picture(80, 60).rotate(processor.choose(footage)[0])).resize((54, 54), 3))
    assert np.array_equal(prepared.tiles[0], resized)
    wanted = (resized[0, 0] / 255 - [0.5, 0.5, 0.5]) / [0.25, 0.5, 1.0]
    np.testing.assert_allclose(processor.normalized(prepared.tiles[0])[0, 0], wanted, atol=1e-6)


def test_without_a_file_of_its_own_frames_are_32_or_all(tmp_path: Path) -> None:
    processor = opened(tmp_path)
    assert len(processor.choose(Footage(1000, 25.0, 9, 9))) == 32
    assert processor.choose(Footage(7, 25.0, 9, 9)) == tuple(range(7))
    assert processor.size(7, 9, 9) == (54, 54) and processor.largest_tile() == (54, 55)


@pytest.mark.parametrize(
    ("held", "error", "says"),
    [
        ({**_SIZE, "image_mean": [0, 0, 0]}, UnsupportedModel, r"image_mean=\[0, 0, 0\] .*as of pictures, which"),
        ({"size": {"height": 64, "width": 64}, **_HALF}, ModelError, "size=.* must be the 54 x 54 pixels"),
        ({**_SIZE, **_HALF, "num_frames": 0}, ModelError, "num_frames=0"),
        ({**_SIZE, **_HALF, "do_center_crop": True}, UnsupportedModel, "do_center_crop"),
        ({**_SIZE, **_HALF, "video_processor_type": "Glm4vVideoProcessor"}, UnsupportedModel, "LlavaOnevisionVideoPr"),
    ],
)
def test_what_files_may_not_say(tmp_path: Path, held: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        opened(tmp_path, held)
