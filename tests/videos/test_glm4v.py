"""Which frames of a video GLM-4.1V to 4.6V read, of what size, and what stands for them: as transformers has it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.videos.decode import Footage
from albireo.videos.processor import VideoProcessor, open_video_processor
from images.without_torchvision import imported
from videos.test_processor import FOOTAGES, frames

pytest.importorskip("transformers")

#: model_type, and what its file holds.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "4.1, defaults": ("glm4v", {}),
    "4.5, few pixels": (
        "glm4v_moe",
        {"size": {"shortest_edge": 12544, "longest_edge": 800_000}, "fps": 1, "max_duration": 10, "num_frames": 16}
        | {"video_processor_type": "Glm4vVideoProcessor", "processor_class": "Glm4vProcessor"},
    ),
    "4.6, defaults": ("glm46v", {}),
    "4.6, published as 4.5": (
        "glm4v_moe",
        {"video_processor_type": "Glm46VVideoProcessor", "size": {"shortest_edge": 12544, "longest_edge": 47_040_000}},
    ),
}
#: Some longer than what is counted, and shorter than a moment.
LONG = [(72_000, 24.0, 320, 240), (9000, 24.0, 320, 240), (3, 24.0, 320, 240), (61, 1.0, 320, 240)]


def opened(folder: Path, name: str) -> VideoProcessor:
    kind, held = SETTINGS[name]
    (folder / "video_preprocessor_config.json").write_text(json.dumps(held))
    return open_video_processor(folder, {"model_type": kind, "vision_config": {}})


def theirs(name: str) -> tuple[Any, SimpleNamespace, Any]:
    """Their module, and what their class would hold, without what torchvision is needed for."""
    number, kind = ("46v", "Glm46V") if name.startswith("4.6") else ("4v", "Glm4v")
    module = imported(f"transformers.models.glm{number}.video_processing_glm{number}")
    cls, held = getattr(module, f"{kind}VideoProcessor"), SETTINGS[name][1]
    fields = ("patch_size", "temporal_patch_size", "merge_size", "max_duration", "fps", "size")
    return module, SimpleNamespace(**{field: held.get(field, getattr(cls, field)) for field in fields}), cls


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("given", [*FOOTAGES, *LONG], ids=str)
def test_frames_and_sizes_are_those_of_transformers(tmp_path: Path, name: str, given: Any) -> None:
    processor, footage = opened(tmp_path, name), Footage(*given)
    module, of, kind = theirs(name)
    duration = footage.num_frames / footage.rate
    metadata = SimpleNamespace(total_num_frames=footage.num_frames, fps=footage.rate, duration=duration)
    found, chosen = kind.sample_frames(of, metadata).tolist(), processor.choose(footage)
    if not found:
        assert len(chosen) == 1, "of too little transformers reads nothing"
        return
    # of an odd number the last is there twice, which we do where they are shown
    assert list(chosen) == list(dict.fromkeys(found)) and len(found) == len(chosen) + len(chosen) % 2
    size = footage.height, footage.width
    edges = {"min_pixels": of.size["shortest_edge"], "max_pixels": of.size["longest_edge"]}
    tall, wide = processor.size(len(chosen), *size)
    assert (tall, wide) == module.smart_resize(len(found), *size, temporal_factor=2, factor=28, **edges)
    largest = processor.largest_tile()
    assert tall * wide <= largest[0] * largest[1], "there is no memory for it"
    assert processor.num_rows(len(chosen), tall, wide) == len(found) // 2 * (tall // 28) * (wide // 28)


@pytest.mark.parametrize("name", ["4.1, defaults", "4.6, published as 4.5"])
def test_moments_are_told_as_transformers_tells_them(tmp_path: Path, name: str) -> None:
    processor, footage = opened(tmp_path, name), Footage(200, 29.97, 64, 64)
    chosen = processor.choose(footage)[:7]
    prepared = processor.prepare(frames(chosen, footage))
    number, kind = ("46v", "Glm46V") if name.startswith("4.6") else ("4v", "Glm4v")
    cls = getattr(imported(f"transformers.models.glm{number}.processing_glm{number}"), f"{kind}Processor")
    whole = SimpleNamespace(image_token="<|image|>", video_processor=SimpleNamespace(merge_size=2))
    whole.replace_frame_token_id = cls.replace_frame_token_id.__get__(whole)
    lines, columns = prepared.grid
    known = SimpleNamespace(fps=footage.rate, timestamps=[number / footage.rate for number in chosen])
    given = {"video_grid_thw": np.array([[4, 2 * lines, 2 * columns]]), "video_metadata": [known]}
    assert prepared.text == cls.replace_video_token(whole, given, 0)
    assert len(prepared.tiles) == 4 and prepared.times == ()
    first, second = np.split(prepared.tiles[-1], 2, axis=2)
    assert np.array_equal(first, second), "the last frame is there twice"
    assert processor.normalized(prepared.tiles[0]).shape == (28 * lines, 28 * columns, 6)


@pytest.mark.parametrize(
    ("said", "error", "says"),
    [
        ({"patch_size": 12}, ModelError, "patch_size is 12, but .* has patch_size=14"),
        ({"video_processor_type": "Qwen3VLVideoProcessor"}, UnsupportedModel, "for this model: Glm4vVideoProcessor"),
        ({"max_duration": 0}, ModelError, "max_duration=0"),
        ({"do_rescale": False}, UnsupportedModel, "do_rescale"),
    ],
)
def test_what_files_may_not_say(tmp_path: Path, said: dict[str, Any], error: type[Exception], says: str) -> None:
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(said))
    with pytest.raises(error, match=says):
        open_video_processor(tmp_path, {"model_type": "glm4v", "vision_config": {"patch_size": 14}})


def test_too_long_in_one_direction(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match="200 to 1"):
        opened(tmp_path, "4.1, defaults").size(4, 40, 40 * 201)
