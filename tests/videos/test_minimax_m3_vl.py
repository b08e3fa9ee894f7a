"""Which frames of a video MiniMax M3 reads, and what stands for them: as transformers has it."""

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

_CONFIG = {"model_type": "minimax_m3_vl", "vision_config": {"patch_size": 14}}
_MARK = "]<]video[>["
_THEIRS = "transformers.models.minimax_m3_vl"


def opened(folder: Path, held: dict[str, Any], **vision: Any) -> VideoProcessor:
    (folder / "video_preprocessor_config.json").write_text(json.dumps(held))
    (folder / "tokenizer.json").write_text(json.dumps({"content": _MARK}))
    return open_video_processor(folder, {**_CONFIG, "vision_config": {**_CONFIG["vision_config"], **vision}})


@pytest.mark.parametrize("held", [{}, {"fps": 2}, {"num_frames": 5, "max_pixels": 100_352}], ids=str)
@pytest.mark.parametrize("given", FOOTAGES, ids=str)
def test_frames_and_sizes_are_those_of_transformers(tmp_path: Path, held: dict[str, Any], given: Any) -> None:
    processor, footage = opened(tmp_path, held), Footage(*given)
    chosen = processor.choose(footage)
    indices = pytest.importorskip("transformers.video_utils").default_sample_indices_fn
    metadata = SimpleNamespace(total_num_frames=footage.num_frames, fps=footage.rate)
    asked = {"num_frames": 5} if "num_frames" in held else {"fps": held.get("fps", 1)}
    wanted = held.get("num_frames", max(1, int(footage.num_frames / footage.rate * asked.get("fps", 0))))
    if wanted > footage.num_frames:
        assert list(chosen) == list(range(footage.num_frames)), "of too few transformers reads none"
    elif wanted > 768:
        assert len(chosen) == 768, "of long ones transformers reads more than its file says"
    else:
        assert list(chosen) == indices(metadata, **asked).tolist()
    resize = imported(f"{_THEIRS}.image_processing_minimax_m3_vl").smart_resize
    most = held.get("max_pixels", 768 * 28 * 28)
    size = resize(footage.height, footage.width, factor=28, min_pixels=4 * 28 * 28, max_pixels=most)
    assert processor.size(len(chosen), footage.height, footage.width) == size
    assert processor.num_rows(len(chosen), *size) == -(-len(chosen) // 2) * size[0] * size[1] // 28**2
    high, wide = processor.largest_tile()
    assert size[0] * size[1] <= high // 4 * (wide - 3)


def test_what_stands_for_a_video_is_as_transformers_has_it(tmp_path: Path) -> None:
    processor = opened(tmp_path, {"vision_segment_max_frames": 3, "num_frames": 9})
    footage = Footage(9000, 2.3, 90, 60)
    numbers = processor.choose(footage)
    prepared = processor.prepare(frames(numbers, footage))
    cls = imported(f"{_THEIRS}.processing_minimax_m3_vl").MiniMaxM3VLProcessor
    of_videos = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    named = {"VIDEO_TOKEN": cls.VIDEO_TOKEN, "VISION_START_TOKEN": cls.VISION_START_TOKEN}
    whole = SimpleNamespace(video_processor=of_videos, **named, VISION_END_TOKEN=cls.VISION_END_TOKEN)
    high, wide = processor.size(9, 60, 90)
    grids = torch.tensor([[count, high // 14, wide // 14] for count in (3, 2)])
    metadata = SimpleNamespace(fps=footage.rate, frames_indices=list(numbers))
    given = {"num_chunks_per_video": [2], "video_grid_thw": grids, "video_metadata": [metadata]}
    assert prepared.text == cls.replace_video_token(whole, given, 0)
    rows = high * wide // 28**2
    assert prepared.rows == (3 * rows, 2 * rows) and prepared.grid == (high // 28, wide // 28)
    assert [tile.shape for tile in prepared.tiles] == [(3 * high, wide + 2, 6), (2 * high, wide + 1, 6)]
    # of an odd number of frames the last is there twice
    resized = [np.asarray(image.resize((wide, high), 3)) for image in frames(numbers, footage).images]
    pairs = [np.concatenate([resized[n], resized[min(n + 1, 8)]], axis=2) for n in range(0, 9, 2)]
    found = [moment for tile, count in zip(prepared.tiles, (3, 2), strict=True) for moment in np.split(tile, count)]
    assert all(np.array_equal(moment[:, :wide], pair) for moment, pair in zip(found, pairs, strict=True))


@pytest.mark.parametrize(
    ("held", "vision", "error", "says"),
    [
        ({"merge_size": 1}, {"spatial_merge_size": 2}, ModelError, "merge_size is 1, but .*spatial_merge_size=2"),
        (
            {"merge_size": 1},
            {"img_token_compression_config": {"spatial_merge_size": 2}},
            ModelError,
            "merge_size is 1, but .*spatial_merge_size=2",
        ),
        ({"patch_size": 16}, {}, ModelError, "patch_size is 16, but .* patch_size=14"),
        ({"temporal_patch_size": 1}, {}, ModelError, "temporal_patch_size=1"),
        ({"vision_segment_max_frames": 5}, {}, ModelError, "must be at most 4, as config.json has it"),
        ({"vision_segment_max_frames": 3}, {"vision_segment_max_frames": 2}, ModelError, "must be at most 2"),
        ({"do_center_crop": True}, {}, UnsupportedModel, "do_center_crop"),
        ({"video_processor_type": "Glm4vVideoProcessor"}, {}, UnsupportedModel, "MiniMaxM3VLVideoProcessor"),
    ],
)
def test_what_files_may_not_say(tmp_path: Path, held: Any, vision: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        opened(tmp_path, held, **vision)


def test_a_tokenizer_without_a_token_for_videos(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"tokenizer.json: has no token \]<\]video\[>\["):
        open_video_processor(tmp_path, _CONFIG)
