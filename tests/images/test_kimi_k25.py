"""The pictures of Kimi K2.5 against transformers' processor, bit for bit where it resizes with Pillow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture
from images.published_mixtures import MIXTURES
from images.with_pillow import colours_of, normalize, pad_to, resize
from images.without_torchvision import imported
from in_turn import in_turn

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TorchvisionBackend = pytest.importorskip("transformers.image_processing_backends").TorchvisionBackend
SizeDict = pytest.importorskip("transformers.image_utils").SizeDict
Kimi_K25Processor = pytest.importorskip("transformers.models.kimi_k25.processing_kimi_k25").Kimi_K25Processor
THEIRS = imported("transformers.models.kimi_k25.image_processing_kimi_k25")
PICTURES = {**SIZES, **LONG, "large": (1500, 1100, "RGB"), "between": (700, 600, "RGB")}
CONFIG = {"model_type": "kimi_k25", "vision_config": {"patch_size": 14, "merge_kernel_size": [2, 2]}}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "few": {"max_patches": 60, "resample": 2},
    "short": {"size": {"max_height": 12, "max_width": 12}, "max_patches": 100},
    "colours": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7], "max_patches": 60},
}
#: As its authors publish it.
FIRST = MIXTURES["Kimi K2.5"][1]


def by_transformers(settings: dict[str, Any], image: Any) -> tuple[list[np.ndarray], str]:
    """float32 [3, height, width] of the tile, and the text; made without asking whether torchvision is there."""
    own = object.__new__(THEIRS.Kimi_K25ImageProcessor)
    names = ("resample", "do_resize", "do_rescale", "do_normalize", "image_mean", "image_std", "max_patches", "size")
    held = {name: getattr(own, name) for name in (*names, "patch_size", "merge_size")} | settings
    held |= {"size": SizeDict(**held["size"]), "rescale_factor": 1 / 255, "disable_grouping": None}
    held |= {key: tuple(held[key]) for key in ("image_mean", "image_std")}
    found = own._preprocess([colours_of(image)], return_tensors=None, **held)
    ((_, tall, wide),) = found["image_grid_thw"].tolist()
    tile = np.asarray(found["pixel_values"]).reshape(tall, wide, 3, 14, 14).transpose(2, 0, 3, 1, 4)
    named = SimpleNamespace(image_processor=own, image_token="<|media_pad|>")
    return [tile.reshape(3, tall * 14, wide * 14)], Kimi_K25Processor.replace_image_token(named, found, 0)


@pytest.fixture(autouse=True)
def pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, function in (("resize", resize), ("normalize", normalize), ("pad", pad_to)):
        monkeypatch.setattr(TorchvisionBackend, name, function)


@in_turn(("settings", SETTINGS), ("name", PICTURES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    image, held = as_image(picture(*PICTURES[name])), SETTINGS[settings]
    ours = opened(tmp_path, CONFIG, {"image_processor_type": "Kimi_K25ImageProcessorFast", **held})
    prepared = ours.prepare(image)
    assert_prepared(ours, prepared, *by_transformers(held, image))
    assert prepared.grid is None


@pytest.mark.parametrize(("most", "longest"), [(16384, 512), (60, 512), (100, 12), (4096, 64), (1, 2)])
def test_sizes_are_those_of_transformers_and_none_is_larger_than_the_largest(
    tmp_path: Path, most: int, longest: int
) -> None:
    size = {"max_height": longest, "max_width": longest}
    ours = opened(tmp_path, CONFIG, {"max_patches": most, "size": size})
    largest = ours.rows(*ours.largest_tile())
    for height, width in [(1, 1), (336, 336), *np.random.default_rng(0).integers(1, 9000, (2000, 2)).tolist()]:
        wanted, filled = THEIRS.navit_resize(height, width, 14, 2, most, longest)
        assert ours.size_of(height, width) == wanted, (height, width)
        assert ours.rows(*filled) <= largest, (height, width)


def test_files_of_its_authors_say_the_same(tmp_path: Path) -> None:
    first, own = opened(tmp_path / "first", CONFIG, FIRST), opened(tmp_path / "own", CONFIG, {})
    image = as_image(picture(300, 401))
    assert (first.prepare(image).tiles[0] == own.prepare(image).tiles[0]).all()
    assert (first.pixels.table == own.pixels.table).all()
    assert (first.most, first.longest, first.largest_tile()) == (own.most, own.longest, own.largest_tile())
    assert (own.image_token, own.placeholder) == ("<|media_pad|>", "<|media_pad|>")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"patch_size": 16}, "patch_size is 16, but .* has patch_size=14"),
        ({"merge_size": 1}, "merge_size=1 must be that of config.json"),
        ({"size": {"max_height": 8, "max_width": 16}}, "as many patches are allowed on either side"),
        ({"size": {"max_height": 7, "max_width": 7}}, "size=7 must be a multiple of merge_size=2"),
        ({"do_resize": False}, "'do_resize': False"),
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "for this model: Kimi_K25ImageProcessor"),
        ({"media_proc_cfg": {"fixed_output_tokens": 64}}, "media_proc_cfg: .*'fixed_output_tokens': 64"),
        ({"media_proc_cfg": {}, "max_patches": 60}, "'max_patches': 60"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, CONFIG, settings)
