"""Which frames are read, of what size, and what stands for them: as transformers' processors of Qwen's models say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.videos.decode import Footage, Frames
from albireo.videos.processor import VideoProcessor, open_video_processor
from images.pictures import picture
from images.without_torchvision import imported

pytest.importorskip("transformers")

#: (frames, frames a second, width, height)
FOOTAGES = [
    (1, 25.0, 640, 360),
    (3, 30.0, 640, 360),
    (5, 24.0, 100, 200),
    (100, 25.0, 1920, 1080),
    (301, 29.97, 854, 480),
    (1800, 30.0, 1280, 720),
    (90_000, 25.0, 640, 360),
    (50, 0.5, 320, 240),
    (7, 24.0, 20, 900),
]
SIZE = {"shortest_edge": 4096, "longest_edge": 25_165_824}
#: model_type, what its file holds, and transformers' module.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2, defaults": ("qwen2_vl", {}),
    "qwen2, few pixels": ("qwen2_5_vl", {"min_pixels": 3136, "max_pixels": 50_000, "fps": 1.0, "max_frames": 40}),
    "qwen2, not capped": ("qwen2_vl", {"cap_pixels_per_frame": False}),
    "qwen3, defaults": ("qwen3_vl", {}),
    "qwen3, as published": ("qwen3_5", {"size": SIZE, "patch_size": 16}),
    "qwen3, not capped": ("qwen3_vl_moe", {"size": SIZE, "cap_pixels_per_frame": False, "fps": 4, "min_frames": 8}),
}


def opened(folder: Path, name: str) -> VideoProcessor:
    kind, held = SETTINGS[name]
    (folder / "video_preprocessor_config.json").write_text(json.dumps(held))
    return open_video_processor(folder, {"model_type": kind, "vision_config": {}})


def theirs(name: str) -> Any:
    """transformers' processor, as far as it chooses frames and sizes."""
    number = name[4]
    module = imported(f"transformers.models.qwen{number}_vl.video_processing_qwen{number}_vl")
    return module, getattr(module, f"Qwen{number}VLVideoProcessor")


def asked(name: str) -> tuple[Any, SimpleNamespace, Any]:
    """Their module, and what their class would hold, without what torchvision is needed for."""
    module, kind = theirs(name)
    _, held = SETTINGS[name]
    fields = ("patch_size", "temporal_patch_size", "merge_size", "min_frames", "max_frames", "max_video_tokens")
    of = SimpleNamespace(**{field: held.get(field, getattr(kind, field)) for field in fields})
    of.fps, of.num_frames = held.get("fps", 2), None
    size = held.get("size", kind.size)
    of.fewest, of.most = held.get("min_pixels", size["shortest_edge"]), held.get("max_pixels", size["longest_edge"])
    of.is_capped = held.get("cap_pixels_per_frame", True)
    return module, of, kind


def their_size(name: str, count: int, height: int, width: int) -> tuple[int, int]:
    module, of, kind = asked(name)
    seen: dict[str, Any] = {}

    def caught(self: Any, image: Any, size: Any, resample: Any, **_: Any) -> Any:
        seen.update(height=size.height, width=size.width)

    parent = kind.__mro__[1]
    kept, parent.resize = parent.resize, caught
    try:
        me = object.__new__(kind)
        me.max_video_tokens = of.max_video_tokens
        edges = module.SizeDict(shortest_edge=of.fewest, longest_edge=of.most)
        given = SimpleNamespace(shape=(1, count, 3, height, width))
        factor = of.patch_size * of.merge_size
        kind.resize(me, given, edges, None, factor, temporal_factor=2, cap_pixels_per_frame=of.is_capped)
    finally:
        parent.resize = kept
    return seen["height"], seen["width"]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("given", FOOTAGES, ids=str)
def test_frames_and_sizes_are_those_of_transformers(tmp_path: Path, name: str, given: Any) -> None:
    processor, footage = opened(tmp_path, name), Footage(*given)
    _, of, kind = asked(name)
    chosen = processor.choose(footage)
    metadata = SimpleNamespace(total_num_frames=footage.num_frames, fps=footage.rate)
    if footage.num_frames > 1:
        assert list(chosen) == kind.sample_frames(of, metadata).tolist()
        assert processor.size(len(chosen), footage.height, footage.width) == their_size(
            name, len(chosen), footage.height, footage.width
        )
    tall, wide = processor.size(len(chosen), footage.height, footage.width)
    largest = processor.largest_tile()
    assert tall * wide <= largest[0] * largest[1], "there is no memory for it"
    rows = processor.num_rows(len(chosen), tall, wide)
    assert rows == math.ceil(len(chosen) / 2) * (tall // largest[0]) * (wide // largest[0])


def frames(numbers: tuple[int, ...], footage: Footage) -> Frames:
    shown = tuple(picture(footage.width, footage.height).rotate(n) for n in numbers)
    return Frames(shown, numbers, footage)


def test_moments_are_told_as_transformers_tells_them(tmp_path: Path) -> None:
    module = imported("transformers.models.qwen3_vl.processing_qwen3_vl")
    processor, footage = opened(tmp_path, "qwen3, as published"), Footage(301, 29.97, 64, 64)
    chosen = processor.choose(footage)[:7]
    moments = module.Qwen3VLProcessor._calculate_timestamps(None, list(chosen), footage.rate, 2)
    prepared = processor.prepare(frames(chosen, footage))
    tall, wide = processor.size(7, 64, 64)
    shown = "<|vision_start|>" + "<|video_pad|>" * (tall * wide // 1024) + "<|vision_end|>"
    assert prepared.text == "".join(f"<{moment:.1f} seconds>{shown}" for moment in moments)
    assert prepared.times == () and prepared.grid == (tall // 32, wide // 32)
    assert len(prepared.tiles) == len(moments) == 4
    first, second = np.split(prepared.tiles[-1], 2, axis=2)
    assert np.array_equal(first, second), "the last frame is there twice"
    first, second = np.split(prepared.tiles[0], 2, axis=2)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("kind", "tower", "wanted"), [
    ("qwen2_vl", {}, (0, 1, 2)),
    # a tile is 1 s, which is so many steps
    ("qwen2_5_vl", {"tokens_per_second": 2}, (0, 2, 4)),
    ("qwen2_5_vl", {}, (0, 4, 8)),
    ("qwen2_5_vl", {"tokens_per_second": 0.75}, (0, 0, 1)),
])  # fmt: skip
def test_times_of_tiles(tmp_path: Path, kind: str, tower: dict[str, Any], wanted: tuple[int, ...]) -> None:
    processor = open_video_processor(tmp_path, {"model_type": kind, "vision_config": tower})
    footage = Footage(75, 25.0, 60, 60)
    chosen = processor.choose(footage)
    prepared = processor.prepare(frames(chosen, footage))
    assert len(chosen) == 6 and prepared.times == wanted
    assert prepared.text == "<|video_pad|>" * (3 * prepared.grid[0] * prepared.grid[1])


def test_colours_are_those_of_the_video_s_own_file(tmp_path: Path) -> None:
    said = {"image_mean": [0.5, 0.25, 0.0], "image_std": [0.5, 0.5, 1.0], "rescale_factor": 1 / 255}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(said))
    processor = open_video_processor(tmp_path, {"model_type": "qwen3_vl", "vision_config": {}})
    tile = np.random.default_rng(0).integers(0, 256, (4, 5, 6), np.uint8)
    wanted = (tile / 255 - [*said["image_mean"]] * 2) / ([*said["image_std"]] * 2)  # type: ignore[operator]
    np.testing.assert_allclose(processor.normalized(tile), wanted, atol=1e-6)


def test_without_a_file_of_its_own_colours_are_the_pictures(tmp_path: Path) -> None:
    said = {"image_mean": [0.1] * 3, "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    processor: Any = open_video_processor(tmp_path, {"model_type": "qwen2_5_vl", "vision_config": {}})
    assert processor.normalized(np.zeros((1, 1, 3), np.uint8))[0, 0, 0] == pytest.approx(-0.1 / 0.26862954)
    assert processor.settings.most == 768 * 28 * 28, "pixels of a picture say nothing of a frame"


@pytest.mark.parametrize(
    ("said", "error", "says"),
    [
        ({"temporal_patch_size": 1}, ModelError, "temporal_patch_size=1"),
        ({"patch_size": 12}, ModelError, "patch_size"),
        ({"num_frames": 8}, UnsupportedModel, "num_frames"),
        ({"do_rescale": False}, UnsupportedModel, "do_rescale"),
        ({"video_processor_type": "OtherVideoProcessor"}, UnsupportedModel, "OtherVideoProcessor"),
        ({"fps": 0}, ModelError, "fps"),
        ({"max_frames": 1}, ModelError, "max_frames=1"),
        ({"size": {"height": 3}}, ModelError, "shortest_edge"),
    ],
)
def test_what_files_may_not_say(tmp_path: Path, said: dict[str, Any], error: type[Exception], says: str) -> None:
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(error, match=says):
        open_video_processor(tmp_path, {"model_type": "qwen3_vl", "vision_config": {"patch_size": 16}})


@pytest.mark.parametrize("name", ["gemma3", "idefics3", "glm_ocr", "paddleocr_vl"])
def test_another_model_reads_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=f"model_type='{name}' no videos are read"):
        open_video_processor(tmp_path, {"model_type": name})


@pytest.mark.parametrize("name", ["qwen2, defaults", "qwen3, as published"])
def test_too_long_in_one_direction(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParams, match="200 to 1"):
        opened(tmp_path, name).size(4, 40, 40 * 201)
