"""Projectors whose files say nonsense: each is refused by name, at once, whatever its numbers are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.sources.projector_place import beside
from albireo.errors import ModelError, UnsupportedModel, WeightMismatch
from albireo.models.gguf.files import MODEL_LINK, gguf_of, part_paths
from albireo.models.gguf.header import Entry, Header
from albireo.models.gguf.projectors.table import Projector, towers_of
from albireo.models.gguf.projectors.told import _text

SIZES = {
    "embedding_length": 32,
    "feed_forward_length": 64,
    "block_count": 2,
    "attention.head_count": 4,
    "attention.layer_norm_epsilon": 1e-5,
    "image_size": 32,
    "patch_size": 8,
    "n_wa_pattern": 2,
    "image_mean": np.full(3, 0.5, np.float32),
    "image_std": np.full(3, 0.5, np.float32),
}
UP = {"v.blk.0.ffn_up.weight": (64, 32)}


def tower(kind: str, shapes: dict[str, tuple[int, ...]], more: dict[str, Any] | None = None) -> Projector:
    settings = {f"clip.vision.{key}": value for key, value in SIZES.items()}
    settings |= {"general.architecture": "clip", "clip.has_vision_encoder": True, "clip.projector_type": kind}
    entries = {name: Entry("F32", shape, 0, 4) for name, shape in ({**UP, **shapes}).items()}
    text = {"model_type": "qwen3", "hidden_size": 32}
    return towers_of(Header({**settings, **(more or {})}, entries), "mmproj.gguf", text, {})[False]


@pytest.mark.parametrize("kind", ["pixtral", "qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger"])
def test_layers_without_end_are_refused(kind: str) -> None:
    found = tower(kind, {"v.position_embd.weight": (16, 32)}, {"clip.vision.block_count": 2**31 - 1})
    for ask in (found.family.config, found.family.tensors):
        with pytest.raises(ModelError, match="block_count=2147483647 must be a whole number from 1 to"):
            ask(found.said)


@pytest.mark.parametrize(
    ("kind", "shapes", "told"),
    [
        ("lfm2", {"mm.1.weight": (64,)}, r"tensor mm.1.weight has shape \[64\]; wanted are 2 dimensions"),
        (
            "gemma4v",
            {"v.blk.0.attn_k.weight": (32, 32), "v.position_embd.weight": (16,)},
            r"tensor v.position_embd.weight has shape \[16\]; wanted are 3 dimensions",
        ),
    ],
)
def test_tensors_of_other_shapes_are_named(kind: str, shapes: dict[str, tuple[int, ...]], told: str) -> None:
    found = tower(kind, shapes)
    with pytest.raises(WeightMismatch, match=told):
        found.family.config(found.said)


def test_patches_of_frames_that_are_no_convolutions_are_two_too_many() -> None:
    flat = {"v.patch_embd.weight": (32,), "v.patch_embd.weight.1": (32,)}
    found = tower("qwen2vl_merger", flat)
    assert flat.keys() <= found.family.tensors(found.said).keys()


def test_more_heads_than_numbers_are_refused() -> None:
    found = tower("gemma4v", {"v.blk.0.attn_k.weight": (32, 32)}, {"clip.vision.attention.head_count": 64})
    with pytest.raises(ModelError, match="head_count=64 is more than embedding_length=32"):
        found.family.config(found.said)


@pytest.mark.parametrize("sections", [[np.nan, 1.0, 2.0], [np.inf, 0.0, 0.0]])
def test_sections_that_are_no_whole_numbers_are_refused(sections: list[float]) -> None:
    settings = {"general.architecture": "qwen2vl", "qwen2vl.rope.dimension_sections": np.array(sections, np.float32)}
    with pytest.raises(UnsupportedModel, match="dimension_sections="):
        _text({"model_type": "qwen2"}, settings, "qwen2_vl")


def test_pixtral_turns_by_the_base_that_its_file_says() -> None:
    """Converters of Mistral's own files write it, those of transformers' do not."""
    for more, wanted in (({}, 1e4), ({"clip.rope.freq_base": 5e5}, 5e5)):
        found = tower("pixtral", {}, more)
        assert found.family.config(found.said)["vision_config"]["rope_theta"] == wanted


def test_a_model_in_parts_is_told_by_its_own_name(tmp_path: Path) -> None:
    """Beside a link of another name there are no other parts."""
    model = tmp_path / "m-00001-of-00002.gguf"
    place = tmp_path / "place"
    place.mkdir()
    os.symlink(model, place / MODEL_LINK)
    assert gguf_of(place) == model and len(part_paths(gguf_of(place))) == 2
    assert gguf_of(tmp_path) == tmp_path and gguf_of(model) == model


def test_a_directory_that_cannot_be_listed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is opened by its name; text is served, and who asks about a picture hears why it is not seen."""

    def refused(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refused)
    found = beside(tmp_path / "m.gguf", None)
    assert found.projector is None and "cannot be listed (Permission denied); name the projector" in found.problem
