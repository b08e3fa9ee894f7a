"""Rows of pictures, against transformers; what is refused, and names of tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from albireo.errors import InvariantError, ModelError, UnsupportedModel, WeightMismatch
from albireo.models.settings.text_part import inner
from albireo.models.vision.llava import LlavaTower
from albireo.models.vision.tower import check_tensors, has_tower, open_tower, tower_tensors
from in_turn import in_turn
from published_internvl import publish
from tiny_towers import FAMILIES, change_vision, farthest, opened, save, tiles, transformers_rows


@in_turn(("dtype", ["float32", "bfloat16"]), ("name", FAMILIES))
def test_as_near_to_exact_as_transformers(name: str, dtype: str, tmp_path: Path) -> None:
    """Exact is the same weights in float64; in 16 bits transformers rounds after every operation, and we less often."""
    folder, given = save(tmp_path, name, dtype), tiles(name)
    exact, theirs = (transformers_rows(folder, name, each, given) for each in ("float64", dtype))
    runner = opened(folder, dtype)
    ours = [runner.rows(tile) for tile in given]
    assert [rows.shape for rows in ours] == [rows.shape for rows in exact]
    noise = farthest(theirs, exact)
    assert noise < {"bfloat16": 0.05, "float32": 4e-6}[dtype], "too rough to prove anything"
    assert farthest(ours, exact) < noise * (4 if dtype == "float32" else 1.0)
    assert min(float(np.abs(rows - rows[:1]).max()) for rows in ours) > 0.1, "all rows are alike"


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_counted_before_they_are_computed(name: str, tmp_path: Path) -> None:
    data = change_vision(save(tmp_path, name))
    assert has_tower(data)
    tower, runner = open_tower(data, "float32", "config.json"), opened(tmp_path)
    for tile in tiles(name):
        assert tower.rows(*tile.shape[:2]) == len(runner.rows(tile))


@pytest.mark.parametrize(("window", "merge"), [(32, 2), (48, 2), (24, 1), (64, 2), (17, 2)])
def test_no_tile_has_more_windows_than_there_is_room_for(window: int, merge: int, tmp_path: Path) -> None:
    data = change_vision(save(tmp_path, "qwen2_5_vl"), window_size=window, spatial_merge_size=merge)
    tower, step = open_tower(data, "float32", "config.json"), 8 * merge
    for height, width in np.ndindex(9, 30):
        size = (height + 1) * step, (width + 1) * step
        whole, windows = tower.sequences(*size)
        assert sum(windows) == tower.patches(*size) == whole[0] and len(whole) == 1
        assert len(windows) <= tower.most_sequences(whole[0])


# -- names of tensors --------------------------------------------------------------------------------------------------

#: As published, or as transformers writes the whole -> as it writes models without their head.
PUBLISHED = [
    ("gemma3", {"vision_tower.vision_model.": "vision_tower."}),
    ("gemma3", {"model.vision_tower.": "vision_tower.", "model.multi_modal_projector.": "multi_modal_projector."}),
    ("gemma4", {"model.vision_tower.": "vision_tower.", "model.embed_vision.": "embed_vision."}),
    (
        "gemma4_unified",
        {"model.vision_embedder.": "vision_embedder.", "model.embed_vision.": "embed_vision."},
    ),
    ("glm4v", {"model.visual.": "visual."}),
    ("idefics3", {"model.vision_model.": "vision_model.", "model.connector.": "connector."}),
    ("internvl", {"model.vision_tower.": "vision_tower.", "model.multi_modal_projector.": "multi_modal_projector."}),
    (
        "lfm2_vl",
        {"model.vision_tower.vision_model.": "vision_tower.", "model.multi_modal_projector.": "multi_modal_projector."},
    ),
    (
        "llava_next",
        {"vision_tower.vision_model.": "vision_tower.", "model.image_newline": "image_newline"},
    ),
    ("aya_vision", {"vision_tower.vision_model.": "vision_tower."}),
    (
        "cohere2_vision",
        {"model.vision_tower.": "vision_tower.", "model.multi_modal_projector.": "multi_modal_projector."},
    ),
    ("hunyuan_vl", {"model.vit.": "vit."}),
    ("ovis2", {"model.vision_tower.": "vision_tower.", "model.visual_embeddings_table.": "visual_embeddings_table."}),
    ("got_ocr2", {"model.vision_tower.": "vision_tower.", "model.multi_modal_projector.": "multi_modal_projector."}),
    ("janus", {"model.vision_model.": "vision_model.", "model.aligner.": "aligner."}),
    # SigLIP was once a model within another
    ("deepseek_vl", {"model.vision_model.vision_model.": "vision_model.", "model.aligner.": "aligner."}),
    ("lighton_ocr", {"model.vision_encoder.": "vision_encoder.", "model.vision_projection.": "vision_projection."}),
    ("llava", {"vision_tower.vision_model.": "vision_tower."}),
    ("video_llama_3", {"model.vision_model.": "vision_model.", "model.projector.": "projector."}),
    ("vipllava", {"vision_tower.vision_model.": "vision_tower."}),
    ("llava", {"model.vision_tower.": "vision_tower.", "model.multi_modal_projector.": "multi_modal_projector."}),
    ("mistral3", {"model.vision_tower.": "vision_tower.", "model.multi_modal_projector.": "multi_modal_projector."}),
    ("paddleocr_vl", {"mlp_AR.": "projector."}),
    ("minicpmv4_6", {"model.vision_tower.": "vision_tower.", "model.merger.": "merger."}),
    ("paligemma", {"vision_tower.vision_model.": "vision_tower."}),
    ("paddleocr_vl", {"model.visual.": "visual.", "model.projector.": "projector."}),
    ("qwen2_5_vl", {"model.visual.": "visual."}),
    ("qwen2_vl", {"model.visual.": "visual."}),
    ("qwen3_5", {"model.visual.": "visual."}),
]


@pytest.mark.parametrize(("name", "prefixes"), PUBLISHED)
def test_published_names(name: str, prefixes: dict[str, str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tile = tiles(name)[0]
    wanted = opened(save(tmp_path, name)).rows(tile)
    renamed = {}
    for own, tensor in load_file(tmp_path / "model.safetensors").items():
        found = next(((new, old) for new, old in prefixes.items() if own.startswith(old)), ("", ""))
        renamed[found[0] + own.removeprefix(found[1])] = tensor
    save_file(renamed, tmp_path / "model.safetensors")
    assert np.array_equal(opened(tmp_path).rows(tile), wanted)


@pytest.mark.parametrize("vision", [{}, {"use_qk_norm": True, "norm_type": "rms_norm", "attention_bias": True}])
def test_internvl_as_its_authors_publish_it(vision: dict[str, Any], tmp_path: Path) -> None:
    """Other keys and names, and queries, keys and values in one tensor: the same rows."""
    tile = tiles("internvl")[0]
    wanted = opened(save(tmp_path, "internvl", **vision)).rows(tile)
    publish(tmp_path)
    tower = open_tower(inner(json.loads((tmp_path / "config.json").read_text())), "float32", "config.json")
    tensors = tower_tensors(tmp_path)
    check_tensors(tower, tensors)
    assert tensors.kind("vision_tower.encoder.layer.0.attention.k_proj.weight") == "float32"
    data = inner(json.loads((tmp_path / "config.json").read_text()))
    assert np.array_equal(opened(tmp_path, **data).rows(tile), wanted)


def test_names_of_internvl_are_those_that_transformers_knows(tmp_path: Path) -> None:
    """It writes Qianfan-OCR, which has InternVL's tower, by the names of InternVL's authors."""
    with safe_open(save(tmp_path, "qianfan_ocr") / "model.safetensors", "np") as file:
        assert {"mlp1.3.bias", "vision_model.encoder.layers.2.attn.qkv.bias"} <= set(file.keys())
    check_tensors(open_tower(change_vision(tmp_path), "float32", "config.json"), tower_tensors(tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"connector.modality_projection.proj.weight": None}, "1 missing: connector.modality_projection.proj.weight"),
        ({"vision_model.head.probe": (3, 4)}, "1 extra: vision_model.head.probe"),
        ({"vision_model.post_layernorm.bias": (143,)}, r"vision_model.post_layernorm.bias is \[143\]"),
        ({"vision_model.embeddings.patch_embedding.weight": (144, 3, 8, 9)}, r"patch_embedding.weight is \[144, 216\]"),
    ],
)
def test_tensors_that_do_not_fit(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = save(tmp_path, "idefics3") / "model.safetensors"
    tensors = load_file(path)
    for name in change:
        tensors.pop(name, None)
    save_file(tensors | {name: torch.ones(shape) for name, shape in change.items() if shape}, path)
    with pytest.raises(WeightMismatch, match=words):
        opened(tmp_path)


def test_positions_that_are_read_before_they_are_held(tmp_path: Path) -> None:
    stem = open_tower(change_vision(save(tmp_path, "minicpmv4_6")), "float32", "config.json").stem
    assert stem is not None
    (patches,) = stem.pieces(tiles("minicpmv4_6")[0])
    with pytest.raises(InvariantError, match="is read before it is held"):
        stem.behind(0, np.zeros((len(patches), 144), np.float32))


def test_words_of_ovis_that_are_read_before_they_are_held(tmp_path: Path) -> None:
    tower, rows = open_tower(change_vision(save(tmp_path, "ovis2")), "float32", "config.json"), np.zeros((4, 36), "f4")
    with pytest.raises(InvariantError, match="head_norm is read before it is held"):
        tower.joined(rows, (2, 2))
    with pytest.raises(InvariantError, match=r"visual_embeddings_table\.weight is read before it is held"):
        tower.placed(rows, (2, 2), (32, 32))
    held = {name: np.zeros(36, np.float32) for name in tower.host_tensors[:2]}
    with pytest.raises(WeightMismatch, match=r"is \[41, 48\], config.json implies \[48, 41\]"):
        tower.hold({**held, tower.host_tensors[2]: np.zeros((41, 48), np.float32)})
    for size, words in (((40, 40), "this tower reads tiles of 32 x 32"), ((32, 37), "says no marks around it")):
        with pytest.raises(InvariantError, match=words):
            tower.patches(*size)


@pytest.mark.parametrize("name", ["qwen3_5", "lfm2_vl", "llava", "glm4v", "paddleocr_vl"])
def test_a_table_of_positions_of_another_size(name: str, tmp_path: Path) -> None:
    data = change_vision(save(tmp_path, name))
    tower = open_tower(data, "float32", "config.json")
    with pytest.raises(InvariantError, match="is read before it is held"):
        tower.inputs(tiles(name)[0])
    with pytest.raises(WeightMismatch, match=r"weight is \[4, 144\], config.json implies"):
        tower.hold({each: np.zeros((4, 144), np.float32) for each in tower.host_tensors})


def test_how_many_rows_gemma_4_has_is_not_the_towers(tmp_path: Path) -> None:
    """As files of nvidia/Gemma-4-31B-IT-NVFP4 say it."""
    data = change_vision(save(tmp_path, "gemma4"), default_output_length=280, image_seq_length=280, video_seq_length=70)
    tower = open_tower(data, "float32", "config.json")
    assert tower.rows(48, 96) == open_tower(change_vision(tmp_path), "float32", "config.json").rows(48, 96) == 18


def test_tables_and_numbers_of_another_size(tmp_path: Path) -> None:
    tower = open_tower(change_vision(save(tmp_path, "gemma4")), "float32", "config.json")
    with pytest.raises(InvariantError, match="is read before it is held"):
        tower.inputs(tiles("gemma4")[0])
    tables, *vectors = tower.host_tensors
    fitting = {tables: np.zeros((2, 20 * 96), np.float32)} | {each: np.zeros(96, np.float32) for each in vectors}
    for name, wrong in ((tables, (2, 19 * 96)), (vectors[0], (95,)), (vectors[1], (2, 96))):
        with pytest.raises(WeightMismatch, match=rf"{name} is \[\d, \d+\], config.json implies"):
            tower.hold({**fitting, name: np.zeros(wrong, np.float32)})
    tower.hold(fitting)
    with pytest.raises(InvariantError, match="168 x 16 pixels; there are positions of 20 patches on a side"):
        tower.inputs(np.zeros((168, 16, 3), np.float32))
    with pytest.raises(InvariantError, match="a tile of 48 x 40 pixels is not filled by patches of 16"):
        tower.inputs(np.zeros((48, 40, 3), np.float32))


def test_places_that_tables_have_not(tmp_path: Path) -> None:
    tower = open_tower(change_vision(save(tmp_path, "gemma4_unified")), "float32", "config.json")
    (table,) = tower.host_tensors
    with pytest.raises(InvariantError, match="is read before it is held"):
        tower.inputs(tiles("gemma4_unified")[0])
    with pytest.raises(WeightMismatch, match=r"pos_embedding is \[9, 192\], config.json implies \[10, 192\]"):
        tower.hold({table: np.zeros((9, 2 * 96), np.float32)})
    with pytest.raises(InvariantError, match="176 x 16 pixels; there are positions of 10 patches on a side"):
        tower.patches(176, 16)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("idefics3", {"hidden_act": "gelu_10"}, "hidden_act='gelu_10' is not supported"),
        ("idefics3", {"num_channels": 4}, "num_channels=4 is not supported"),
        ("idefics3", {"model_type": "clip_vision_model"}, "model_type='clip_vision_model' is not supported"),
        ("idefics3", {"image_size": 80}, "image_size=80 is not supported; .*scale_factor=3"),
        ("idefics3", {"vision_use_head": True}, "'vision_use_head': True"),
        ("gemma3", {"image_size": 80}, "image_size=80 is not supported; .*mm_tokens_per_image=9"),
        ("gemma3", {"use_absolute_positions": "no"}, "'use_absolute_positions': 'no'"),
        ("gemma4", {"model_type": "siglip_vision_model"}, "model_type='siglip_vision_model' is not supported"),
        ("gemma4", {"head_dim": 46}, "head_dim=46 is not supported; heads must be four equal parts"),
        ("gemma4", {"attention_bias": True}, "'attention_bias': True"),
        ("gemma4", {"global_head_dim": 64}, "'global_head_dim': 64"),
        ("gemma4", {"layer_types": ["full_attention"]}, "'layer_types':"),
        ("gemma4", {"rope_parameters": {"rope_type": "proportional"}}, "rope_type='proportional' is not supported"),
        ("gemma4_unified", {"output_proj_dims": 48}, "output_proj_dims=48 is not supported; .* it is 96"),
        ("gemma4_unified", {"model_patch_size": 8}, "model_patch_size=8 is not supported; .* it is 16"),
        ("gemma4_unified", {"num_hidden_layers": 2}, "'num_hidden_layers': 2"),
        ("qwen3_vl", {"depth": 12, "deepstack_visual_indexes": [*range(12)]}, "at most 11 layers go deeper"),
        ("qwen3_5", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn' is not supported"),
        ("qwen3_5", {"num_heads": 72}, "num_heads=72 is not supported"),
        ("qwen3_5", {"in_channels": 1}, "in_channels=1 is not supported"),
        ("qwen2_vl", {"intermediate_size": 200}, "intermediate_size=200 is not supported; .* here 288"),
        ("qwen2_vl", {"in_chans": 1}, "'in_chans': 1"),
        ("qwen2_vl", {"window_size": 32}, "'window_size': 32"),
        ("paddleocr_vl", {"num_attention_heads": 72}, "num_attention_heads=72 is not supported"),
        ("paddleocr_vl", {"hidden_act": "gelu_10"}, "hidden_act='gelu_10' is not supported"),
        ("paddleocr_vl", {"vision_use_head": True}, "'vision_use_head': True"),
        ("qwen2_5_vl", {"num_heads": 72}, "num_heads=72 is not supported"),
        ("qwen2_5_vl", {"model_type": "qwen2_vl"}, "model_type='qwen2_vl' is not supported"),
        ("exaone4_5", {"model_type": "qwen2_5_vl"}, "model_type='qwen2_5_vl' is not supported"),
        ("glm4v", {"attention_bias": True}, "'attention_bias': True"),
        ("glm4v", {"num_heads": 72}, "num_heads=72 is not supported"),
        ("glm4v_moe", {"model_type": "glm4v"}, "model_type='glm4v' is not supported"),
        ("glm_ocr", {"hidden_act": "gelu_10"}, "hidden_act='gelu_10' is not supported"),
        ("glm_ocr", {"window_size": 112}, "'window_size': 112"),
        ("mistral3", {"head_dim": 32}, "head_dim=32 is not supported"),
        ("internvl", {"norm_type": "batch_norm"}, "norm_type='batch_norm' is not supported"),
        ("internvl", {"patch_size": [8, 4]}, r"patch_size=\[8, 4\] is not supported; supported: squares"),
        ("internvl", {"use_absolute_position_embeddings": False}, "'use_absolute_position_embeddings': False"),
        ("internvl", {"num_registers": 4}, "'num_registers': 4"),
        ("llava", {"model_type": "siglip_vision_model"}, "model_type='siglip_vision_model' is not supported"),
        ("llava_next", {"model_type": "siglip2_vision_model"}, "model_type='siglip2_vision_model' is not supported"),
        ("llava, pixtral", {"head_dim": 32}, "head_dim=32 is not supported"),
        ("llava_next", {"num_registers": 4}, "'num_registers': 4"),
        ("aya_vision", {"model_type": "clip_vision_model"}, "model_type='clip_vision_model' is not supported"),
        ("paligemma", {"model_type": "clip_vision_model"}, "model_type='clip_vision_model' is not supported"),
        ("got_ocr2", {"use_rel_pos": False}, "'use_rel_pos': False"),
        ("video_llama_3", {"num_attention_heads": 24}, "heads of 6 are not four equal parts"),
        ("video_llama_3", {"use_qk_norm": True}, "'use_qk_norm': True"),
        ("ovis2", {"tokenize_function": "gumbel_argmax"}, "tokenize_function='gumbel_argmax' is not supported"),
        ("ovis2", {"num_visual_indicator_tokens": 6}, "'num_visual_indicator_tokens': 6"),
        ("ovis2", {"qkv_bias": True}, "supported: where mlp_bias is true, too"),
        ("got_ocr2", {"global_attn_indexes": []}, "some layers must see all, and some windows"),
        ("nemotron_h_omni", {"vitdet_window_size": 16}, "'vitdet_window_size': 16"),
        ("nemotron_h_omni", {"feature_normalizer_config": {"embed_dim": 8}}, "'feature_normalizer_config'"),
        ("janus", {"use_qk_norm": True}, "'use_qk_norm': True"),
        ("hunyuan_vl", {"interpolate_mode": "bicubic"}, "'interpolate_mode': 'bicubic'"),
        ("hunyuan_vl", {"num_key_value_heads": 1}, "'num_key_value_heads': 1"),
        ("minicpmv4_6", {"window_kernel_size": [4, 4]}, r"'window_kernel_size': \[4, 4\]"),
        ("minicpmv4_6", {"vision_use_head": True}, "'vision_use_head': True"),
        ("paligemma", {"num_registers": 4}, "'num_registers': 4"),
        ("cohere2_vision", {"hidden_act": "gelu_10"}, "hidden_act='gelu_10' is not supported"),
        ("cohere2_vision", {"num_registers": 4}, "'num_registers': 4"),
        ("llava_onevision", {"model_type": "clip_vision_model"}, "model_type='clip_vision_model' is not supported"),
        ("lfm2_vl", {"num_channels": 1}, "num_channels=1 is not supported"),
    ],
)
def test_towers_that_are_not_computed(name: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=f"config.json: vision_config: .*{words}"):
        open_tower(change_vision(save(tmp_path, name), **changes), "float32", "config.json")


def test_files_that_say_nonsense(tmp_path: Path) -> None:
    folder = save(tmp_path, "idefics3")
    with pytest.raises(ModelError, match="num_attention_heads=5 must cut hidden_size=144"):
        open_tower(change_vision(folder, num_attention_heads=5), "float32", "config.json")
    for deep in ([1, 0], [3], ["1"], "1"):
        with pytest.raises(ModelError, match=r"deepstack_visual_indexes=.* must be numbers of the 3 layers, in order"):
            open_tower(change_vision(save(tmp_path, "qwen3_vl"), deepstack_visual_indexes=deep), "float32", "here")
    with pytest.raises(ModelError, match=r"deepstack_visual_indexes=\[8, 16, 24\] must be"):
        open_tower(change_vision(save(tmp_path, "qwen3_vl"), deepstack_visual_indexes=None), "float32", "here")
    with pytest.raises(ModelError, match="vision_config is missing"):
        open_tower({**change_vision(folder), "vision_config": None}, "float32", "config.json")
    with pytest.raises(UnsupportedModel, match="model_type='llama' has no vision tower here"):
        open_tower({"model_type": "llama"}, "float32", "config.json")
    assert not has_tower({"model_type": "llama"})


@pytest.mark.parametrize(
    ("name", "vision", "words"),
    [
        ("gemma4", {"pooling_kernel_size": 1}, "pooling_kernel_size=1 must be a whole number from 2 to 16"),
        ("gemma4", {"num_key_value_heads": 3}, "num_key_value_heads=3 must divide num_attention_heads=4"),
        ("qwen3_5", {"num_position_embeddings": 37}, "num_position_embeddings=37 must be a square"),
        ("qwen3_5", {"out_hidden_size": 64}, "out_hidden_size=64 must be text_config.hidden_size=48"),
        ("qwen2_5_vl", {"out_hidden_size": 64}, "out_hidden_size=64 must be the text part's hidden_size=48"),
        ("glm4v", {"out_hidden_size": 64}, "out_hidden_size=64 must be the text part's hidden_size=48"),
        ("glm4v", {"image_size": 7}, "image_size=7 must be a whole number from 8"),
        ("paddleocr_vl", {"image_size": 7}, "image_size=7 must be a whole number from 8"),
        ("qwen2_5_vl", {"window_size": 15}, "window_size=15 must be at least 2 patches of 8 pixels"),
        ("qwen2_5_vl", {"fullatt_block_indexes": [-1]}, "fullatt_block_indexes=.* must be a list of numbers of layers"),
        ("exaone4_5", {"num_key_value_heads": 4}, "num_key_value_heads=4 must divide num_heads=6"),
        ("qwen2_vl", {"hidden_size": 64}, "hidden_size=64 must be the text part's hidden_size=48"),
        ("lfm2_vl", {"num_patches": 50}, "num_patches=50 must be a square"),
        ("internvl", {"image_size": 80}, "image_size=80 must be blocks of 32 pixels: patch_size / downsample_ratio"),
        ("llava_next", {"image_size": 7}, "image_size=7 must be a whole number from 8"),
        ("got_ocr2", {"image_size": 48}, "image_size=48 must be blocks of 32 pixels"),
        ("ovis2", {"image_size": 40}, "image_size=40 must be blocks of 16 pixels"),
        ("llava", {"image_size": 99}, "image_size=99 must be patches of 8 pixels"),
    ],
)
def test_sizes_that_do_not_fit(name: str, vision: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        open_tower(change_vision(save(tmp_path, name), **vision), "float32", "config.json")


@pytest.mark.parametrize("name", ["mistral3", "lfm2_vl"])
def test_the_last_layer_alone_is_read(name: str, tmp_path: Path) -> None:
    data = change_vision(save(tmp_path, name))
    open_tower({**data, "vision_feature_layer": -1}, "float32", "config.json")
    with pytest.raises(UnsupportedModel, match="vision_feature_layer=-2 is not supported"):
        open_tower({**data, "vision_feature_layer": -2}, "float32", "config.json")


@pytest.mark.parametrize(
    ("whole", "told"),
    [
        ({"downsample_mode": "8x"}, "downsample_mode='8x' is not supported; supported: 16x, 4x"),
        ({"merger_times": 2}, "merger_times=2 is not supported"),
        ({"merge_kernel_size": [4, 4]}, r"merge_kernel_size=\[4, 4\] is not supported"),
        ({"drop_vision_last_layer": True}, "drop_vision_last_layer=True is not supported"),
        ({"insert_layer_id": 4}, "insert_layer_id=4 must be a whole number from 0 to 3"),
    ],
)
def test_what_minicpm_does_not_make_of_patches(whole: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=told):
        open_tower({**change_vision(save(tmp_path, "minicpmv4_6")), **whole}, "float32", "config.json")


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        *(
            ("qianfan_ocr", key, said)
            for key, said in (("select_layer", -4), ("ps_version", "v1"), ("pad2square", True))
        ),
        *(("nemotron_h_omni", key, said) for key, said in (("ps_version", "v1"), ("use_pixel_shuffle", False))),
    ],
)
def test_how_authors_once_made_rows_otherwise(name: str, key: str, said: Any, tmp_path: Path) -> None:
    data = change_vision(save(tmp_path, name))
    open_tower({**data, "ps_version": "v2"}, "float32", "config.json")
    with pytest.raises(UnsupportedModel, match=f"{key}={said!r} is not supported; supported: "):
        open_tower({**data, key: said}, "float32", "config.json")


def test_rows_of_paligemma_are_as_wide_as_its_text_part(tmp_path: Path) -> None:
    data = change_vision(save(tmp_path, "paligemma"))
    with pytest.raises(ModelError, match="projection_dim=40 must be the text part's hidden_size=48"):
        open_tower({**data, "projection_dim": 40}, "float32", "config.json")
    data["vision_config"]["image_size"] = 99
    with pytest.raises(ModelError, match="image_size=99 must be patches of 8 pixels"):
        open_tower(data, "float32", "config.json")


@pytest.mark.parametrize(
    ("whole", "told"),
    [
        ({"downsample_factor": 5}, "downsample_factor=5 must cut the 12 patches on a side"),
        ({"alignment_intermediate_size": 41}, "alignment_intermediate_size=41 must be even"),
        ({"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy='default' is not supported"),
        ({"vision_feature_layer": [1, 2]}, r"vision_feature_layer=\[1, 2\] is not supported"),
        ({"alignment_activation_fn": "gelu"}, "alignment_activation_fn='gelu' is not supported; supported: swiglu"),
        ({"enable_adapter_layer_norm": False}, "enable_adapter_layer_norm=False is not supported; supported: True"),
    ],
)
def test_what_cohere_does_not_make_of_patches(whole: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=told):
        open_tower({**change_vision(save(tmp_path, "aya_vision")), **whole}, "float32", "config.json")


@pytest.mark.parametrize(("key", "said"), [("feature_select_strategy", "default"), ("aspect_ratio", "anyres")])
def test_what_onevision_does_not_make_of_blocks(key: str, said: str, tmp_path: Path) -> None:
    data = {**change_vision(save(tmp_path, "llava_onevision")), f"vision_{key}": said}
    with pytest.raises(UnsupportedModel, match=f"vision_{key}='{said}' is not supported"):
        open_tower(data, "float32", "config.json")


@pytest.mark.parametrize("layer", [0, 4, [], [1, 5], [1, "2"]])
def test_layers_that_mosaics_have_not(layer: Any, tmp_path: Path) -> None:
    data = {**change_vision(save(tmp_path, "llava_next")), "vision_feature_layer": layer}
    with pytest.raises(UnsupportedModel, match=r"vision_feature_layer=.* supported: (one|some) of 3 layers"):
        open_tower(data, "float32", "config.json")


@pytest.mark.parametrize(
    ("size", "words"), [((63, 32), "is not two blocks of 32 x 32"), ((64, 31), "two blocks"), ((64, 35), "is left")]
)
def test_mosaics_that_are_not_read(size: tuple[int, int], words: str, tmp_path: Path) -> None:
    """Of one block, of none side by side, and of which more is left out than there is."""
    tower = open_tower(change_vision(save(tmp_path, "llava_next")), "float32", "config.json")
    newline, table, of_class = tower.host_tensors
    fitting = {newline: np.zeros(48, np.float32), table: np.zeros((17, 144), np.float32)}
    fitting |= {of_class: np.zeros(144, np.float32)}
    with pytest.raises(InvariantError, match="is read before it is held"):
        tower.inputs(np.zeros((64, 32, 3), np.float32))
    for name, wrong in ((newline, (47,)), (table, (16, 144)), (of_class, (143,))):
        with pytest.raises(WeightMismatch, match=rf"{name} is \[\d+, \d+\], config.json implies"):
            tower.hold({**fitting, name: np.zeros(wrong, np.float32)})
    tower.hold(fitting)
    with pytest.raises(InvariantError, match=words):
        tower.inputs(np.zeros((*size, 3), np.float32))


def test_rows_are_those_of_patches_alone(tmp_path: Path) -> None:
    for name, other, own in (("llava_next", "full", "default"), ("llava, pixtral", "default", "full")):
        data = {**change_vision(save(tmp_path / name, name)), "vision_feature_select_strategy": other}
        with pytest.raises(UnsupportedModel, match=f"_select_strategy='{other}' is not supported; supported: {own}"):
            open_tower(data, "float32", "config.json")


@pytest.mark.parametrize("layer", [0, 4, -4, [1, 2], "last"])
def test_layers_that_towers_have_not(layer: Any, tmp_path: Path) -> None:
    for name in ("llava", "internvl"):
        data = {**change_vision(save(tmp_path / name, name)), "vision_feature_layer": layer}
        with pytest.raises(UnsupportedModel, match=r"vision_feature_layer=.* supported: one of 3 layers"):
            open_tower(data, "float32", "config.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"downsample_ratio": 0.3}, "downsample_ratio=0.3 is not supported; supported: 1 divided by a whole number"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy='full' is not supported"),
    ],
)
def test_what_internvl_does_not_make_of_patches(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        open_tower({**change_vision(save(tmp_path, "internvl")), **changes}, "float32", "config.json")


# -- keys that change what is computed ---------------------------------------------------------------------------------


def test_pixels_that_fill_no_patch_are_not_read(tmp_path: Path) -> None:
    """As of SmolVLM 2.2B, whose tiles of 384 pixels are 27 patches of 14; and its text part does not say its width."""
    folder = save(tmp_path, "idefics3", image_size=100)
    given = [np.random.default_rng(3).standard_normal((100, 100, 3), np.float32)]
    ours = [opened(folder, max_patches=160).rows(tile) for tile in given]
    assert farthest(ours, transformers_rows(folder, "idefics3", "float64", given)) < 1e-5
    whole = {"vision_config": {"image_size": 384, "patch_size": 14}, "scale_factor": 3, "model_type": "idefics3"}
    tower: Any = open_tower({**whole, "text_config": {"model_type": "llama"}}, "float32", "config.json")
    assert (tower.rows(384, 384), tower.width) == (81, 4096)
    with pytest.raises(InvariantError, match="a tile of 378 x 378 pixels; this tower reads tiles of 384 x 384"):
        tower.rows(378, 378)


@pytest.mark.parametrize(
    ("name", "vision", "whole"),
    [
        ("idefics3", {"layer_norm_eps": 0.5, "hidden_act": "gelu"}, {"scale_factor": 2}),
        ("gemma3", {"layer_norm_eps": 0.5}, {"mm_tokens_per_image": 36}),
        ("gemma4", {"use_clipped_linears": True}, {}),
        ("gemma4", {"use_clipped_linears": True, "standardize": False, "num_key_value_heads": 4}, {}),
        ("gemma4", {"rope_parameters": {"rope_type": "axial", "rope_theta": 7.0}}, {}),
        ("gemma4", {"rms_norm_eps": 0.5, "hidden_activation": "silu", "head_dim": 16}, {}),
        ("qwen3_5", {"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}, "temporal_patch_size": 2}, {}),
        ("qwen2_5_vl", {"fullatt_block_indexes": []}, {}),
        ("qwen2_5_vl", {"fullatt_block_indexes": [0, 1, 2, 3, 4]}, {}),
        ("qwen2_5_vl", {"window_size": 50, "fullatt_block_indexes": [0]}, {}),
        ("qwen2_5_vl", {"window_size": 16, "hidden_act": "gelu"}, {}),
        ("qwen2_vl", {"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}, "hidden_act": "gelu"}, {}),
        ("glm4v", {"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}, "rms_norm_eps": 0.5}, {}),
        ("glm4v", {"image_size": 100, "hidden_act": "gelu", "intermediate_size": 90}, {}),
        ("glm_ocr", {"attention_bias": False, "rms_norm_eps": 0.5, "image_size": 96}, {}),
        ("mistral3", {"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}}, {"projector_hidden_act": "relu"}),
        ("mistral3", {"hidden_act": "gelu"}, {"multimodal_projector_bias": True, "spatial_merge_size": 1}),
        ("paddleocr_vl", {"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}, "layer_norm_eps": 0.5}, {}),
        ("paddleocr_vl", {"image_size": 44, "hidden_act": "gelu"}, {}),
        ("janus", {"attention_bias": False, "layer_norm_eps": 0.5, "depth": 3, "hidden_act": "silu"}, {}),
        ("janus", {"depth": 1, "mlp_ratio": 2}, {}),
        ("deepseek_vl", {"layer_norm_eps": 0.5, "vision_use_head": False}, {}),
        ("got_ocr2", {"window_size": 4, "qkv_bias": False, "use_abs_pos": False, "hidden_act": "relu"}, {}),
        ("got_ocr2", {"layer_norm_eps": 0.5, "global_attn_indexes": [0, 1, 2], "output_channels": 16}, {}),
        ("ovis2", {"tokenize_function": "st_argmax", "rms_norm_eps": 0.5, "hidden_act": "gelu"}, {}),
        ("ovis2", {"qkv_bias": True, "mlp_bias": True, "hidden_stride": 1}, {}),
        ("ovis2", {"mlp_bias": True, "hidden_stride": 4}, {}),
        ("hunyuan_vl", {"rms_norm_eps": 0.5, "hidden_act": "silu", "max_image_size": 120}, {}),
        ("internvl", {"use_qk_norm": True, "norm_type": "rms_norm", "use_mean_pooling": False}, {}),
        ("internvl", {"use_mean_pooling": False, "attention_bias": True}, {"vision_feature_layer": 3}),
        ("qianfan_ocr", {"attention_bias": False, "use_qk_norm": True}, {"downsample_ratio": 0.25}),
        ("internvl", {"layer_norm_eps": 0.5, "hidden_act": "relu"}, {"vision_feature_layer": -2}),
        ("internvl", {"use_mask_token": True}, {"downsample_ratio": 0.5, "projector_hidden_act": "gelu_pytorch_tanh"}),
        ("lighton_ocr", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}, {"spatial_merge_size": 1}),
        ("llava", {"hidden_act": "gelu"}, {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}),
        ("llava, pixtral", {"hidden_act": "gelu"}, {"vision_feature_layer": -3, "multimodal_projector_bias": False}),
        ("llava", {"layer_norm_eps": 0.5}, {"vision_feature_layer": 1, "multimodal_projector_bias": False}),
        ("video_llama_3", {"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}, "hidden_act": "relu"}, {}),
        ("video_llama_3", {"layer_norm_eps": 0.5}, {}),
        ("vipllava", {}, {"vision_feature_layer": -1, "projector_layernorm_eps": 0.5, "projector_hidden_act": "relu"}),
        ("llava_next", {"hidden_act": "gelu"}, {"vision_feature_layer": [-2, 1, 3, 1]}),
        ("llava_next", {"layer_norm_eps": 0.5}, {"vision_feature_layer": 1, "multimodal_projector_bias": False}),
        (
            "llava_next",
            {"model_type": "siglip_vision_model", "hidden_act": "silu"},
            {"vision_feature_layer": [-3, -1], "vision_feature_select_strategy": "full"},
        ),
        ("aya_vision", {"layer_norm_eps": 0.5}, {"vision_feature_layer": -2, "alignment_intermediate_size": 24}),
        ("aya_vision", {"hidden_act": "gelu"}, {"vision_feature_layer": 1, "adapter_layer_norm_eps": 0.5}),
        ("minicpmv4_6", {"layer_norm_eps": 0.5, "hidden_act": "gelu"}, {"insert_layer_id": 2}),
        ("minicpm_ocr", {"image_size": 80}, {"downsample_mode": "4x"}),
        ("paligemma", {"layer_norm_eps": 0.5, "hidden_act": "silu"}, {}),
        ("cohere2_vision", {"layer_norm_eps": 0.5}, {"downsample_factor": 4}),
        ("llava_onevision", {"hidden_act": "gelu"}, {"vision_aspect_ratio": "anyres_max_3"}),
        ("llava_onevision", {"layer_norm_eps": 0.5}, {"vision_feature_layer": [-2, -1]}),
        ("lfm2_vl", {"layer_norm_eps": 0.5}, {"projector_use_layernorm": False, "projector_bias": False}),
        ("lfm2_vl", {"num_patches": 4}, {"downsample_factor": 1, "projector_hidden_act": "silu"}),
    ],
)
def test_keys_are_honoured(name: str, vision: dict[str, Any], whole: dict[str, Any], tmp_path: Path) -> None:
    folder, given = save(tmp_path, name, whole=whole, **vision), tiles(name)
    ours = [opened(folder, max_patches=160).rows(tile) for tile in given]
    assert farthest(ours, transformers_rows(folder, name, "float64", given)) < 1e-5


def test_pixels_that_fill_no_patch(tmp_path: Path) -> None:
    """As of SmolVLM 2.2B, whose tiles of 384 pixels are 27 patches of 14 on a side."""
    folder = save(tmp_path, "idefics3", image_size=100)
    given = np.random.default_rng(5).standard_normal((100, 100, 3), np.float32)
    (wanted,) = transformers_rows(folder, "idefics3", "float64", [given])
    assert farthest([opened(folder, max_patches=160).rows(given)], [wanted]) < 1e-5
    with pytest.raises(InvariantError, match="a tile of 96 x 96 pixels; this tower reads tiles of 100 x 100"):
        open_tower(change_vision(folder), "float32", "config.json").patches(96, 96)


def test_layers_of_vipllava_as_files_say_them(tmp_path: Path) -> None:
    """Under a name of their own, as published; or not."""
    data = change_vision(save(tmp_path, "vipllava"), num_hidden_layers=12)
    del data["vision_feature_layer"]
    for said, layers in (({}, (11, 8, 5, 2, 6)), ({"vision_feature_layers": [3, -1]}, (3, 12))):
        tower = open_tower({**data, **said}, "float32", "config.json")
        assert isinstance(tower, LlavaTower) and tower.layers == layers
    with pytest.raises(UnsupportedModel, match=r"vision_feature_layers=\[13\] is not supported"):
        open_tower({**data, "vision_feature_layers": [13]}, "float32", "config.json")


def test_rope_theta_as_it_was_once_written(tmp_path: Path) -> None:
    data = change_vision(save(tmp_path, "mistral3"), rope_parameters=None, rope_theta=50.0)
    tile, tower = tiles("mistral3")[0], open_tower(data, "float32", "config.json")
    turned = tower.inputs(tile).rope_rows
    written = change_vision(tmp_path, rope_parameters={"rope_type": "axial", "rope_theta": 50.0})
    wanted, default = (
        open_tower(each, "float32", "config.json").inputs(tile).rope_rows for each in (written, change_vision(tmp_path))
    )
    assert turned is not None and wanted is not None and default is not None
    assert np.array_equal(turned, wanted) and not np.array_equal(turned, default)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("idefics3", (96, 88)),
        ("idefics3", (48, 48)),
        ("gemma3", (48, 48)),
        ("internvl", (96, 88)),
        ("llava", (96, 88)),
        ("lfm2_vl", (48, 40)),
        ("mistral3", (40, 48)),
        ("qwen2_5_vl", (48, 40)),
        ("glm4v", (48, 40)),
        ("glm_ocr", (24, 48)),
        ("paddleocr_vl", (48, 24)),
        ("qwen3_5", (48, 50)),
        ("qwen3_5", (0, 48)),
    ],
)
def test_tiles_that_are_not_read(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    tower = open_tower(change_vision(save(tmp_path, name)), "float32", "config.json")
    num_rows = {"qwen3_5": 36, "glm4v": 36, "llava": 145, "internvl": 145, "paddleocr_vl": 144}.get(name, 49)
    single = ("class", "cls", "bias")
    shapes = {each: (1 if any(map(each.count, single)) else num_rows, 144) for each in tower.host_tensors}
    tower.hold({each: np.zeros(shape, np.float32) for each, shape in shapes.items()})
    with pytest.raises(InvariantError, match=f"a tile of {size[0]} x {size[1]} pixels"):
        tower.inputs(np.zeros((*size, 3), np.float32))
