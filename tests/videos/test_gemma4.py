"""Which frames of a video Gemma 4 reads, of what size, and what stands for them: as transformers has it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.videos.decode import Footage
from albireo.videos.processor import VideoProcessor, open_video_processor
from images.without_torchvision import imported
from videos.test_processor import FOOTAGES, frames

pytest.importorskip("transformers")

from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size
from transformers.video_utils import default_sample_indices_fn


def opened(folder: Path, held: dict[str, Any], kind: str = "gemma4", image: Any = None, **tower: int) -> VideoProcessor:
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": "<|video|>"}]}))
    parts = {"video_processor": held, "image_processor": image or {}}
    (folder / "processor_config.json").write_text(json.dumps(parts))
    return open_video_processor(folder, {"model_type": kind, "vision_config": tower})


@pytest.mark.parametrize("said", [{}, {"num_frames": 5}, {"fps": 2}, {"num_frames": None, "fps": 2}], ids=str)
@pytest.mark.parametrize("given", FOOTAGES, ids=str)
def test_frames_and_sizes_are_those_of_transformers(tmp_path: Path, said: dict[str, Any], given: Any) -> None:
    processor, footage = opened(tmp_path, said), Footage(*given)
    chosen = processor.choose(footage)
    metadata = SimpleNamespace(total_num_frames=footage.num_frames, fps=footage.rate)
    count = said.get("num_frames", 32)
    if (count or int(2 * footage.num_frames / footage.rate)) > footage.num_frames:
        assert chosen == tuple(range(footage.num_frames)), "of too few transformers reads none"
    else:
        theirs = default_sample_indices_fn(metadata, count, said.get("fps") if count is None else None)
        assert list(chosen) == theirs.tolist()
    size = get_aspect_ratio_preserving_size(footage.height, footage.width, 16, 70 * 9, 3)
    assert processor.size(len(chosen), footage.height, footage.width) == size
    rows = processor.num_rows(len(chosen), *size)
    assert rows == len(chosen) * size[0] * size[1] // 48**2 <= 70 * len(chosen)


@pytest.mark.parametrize("kind", ["gemma4", "gemma4_unified"])
def test_what_stands_for_a_video_is_as_transformers_has_it(tmp_path: Path, kind: str) -> None:
    name = f"Gemma4{'Unified' * kind.endswith('unified')}"
    held = {"video_processor_type": f"{name}VideoProcessor", "max_soft_tokens": 70, "num_frames": 3}
    processor, footage = opened(tmp_path, held, kind), Footage(190, 2.0, 80, 60)
    chosen = processor.choose(footage)
    prepared = processor.prepare(frames(chosen, footage))
    cls = getattr(imported(f"transformers.models.{kind}.processing_{kind}"), f"{name}Processor")
    whole = SimpleNamespace(boi_token="<|image>", eoi_token="<image|>", video_token="<|video|>")
    known = SimpleNamespace(fps=2.0, timestamps=[number / 2.0 for number in chosen])
    rows = prepared.grid[0] * prepared.grid[1]
    given = {"num_soft_tokens_per_video": [rows], "video_metadata": [known]}
    assert prepared.text == cls.replace_video_token(whole, given, 0)
    assert prepared.text.startswith("00:00 ") and " 01:03 " in prepared.text
    assert len(prepared.tiles) == 3 and prepared.times == () and rows <= 70
    assert processor.normalized(prepared.tiles[0]).max() <= 1.0


@pytest.mark.parametrize(
    ("held", "more", "error", "says"),
    [
        ({"patch_size": 14}, {"patch_size": 16}, ModelError, "patch_size is 14, but .* has patch_size=16"),
        ({"max_soft_tokens": 0}, {}, ModelError, "max_soft_tokens=0"),
        ({"do_normalize": True, "image_mean": [0.5] * 3}, {}, UnsupportedModel, "image_mean=.* colours as they are"),
        ({}, {"image": {"do_normalize": True, "image_std": [0.5] * 3}}, UnsupportedModel, "image_std=.* colours as"),
        ({"video_processor_type": "Glm4vVideoProcessor"}, {}, UnsupportedModel, "for this model: Gemma4VideoProcessor"),
        ({"do_rescale": False}, {}, UnsupportedModel, "do_rescale"),
    ],
)
def test_what_files_may_not_say(tmp_path: Path, held: Any, more: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        opened(tmp_path, held, **more)


def test_a_tokenizer_without_a_token_for_videos(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": "<|image|>"}]}))
    with pytest.raises(UnsupportedModel, match=r"tokenizer.json: has no token <\|video\|>"):
        open_video_processor(tmp_path, {"model_type": "gemma4"})


def test_colours_may_be_normed_to_what_they_are(tmp_path: Path) -> None:
    processor = opened(tmp_path, {"do_normalize": True, "image_mean": [0.0] * 3, "image_std": [1.0] * 3})
    assert np.array_equal(processor.normalized(np.full((1, 1, 3), 255, np.uint8)), np.ones((1, 1, 3), np.float32))
