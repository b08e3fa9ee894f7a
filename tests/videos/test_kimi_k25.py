"""Which frames of a video Kimi K2.5 reads, and what stands for them: as transformers has it."""

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
torch = pytest.importorskip("torch")

_CONFIG = {"model_type": "kimi_k25", "vision_config": {"patch_size": 14, "merge_kernel_size": [2, 2]}}
_MARK = "<|kimi_k25_video_placeholder|>"
_THEIRS = "transformers.models.kimi_k25"


def opened(folder: Path, held: dict[str, Any] | None = None, **vision: Any) -> VideoProcessor:
    if held is not None:
        (folder / "video_preprocessor_config.json").write_text(json.dumps(held))
    (folder / "tokenizer.json").write_text(json.dumps({"content": _MARK}))
    return open_video_processor(folder, {**_CONFIG, "vision_config": {**_CONFIG["vision_config"], **vision}})


@pytest.mark.parametrize("held", [{}, {"fps": 1}, {"num_frames": 5}], ids=str)
@pytest.mark.parametrize("given", FOOTAGES, ids=str)
def test_frames_and_sizes_are_those_of_transformers(tmp_path: Path, held: dict[str, Any], given: Any) -> None:
    processor, footage = opened(tmp_path, held), Footage(*given)
    chosen = processor.choose(footage)
    indices = pytest.importorskip("transformers.video_utils").default_sample_indices_fn
    metadata = SimpleNamespace(total_num_frames=footage.num_frames, fps=footage.rate)
    asked = {"num_frames": 5} if "num_frames" in held else {"fps": held.get("fps", 2)}
    wanted = held.get("num_frames", int(footage.num_frames / footage.rate * asked.get("fps", 0)))
    if 0 < wanted <= footage.num_frames:
        assert list(chosen) == indices(metadata, **asked).tolist()
    else:
        assert 1 <= len(chosen) <= footage.num_frames, "of too few transformers reads none"
    resize = imported(f"{_THEIRS}.video_processing_kimi_k25").navit_resize
    size, filled = resize(
        footage.height, footage.width, patch_size=14, merge_kernel_size=2, max_patches=4096, max_size_per_side=512
    )
    assert processor.size(len(chosen), footage.height, footage.width) == tuple(size)
    rows = filled[0] * filled[1] // 28**2
    assert processor.num_rows(len(chosen), *size) == -(-len(chosen) // 4) * rows
    high, wide = processor.largest_tile()
    assert filled[0] * filled[1] <= high // 4 * (wide - 3)


def test_what_stands_for_a_video_is_as_transformers_has_it(tmp_path: Path) -> None:
    processor, footage = opened(tmp_path, {"temporal_patch_size": 3, "num_frames": 8}), Footage(9000, 2.3, 90, 60)
    numbers = processor.choose(footage)
    prepared = processor.prepare(frames(numbers, footage))
    cls = imported(f"{_THEIRS}.processing_kimi_k25").Kimi_K25Processor
    of_videos = SimpleNamespace(merge_size=2, temporal_patch_size=3)
    whole = SimpleNamespace(video_processor=of_videos, video_token=_MARK)
    metadata = SimpleNamespace(fps=footage.rate, timestamps=[number / footage.rate for number in numbers])
    counts = [tile.shape[1] % 28 + 1 for tile in prepared.tiles]
    assert len(numbers) == 8 and counts == [3, 3, 2]
    grids = torch.tensor([[count, 84 // 14, 112 // 14] for count in counts])
    given = {"num_chunks_per_video": [3], "video_grid_thw": grids, "video_metadata": [metadata]}
    assert prepared.text == cls.replace_video_token(whole, given, 0)
    assert prepared.grid == (3, 4) and prepared.rows == (12, 12, 12)
    # frames lie one above another, black where nothing fills a block
    resized = [np.asarray(image) for image in frames(numbers, footage).images]
    for tile, first in zip(prepared.tiles, (0, 3, 6), strict=True):
        count = tile.shape[1] % 28 + 1
        for place, frame in enumerate(np.split(tile, count)):
            assert np.array_equal(frame[:60, :90], resized[first + place])
            assert not frame[60:].any() and not frame[:, 90:].any()


@pytest.mark.parametrize(
    ("held", "vision", "error", "says"),
    [
        ({"size": {"max_height": 8, "max_width": 4}}, {}, UnsupportedModel, "as many patches .* on either side"),
        ({"size": {"max_height": 9, "max_width": 9}}, {}, ModelError, "must be a multiple of merge_size=2"),
        ({"merge_size": 1}, {}, ModelError, "merge_kernel_size=.2, 2."),
        ({"patch_size": 16}, {}, ModelError, "patch_size is 16, but .* patch_size=14"),
        ({"temporal_patch_size": 5}, {}, ModelError, "must be at most pos_emb_time=4"),
        ({"temporal_patch_size": 3}, {"pos_emb_time": 2}, ModelError, "must be at most pos_emb_time=2"),
        ({"image_mean": [0, 0, 0]}, {}, UnsupportedModel, "as of pictures"),
        ({"do_center_crop": True}, {}, UnsupportedModel, "do_center_crop"),
        ({"video_processor_type": "Glm4vVideoProcessor"}, {}, UnsupportedModel, "Kimi_K25VideoProcessor"),
    ],
)
def test_what_files_may_not_say(tmp_path: Path, held: Any, vision: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        opened(tmp_path, held, **vision)


def test_a_tokenizer_without_a_token_for_videos(tmp_path: Path) -> None:
    """As its authors publish it."""
    with pytest.raises(UnsupportedModel, match=r"tokenizer.json: has no token <\|kimi_k25_video_placeholder\|>"):
        open_video_processor(tmp_path, _CONFIG)
