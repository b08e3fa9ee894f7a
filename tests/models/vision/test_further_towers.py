"""Keys of further towers: which are honoured, held to transformers, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvariantError, ModelError, UnsupportedModel, WeightMismatch
from albireo.models.settings.text_part import text_settings
from albireo.models.vision.tower import open_tower
from tiny_towers import change_vision, farthest, opened, save, tiles, transformers_rows

_FORMER = {"model_type": "blip_2_qformer", "num_hidden_layers": 2, "intermediate_size": 60}


@pytest.mark.parametrize(
    ("name", "vision", "whole"),
    [
        ("ernie4_5_vl_moe", {"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}, "hidden_act": "relu"}, {}),
        ("ernie4_5_vl_moe", {"rms_norm_eps": 0.5, "num_heads": 4}, {}),
        # of CLIP, whose class is left out
        (
            "granite4_vision",
            {"model_type": "clip_vision_model", "layer_norm_eps": 0.5},
            {"vision_feature_select_strategy": "default", "deepstack_layer_map": [[2, 6]]},
        ),
        # the second layer of Q-Formers sees no patches
        ("granite4_vision", {}, {"qformer_config": {**_FORMER, "cross_attention_frequency": 2, "hidden_act": "relu"}}),
        ("granite4_vision", {}, {"downsample_rate": "2/4", "spatial_vision_layer": -2, "deepstack_layer_map": []}),
        ("kimi_k25", {"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}, "hidden_act": "relu"}, {}),
        ("kimi_k25", {"pos_emb_height": 4, "pos_emb_width": 4}, {"projection_layer_norm_eps": 0.5}),
        ("kimi_k25", {"merge_kernel_size": [1, 1]}, {}),
        ("minimax_m3_vl", {"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}, "hidden_act": "relu"}, {}),
        # of heads of 72, all of whose channels turn
        ("minimax_m3_vl", {"hidden_size": 144, "layer_norm_eps": 0.5, "spatial_merge_size": 1}, {}),
        ("llama4", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}, {}),
        ("llama4", {"pixel_shuffle_ratio": 1.0, "intermediate_size": 144}, {}),
        ("llama4", {"pixel_shuffle_ratio": 0.25, "intermediate_size": 2304, "num_attention_heads": 4}, {}),
    ],
)
def test_keys_are_honoured(name: str, vision: dict[str, Any], whole: dict[str, Any], tmp_path: Path) -> None:
    folder, given = save(tmp_path, name, whole=whole, **vision), tiles(name)
    ours = [opened(folder, max_patches=160).rows(tile) for tile in given]
    assert farthest(ours, transformers_rows(folder, name, "float64", given)) < 1e-5


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("ernie4_5_vl_moe", {"num_heads": 24}, "heads of 6 are not four equal parts"),
        ("ernie4_5_vl_moe", {"temporal_merge_size": 3}, "'temporal_merge_size': 3"),
        ("kimi_k25", {"num_attention_heads": 24}, "heads of 6 are not four equal parts"),
        ("kimi_k25", {"pos_emb_width": 5}, "pos_emb_width=5 is not supported"),
        ("kimi_k25", {"merge_kernel_size": [2, 1]}, r"merge_kernel_size=\[2, 1\] is not supported"),
        ("kimi_k25", {"mm_hidden_size": 96}, "mm_hidden_size=96 must be 144"),
        ("kimi_k25", {"text_hidden_size": 96}, "text_hidden_size=96 must be 48"),
        ("kimi_k25", {"merge_type": "tpool"}, "'merge_type': 'tpool'"),
        ("kimi_k25", {"norm_type": "rmsnorm"}, "'norm_type': 'rmsnorm'"),
        ("minimax_m3_vl", {"num_attention_heads": 40}, "heads of 4 have no three axes"),
        ("minimax_m3_vl", {"rope_mode": "2d"}, "'rope_mode': '2d'"),
        ("minimax_m3_vl", {"img_token_compression_config": {"method": "pool"}}, "'method': 'pool'"),
        ("llama4", {"num_attention_heads": 24}, "heads of 6 are not four equal parts"),
        ("llama4", {"hidden_act": "silu"}, "hidden_act='silu' is not supported"),
        ("llama4", {"pixel_shuffle_ratio": 0.3}, "pixel_shuffle_ratio=0.3 is not supported"),
        ("llama4", {"intermediate_size": 200}, "intermediate_size=200 must be hidden_size .* here 576"),
        ("llama4", {"image_size": 88}, "image_size=88 must be blocks of 16 pixels"),
        ("llama4", {"vision_output_dim": 96}, "vision_output_dim=96 must be projector_input_dim=80"),
        ("llama4", {"norm_eps": 1e-6}, "'norm_eps': 1e-06"),
        ("llama4", {"model_type": "clip_vision_model"}, "model_type='clip_vision_model' is not supported"),
    ],
)
def test_towers_that_are_not_computed(name: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises((UnsupportedModel, ModelError), match=f"config.json: vision_config: .*{words}"):
        open_tower(change_vision(save(tmp_path, name), **changes), "float32", "config.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"downsample_rate": "3/8"}, "downsample_rate='3/8' is not supported"),
        ({"downsample_rate": "4/8"}, "downsample_rate='4/8' must cut the 4 patches"),
        ({"use_spatial_sampling": False}, "use_spatial_sampling=False is not supported"),
        ({"deepstack_layer_map": [[1, 2]]}, "deepstack_layer_map=.* up to 12 different layers"),
        ({"spatial_target_layers": [1, 3, 5, 8]}, "up to 12 different layers of the text part's 8"),
        ({"deepstack_layer_map": [[0, 3]]}, "deepstack_layer_map=0 is not supported; supported: one of the tower's 3"),
        ({"deepstack_layer_map": [1, 3]}, "must be a list of pairs"),
        ({"spatial_target_layers": [1, 2]}, "must be numbers of 4 layers"),
        ({"spatial_vision_layer": 4}, "spatial_vision_layer=4 is not supported"),
        ({"qformer_config": {"use_qformer_text_input": True}}, "'use_qformer_text_input': True"),
        ({"qformer_config": {"model_type": "instructblip_qformer"}}, "model_type='instructblip_qformer'"),
        ({"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy='default' is not supported"),
    ],
)
def test_q_formers_that_are_not_computed(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    data = {**change_vision(save(tmp_path, "granite4_vision")), **changes}
    with pytest.raises((UnsupportedModel, ModelError), match=words):
        open_tower(data, "float32", "config.json")


def test_what_a_table_of_q_formers_leaves_out_is_that_of_its_class(tmp_path: Path) -> None:
    """Every other layer sees patches. Transformers' own file says so, which is taken away."""
    folder, given = save(tmp_path, "granite4_vision"), tiles("granite4_vision")
    data = change_vision(folder)
    data["qformer_config"] = _FORMER
    (folder / "config.json").write_text(json.dumps(data))
    ours = [opened(folder).rows(tile) for tile in given]
    assert farthest(ours, transformers_rows(folder, "granite4_vision", "float64", given)) < 1e-5


def test_rows_of_ernie_are_normalized_as_text_is(tmp_path: Path) -> None:
    folder, given = save(tmp_path, "ernie4_5_vl_moe"), tiles("ernie4_5_vl_moe")
    data = change_vision(folder)
    data["text_config"]["rms_norm_eps"] = 0.5
    (folder / "config.json").write_text(json.dumps(data))
    ours = [opened(folder).rows(tile) for tile in given]
    assert farthest(ours, transformers_rows(folder, "ernie4_5_vl_moe", "float64", given)) < 1e-5


@pytest.mark.parametrize("last", [0, 1])
def test_frames_of_llava_onevision(last: int, tmp_path: Path) -> None:
    """Of five patches on a side, which become three rows; and one more behind the last frame of a video."""
    import torch
    import transformers

    folder = save(tmp_path, "llava_onevision", image_size=40)
    tile = np.random.default_rng(3).standard_normal((40, 40, 3), np.float32)
    model = transformers.LlavaOnevisionModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    with torch.no_grad():
        shown = torch.tensor(tile, dtype=torch.float64).permute(2, 0, 1)[None, None]
        wanted = model.get_video_features(shown).pooler_output[0].numpy()
    found = opened(folder).rows(np.pad(tile, ((0, 0), (0, last), (0, 0))))
    assert len(wanted) == 3 * 3 + 1
    assert farthest([found], [wanted[: 9 + last]]) < 1e-5
    tower = open_tower(change_vision(folder), "float32", "config.json")
    assert tower.rows(40, 40 + last) == 9 + last and tower.patches(40, 40 + last) == 25
    with pytest.raises(InvariantError, match="a tile of 40 x 39 pixels is not two blocks"):
        tower.patches(40, 39)
    with pytest.raises(InvariantError, match="is read before it is held"):
        tower.inputs(tile)


def test_minimax_m3_as_its_authors_publish_it(tmp_path: Path) -> None:
    """Keys of a CLIP, of which some lie deeper: the same rows."""
    tile = tiles("minimax_m3_vl")[0]
    wanted = opened(save(tmp_path, "minimax_m3_vl")).rows(tile)
    deeper = {"image_token_compression_method": "patch_merge", "spatial_merge_size": 2, "temporal_patch_size": 2}
    left_out = dict.fromkeys(("spatial_merge_size", "temporal_patch_size", "rope_parameters"))
    vision = {**left_out, "model_type": "clip_vision_model", "rope_theta": 10000.0, "projection_dim": 48}
    vision |= {"position_embedding_type": "rope", "rope_mode": "3d", "vision_segment_max_frames": 4}
    data = change_vision(tmp_path, **vision, img_token_compression_config=deeper)
    assert np.array_equal(opened(tmp_path, **data).rows(tile), wanted)
    above = {**change_vision(tmp_path, **vision), "img_token_compression_config": deeper}
    assert np.array_equal(opened(tmp_path, **above).rows(tile), wanted)
    published = {**data, "text_config": {**data["text_config"], "model_type": "minimax_m2"}}
    assert text_settings(published, "here") == text_settings(data, "here")
    for key, value, words in (
        ("multimodal_projector_bias", False, "supported: true"),
        ("projector_hidden_act", "relu", "supported: gelu"),
        ("merged_hidden_size", 100, "must be 192"),
    ):
        with pytest.raises((UnsupportedModel, ModelError), match=words):
            open_tower({**data, key: value}, "float32", "config.json")


def test_kimi_as_its_authors_publish_it(tmp_path: Path) -> None:
    """Other keys, and a name where transformers writes what none of them reads: the same rows."""
    from safetensors.torch import load_file, save_file

    tile, names = tiles("kimi_k25")[0], {"num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size"}
    wanted = opened(save(tmp_path, "kimi_k25")).rows(tile)
    own = "vision_tower.encoder.patch_embed."
    tensors = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith(own) for name in tensors)
    renamed = {name.replace(own, "vision_tower.patch_embed."): tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "model.safetensors")
    data = change_vision(tmp_path)
    vision = {f"vt_{key}" if key in names else key: value for key, value in data["vision_config"].items()}
    vision = {f"init_{key}" if key.startswith("pos_emb_") else key: value for key, value in vision.items()}
    left_out = ("model_type", "dtype", "rope_parameters")
    vision = {key: value for key, value in vision.items() if key not in left_out} | {"merge_type": "sd2_tpool"}
    assert np.array_equal(opened(tmp_path, vision_config=vision).rows(tile), wanted)


def test_tables_of_another_size(tmp_path: Path) -> None:
    granite: Any = open_tower(change_vision(save(tmp_path / "granite", "granite4_vision")), "float32", "config.json")
    with pytest.raises(InvariantError, match="query is read before it is held"):
        granite.joined(np.zeros((16, 6 * 128), np.float32), (64, 32))
    with pytest.raises(WeightMismatch, match=r"image_positions is \[4, 9\], config.json implies \[1, 4, 128\]"):
        granite.hold({name: np.zeros((4, 9), np.float32) for name in granite.host_tensors})
    moonvit = open_tower(change_vision(save(tmp_path / "kimi", "kimi_k25")), "float32", "config.json")
    with pytest.raises(InvariantError, match="is read before it is held"):
        moonvit.inputs(tiles("kimi_k25")[0])
    with pytest.raises(WeightMismatch, match=r"pos_emb.weight is \[6, 144\], config.json implies \[6, 864\]"):
        moonvit.hold({moonvit.host_tensors[0]: np.zeros((6, 144), np.float32)})
    tower = open_tower(change_vision(save(tmp_path / "llama", "llama4")), "float32", "config.json")
    first, table = tower.host_tensors
    with pytest.raises(InvariantError, match="is read before it is held"):
        tower.inputs(tiles("llama4")[0])
    with pytest.raises(WeightMismatch, match=r"positional_embedding_vlm is \[144, 144\], config.json implies \[145"):
        tower.hold({first: np.zeros(144, np.float32), table: np.zeros((144, 144), np.float32)})
