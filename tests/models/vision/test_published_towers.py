"""Rows of towers that transformers has no class of, against what their authors publish, restated in torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import published_deepseek_ocr as deepseek_ocr
import published_deepseek_ocr2 as deepseek_ocr2
from albireo.errors import InvariantError, ModelError, UnsupportedModel
from albireo.models.settings.text_part import inner
from albireo.models.vision.positions import smooth_cubic_weights
from albireo.models.vision.tower import open_tower
from restated_towers import DOTS, dots_rows, dots_shapes, drawn
from tiny_towers import farthest, opened
from tower_family import LLAMA

torch = pytest.importorskip("torch")

_TEXT = {key: value for key, value in LLAMA.items() if key != "model_type"}
#: Grids of several sizes, and one line of blocks.
_TILES = ((48, 96), (112, 80), (16, 144))


def save_dots(folder: Path, **vision: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns: what config.json holds, and tensors."""
    from safetensors.torch import save_file

    data = {**_TEXT, "model_type": "dots_ocr", "vision_config": {**DOTS, **vision}}
    tensors = drawn(dots_shapes(data["vision_config"]))
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(data))
    return data, tensors


@pytest.mark.parametrize(
    "vision", [{}, {"use_bias": True, "rms_norm_eps": 0.5}, {"post_norm": False, "spatial_merge_size": 1}]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_of_dots_ocr(vision: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    data, tensors = save_dots(tmp_path, **vision)
    given = [np.random.default_rng(1).standard_normal((*size, 3), np.float32) for size in _TILES]
    ours = [opened(tmp_path, dtype, max_patches=160).rows(tile) for tile in given]
    wanted = [dots_rows(tensors, data["vision_config"], torch.tensor(tile).double()).numpy() for tile in given]
    assert farthest(ours, wanted) < (1e-5 if dtype == "float32" else 0.05)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": 24}, "heads of 6 are not four equal parts"),
        ({"temporal_patch_size": 2}, "'temporal_patch_size': 2"),
        ({"is_causal": True}, "'is_causal': True"),
        ({"hidden_size": 96}, "hidden_size=96 must be the text part's hidden_size=48"),
    ],
)
def test_towers_that_are_not_computed(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    data, _ = save_dots(tmp_path)
    with pytest.raises((UnsupportedModel, ModelError), match=f"config.json: vision_config: .*{words}"):
        open_tower({**data, "vision_config": {**DOTS, **changes}}, "float32", "config.json")


@pytest.mark.parametrize("clip_side", [64, 40])
def test_rows_of_deepseek_ocr(clip_side: int, tmp_path: Path) -> None:
    """A picture's parts in a grid, and in one line; its whole. Tables that are for these sizes, and that are not."""
    data, model = deepseek_ocr.save(tmp_path, 99, clip_side)
    numbers, sizes = np.random.default_rng(1), ((320, 480), (160, 320), (256, 256))
    *parts, whole = (numbers.standard_normal((*size, 3), np.float32) for size in sizes)
    model = model.double()
    runner = opened(tmp_path, max_patches=6 * 26, **inner(data))
    for part in parts:
        ours = [runner.rows(part), runner.rows(whole)]
        wanted = deepseek_ocr.rows(model, [part, whole]).numpy()
        assert farthest(ours, [wanted[: len(ours[0])], wanted[len(ours[0]) :]]) < 1e-5
    assert farthest([runner.rows(whole)], [deepseek_ocr.rows(model, [whole]).numpy()]) < 1e-5
    in_16_bits = opened(tmp_path, "bfloat16", max_patches=6 * 26, **inner(data))
    assert farthest([in_16_bits.rows(whole)], [deepseek_ocr.rows(model, [whole]).numpy()]) < 0.05


def test_rows_of_deepseek_ocr2(tmp_path: Path) -> None:
    """A picture's parts in two lines, row by row; its whole."""
    data, model = deepseek_ocr2.save(tmp_path, 99)
    numbers = np.random.default_rng(1)
    part, whole = (numbers.standard_normal((*size, 3), np.float32) for size in ((384, 384), (256, 256)))
    wanted = model.double().rows([part, whole]).numpy()
    for dtype, bound in (("float32", 1e-5), ("bfloat16", 0.05)):
        runner = opened(tmp_path, dtype, max_patches=6 * 36, **inner(data))
        ours = [runner.rows(part), runner.rows(whole)]
        assert [len(each) for each in ours] == [4 * 36, 64 + 1]
        assert farthest(ours, [wanted[: 4 * 36], wanted[4 * 36 :]]) < bound


@pytest.mark.parametrize(
    ("vision", "asks", "words"),
    [
        ({"model_name": "deeplip_b_l"}, {}, "model_name='deeplip_b_l' is not supported"),
        ({}, {"num_key_value_heads": 3}, "num_key_value_heads=3 must divide num_attention_heads=4"),
        ({}, {"use_mrope": True}, "'use_mrope': True"),
    ],
)
def test_deepseek_ocr2_that_is_not_computed(
    vision: dict[str, Any], asks: dict[str, Any], words: str, tmp_path: Path
) -> None:
    data, _ = deepseek_ocr2.save(tmp_path, 99)
    width = data["vision_config"]["width"]
    width = {**width, "qwen2-0-5b": {**width["qwen2-0-5b"], **asks}}
    changed = {**data, "vision_config": {**data["vision_config"], **vision, "width": width}}
    with pytest.raises((UnsupportedModel, ModelError), match=words):
        open_tower(inner(changed), "float32", "config.json")


@pytest.mark.parametrize(("count", "side"), [(40, 64), (10, 16), (16, 16), (5, 8), (20, 7)])
def test_tables_are_resampled_as_torch_does(count: int, side: int) -> None:
    table = torch.randn(1, 3, side, side, dtype=torch.float32)
    wanted = torch.nn.functional.interpolate(table, (count, count), mode="bicubic", antialias=True)
    weights = torch.tensor(smooth_cubic_weights(count, side))
    torch.testing.assert_close(torch.einsum("ih,jw,nchw->ncij", weights, weights, table), wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("whole", "vision", "sam", "words"),
    [
        ({"tile_tag": "1D"}, {}, {}, "tile_tag='1D' is not supported"),
        ({"global_view_pos": "tail"}, {}, {}, "global_view_pos='tail' is not supported"),
        ({"projector_config": {"projector_type": "mlp_gelu"}}, {}, {}, "projector_type='mlp_gelu' is not supported"),
        ({}, {"model_name": "siglip"}, {}, "model_name='siglip' is not supported"),
        ({}, {}, {"downsample_channels": [40]}, r"downsample_channels=\[40\] must be two numbers"),
        ({}, {}, {"downsample_channels": [40, 80]}, "hidden_size=64 must be the 80 channels"),
        ({}, {"image_size": 192}, {}, "image_size=192 is not supported; its parts must be blocks of 4 patches"),
        ({}, {}, {"global_attn_indexes": [7]}, r"global_attn_indexes=\[7\] is not supported"),
    ],
)
def test_deepseek_ocr_that_is_not_computed(
    whole: dict[str, Any], vision: dict[str, Any], sam: dict[str, Any], words: str, tmp_path: Path
) -> None:
    data, _ = deepseek_ocr.save(tmp_path, 99)
    width = data["vision_config"]["width"]
    width = {**width, "sam_vit_b": {**width["sam_vit_b"], **sam}}
    changed = {**data, **whole, "vision_config": {**data["vision_config"], **vision, "width": width}}
    with pytest.raises((UnsupportedModel, ModelError), match=words):
        open_tower(inner(changed), "float32", "config.json")
    tower: Any = open_tower(inner(data), "float32", "config.json")
    with pytest.raises(InvariantError, match="this tower reads 256 x 256, and squares of 160"):
        tower.patches(160, 256)
    with pytest.raises(InvariantError, match="is read before it is held"):
        tower.inputs(np.zeros((64, 64), np.float32))
