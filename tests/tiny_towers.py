"""Tiny models that read pictures, with random weights, as transformers makes and saves them; and the rows it computes.

Used by the tests of models/vision and execution/vision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.backends.backend import KernelCatalog
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.execution.vision import VisionRunner, num_blocks, vision_programs
from albireo.graph.program import Program
from albireo.models.vision.mosaic import Mosaic
from albireo.models.vision.ovis2 import FRAMES
from albireo.models.vision.tower import open_tower, tower_tensors
from further_towers import FURTHER
from made_once import made_once
from tower_family import LLAMA, SIGLIP, Family, patches_of, text_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
_HEADS = {"num_key_value_heads": 2}


def _of_idefics3(model: Any, tile: Any) -> Any:
    return model.get_image_features(tile.permute(2, 0, 1)[None, None]).pooler_output[0]


def _of_qwen_vl(model: Any, tile: Any) -> Any:
    """Patches in blocks of what is merged, each of two frames alike."""
    cut = patches_of(tile, 8, 2)
    frames = cut.permute(0, 1, 2, 3, 6, 4, 5)[:, :, :, :, :, None].expand(*cut.shape[:4], 3, 2, 8, 8)
    grid = torch.tensor([[1, tile.shape[0] // 8, tile.shape[1] // 8]])
    return model.get_image_features(frames.reshape(-1, 3 * 2 * 8 * 8), grid).pooler_output[0]


def _in_reading_order(tile: Any) -> tuple[Any, Any]:
    """Patches [T, 3 * 8 * 8], and the grid they are of."""
    patches = patches_of(tile, 8).permute(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3 * 8 * 8)
    return patches, torch.tensor([[1, tile.shape[0] // 8, tile.shape[1] // 8]])


def _of_paddleocr_vl(model: Any, tile: Any) -> Any:
    """Each patch a picture."""
    patches, grid = _in_reading_order(tile)
    return model.get_image_features(patches.reshape(-1, 3, 8, 8), grid).pooler_output[0]


def _of_video_llama_3(model: Any, tile: Any) -> Any:
    """No patches are merged."""
    return model.get_image_features(*_in_reading_order(tile), torch.tensor([1])).pooler_output[0]


def _of_hunyuan_vl(model: Any, tile: Any) -> Any:
    return model.get_image_features(*_in_reading_order(tile)).pooler_output[0]


def _of_ovis2(model: Any, tile: Any) -> Any:
    """With marks around them, which the tile's width tells."""
    found = model.get_image_features(tile[:, : len(tile)].permute(2, 0, 1)[None])
    before, behind = (found.visual_indicator_features[list(marks)] for marks in FRAMES[tile.shape[1] - len(tile)])
    return torch.cat([before, found.pooler_output[0], behind])


def without_layer_scale(model: Any) -> None:
    """C-RADIO has none; transformers' class has, of ones."""
    for layer in model.vision_model.encoder.layer:
        layer.layer_scale1.lambda1.data.fill_(1.0)
        layer.layer_scale2.lambda1.data.fill_(1.0)


def _of_nemotron_h_omni(model: Any, tile: Any) -> Any:
    without_layer_scale(model)
    patches, grid = _in_reading_order(tile)
    model.vision_model.config.torch_dtype = tile.dtype
    return model.get_image_features(patches, grid[:, 1:]).pooler_output[0]


def _of_minicpmv4_6(model: Any, tile: Any) -> Any:
    """Patches beside each other, channel and line first."""
    height, width = (side // 8 for side in tile.shape[:2])
    patches = tile.reshape(height, 8, width, 8, 3).permute(4, 1, 0, 2, 3).reshape(1, 3, 8, -1)
    sizes = torch.tensor([[height, width]], dtype=torch.int32)
    return model.get_image_features(patches, sizes).pooler_output[0]


def _of_pixtral(model: Any, tile: Any) -> Any:
    sizes = torch.tensor([tile.shape[:2]])
    return model.get_image_features(tile.permute(2, 0, 1)[None], image_sizes=sizes).pooler_output[0]


def _of_gemma4(model: Any, tile: Any, size: int = 8) -> Any:
    """Patches with the channel last, colours from 0 to 1, and column and row of each."""
    height, width = (side // size for side in tile.shape[:2])
    patches = tile.reshape(height, size, width, size, 3).permute(0, 2, 1, 3, 4).reshape(1, height * width, -1)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows], dim=-1).reshape(1, -1, 2)
    return model.get_image_features(patches, places, return_dict=True).pooler_output[0]


def _of_llava(model: Any, tile: Any) -> Any:
    return model.get_image_features(tile.permute(2, 0, 1)[None]).pooler_output[0]


def _of_llava_next(model: Any, tile: Any) -> Any:
    """Blocks of a mosaic, the whole picture first, and of what size it is that as much is left of them."""
    mosaic = Mosaic.of(*tile.shape[:2], 32)
    blocks = torch.stack([block.permute(2, 0, 1) for block in mosaic.blocks(tile, 32)])
    high, wide = mosaic.grid(4)
    return model.get_image_features(blocks[None], torch.tensor([[high * 8, wide * 8]])).pooler_output[0]


def _of_lfm2_vl(model: Any, tile: Any) -> Any:
    patches = patches_of(tile, 8).reshape(1, -1, 3 * 8 * 8)
    shape = torch.tensor([[tile.shape[0] // 8, tile.shape[1] // 8]])
    return model.get_image_features(patches, shape, torch.ones(patches.shape[:2], dtype=torch.int64)).pooler_output[0]


_SAM = {
    "hidden_size": 48,
    "mlp_dim": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "output_channels": 24,
    "image_size": 64,
    "patch_size": 8,
    "window_size": 3,
    "global_attn_indexes": [1, 3],
}
_INTERNVL = {**SIGLIP, "image_size": [96, 96], "patch_size": [8, 8]}
_QWEN3_VL = {
    "hidden_size": 144,
    "intermediate_size": 200,
    "depth": 3,
    "num_heads": 2,
    "patch_size": 8,
    "num_position_embeddings": 36,
    "out_hidden_size": 48,
}
_PIXTRAL = {
    "hidden_size": 128,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 8,
    "hidden_act": "silu",
}
_QWEN2_VL = {"hidden_size": 48, "embed_dim": 144, "mlp_ratio": 2, "depth": 3, "num_heads": 2, "patch_size": 8}
# windows of 4 x 4 patches
_QWEN2_5_VL = {
    "hidden_size": 144,
    "intermediate_size": 200,
    "depth": 4,
    "num_heads": 2,
    "patch_size": 8,
    "window_size": 32,
    "fullatt_block_indexes": [1, 3],
    "out_hidden_size": 48,
}
_GLM4V = {
    "hidden_size": 144,
    "intermediate_size": 200,
    "depth": 3,
    "num_heads": 2,
    "patch_size": 8,
    "image_size": 48,
    "out_hidden_size": 48,
}
# two heads of queries share one of keys and values; heads of 48, as of 26B-A4B a multiple of 4 and no power of 2
_GEMMA4 = {
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 48,
    "patch_size": 8,
    "pooling_kernel_size": 2,
    "position_embedding_size": 20,
    "standardize": True,
}
_GEMMA4_UNIFIED = {"patch_size": 8, "pooling_kernel_size": 2, "mm_embed_dim": 96, "mm_posemb_size": 10}
_GEMMA4_UNIFIED |= {"output_proj_dims": 96}
# grids smaller and larger than the table, and one line
_ANY = ((48, 96), (112, 80), (16, 144))


FAMILIES: dict[str, Family] = {
    "aya_vision": Family(
        "AyaVisionModel", ((96, 96),), _of_llava, SIGLIP, text_of("cohere2"), {"downsample_factor": 3}
    ),
    "cohere2_vision": Family(
        "Cohere2VisionModel",
        ((96, 96),),
        _of_llava,
        SIGLIP,
        text_of("cohere2"),
        {"alignment_intermediate_size": 80},
    ),
    "exaone4_5": Family(
        "Exaone4_5_Model",
        _ANY,
        _of_qwen_vl,
        {**_QWEN2_5_VL, "num_heads": 6, "num_key_value_heads": 2},
        {**LLAMA, "model_type": "exaone4", **_HEADS, "layer_types": ["full_attention"]},
    ),
    # its whole, likewise
    "hyperclovax_vision_v2": Family(
        "HyperCLOVAXVisionV2ForConditionalGeneration",
        _ANY,
        _of_qwen_vl,
        {**_QWEN2_5_VL, "model_type": "qwen2_5_vl_vision", "out_hidden_size": 40},
        text_of("hyperclovax"),
    ),
    "gemma3": Family("Gemma3Model", ((96, 96),), _of_llava, SIGLIP, text_of("gemma3_text"), {"mm_tokens_per_image": 9}),
    "gemma4": Family("Gemma4Model", _ANY, _of_gemma4, _GEMMA4, text_of("gemma4_text")),
    "gemma4_unified": Family(
        "Gemma4UnifiedModel", _ANY, partial(_of_gemma4, size=16), _GEMMA4_UNIFIED, text_of("gemma4_unified_text")
    ),
    "glm4v": Family("Glm4vModel", _ANY, _of_qwen_vl, _GLM4V, {**LLAMA, "model_type": "glm4v_text", **_HEADS}),
    "glm4v_moe": Family(
        "Glm4vMoeModel", _ANY, _of_qwen_vl, _GLM4V, {**text_of("glm4_moe"), "model_type": "glm4v_moe_text"}
    ),
    "glm_ocr": Family(
        "GlmOcrModel", _ANY, _of_qwen_vl, _GLM4V, {**LLAMA, "model_type": "glm_ocr_text", **_HEADS, "head_dim": 24}
    ),
    # eight patches on a side, windows of three
    "got_ocr2": Family("GotOcr2Model", ((64, 64),), _of_llava, _SAM, {**LLAMA, "model_type": "qwen2", **_HEADS}),
    # its whole, whose tensors alone are saved under published names
    "hunyuan_vl": Family(
        "HunYuanVLForConditionalGeneration",
        _ANY,
        _of_hunyuan_vl,
        {key: value for key, value in SIGLIP.items() if key != "image_size"} | {"max_image_size": 64},
        {
            **LLAMA,
            "model_type": "hunyuan_vl_text",
            **_HEADS,
            "head_dim": 24,
            "rope_parameters": {
                "rope_type": "dynamic",
                "rope_theta": 1e4,
                "factor": 1.0,
                "alpha": 9.0,
                "mrope_section": [3] * 4,
            },
        },
    ),
    "internvl": Family("InternVLModel", ((96, 96),), _of_llava, _INTERNVL, whole={"downsample_ratio": 0.25}),
    "qianfan_ocr": Family(
        # its whole, whose tensors alone are saved under published names
        "QianfanOCRForConditionalGeneration",
        ((96, 96),),
        _of_llava,
        _INTERNVL,
        {**LLAMA, "model_type": "qwen3", **_HEADS},
    ),
    "janus": Family(
        "JanusModel",
        ((96, 96),),
        _of_llava,
        {
            **{key: value for key, value in SIGLIP.items() if key != "intermediate_size"},
            **{"mlp_ratio": 1.5, "projection_dim": 48, "num_image_tokens": 144},
        },
        whole={"vq_config": {"base_channels": 32, "num_embeddings": 8, "projection_dim": 8, "latent_channels": 8}},
    ),
    "deepseek_vl": Family("DeepseekVLModel", ((96, 96),), _of_llava, SIGLIP),
    "lfm2_vl": Family(
        "Lfm2VlModel",
        _ANY,
        _of_lfm2_vl,
        {key: value for key, value in SIGLIP.items() if key != "image_size"} | {"num_patches": 49},
        text_of("lfm2"),
        {"projector_hidden_size": 100},
    ),
    "lighton_ocr": Family(
        "LightOnOcrModel", _ANY, _of_pixtral, _PIXTRAL, {**LLAMA, "model_type": "qwen3", **_HEADS, "head_dim": 24}
    ),
    "llava": Family("LlavaModel", ((96, 96),), _of_llava, SIGLIP),
    "video_llama_3": Family(
        "VideoLlama3Model",
        ((48, 96), (8, 144), (40, 24)),
        _of_video_llama_3,
        {key: value for key, value in SIGLIP.items() if key != "image_size"},
        {**LLAMA, "model_type": "qwen2", **_HEADS},
    ),
    "vipllava": Family(
        "VipLlavaModel",
        ((96, 96),),
        _of_llava,
        {**SIGLIP, "num_hidden_layers": 4},
        whole={"vision_feature_layer": [-2, 1]},
    ),
    "llava, pixtral": Family(
        "LlavaModel",
        ((48, 96), (112, 80), (8, 144)),
        _of_pixtral,
        {**_PIXTRAL, "model_type": "pixtral"},
        whole={"vision_feature_layer": -1, "vision_feature_select_strategy": "full"},
    ),
    # two blocks side by side, two in a column, and four, of which some patches are left out
    "llava_next": Family(
        "LlavaNextModel",
        tuple(mosaic.size(32) for mosaic in (Mosaic(1, 2), Mosaic(2, 1, 0, 1), Mosaic(2, 2, 1))),
        _of_llava_next,
        {**SIGLIP, "image_size": 32},
        whole={"image_grid_pinpoints": [[32, 64], [64, 32], [64, 64]]},
    ),
    # of two blocks and of four more rows than of one
    "llava_onevision": Family(
        "LlavaOnevisionModel",
        tuple(mosaic.size(32) for mosaic in (Mosaic(1, 2), Mosaic(2, 1, 0, 1), Mosaic(2, 2, 1), Mosaic(1, 1, 0, 1))),
        _of_llava_next,
        {**SIGLIP, "image_size": 32},
        {**LLAMA, "model_type": "qwen2", **_HEADS},
        {"image_grid_pinpoints": [[32, 32], [32, 64], [64, 32], [64, 64]], "vision_aspect_ratio": "anyres_max_1"},
    ),
    "minicpm_ocr": Family(
        "MiniCPMOcrModel", _ANY, _of_minicpmv4_6, SIGLIP, text_of("qwen3_5_text"), {"insert_layer_id": 1}
    ),
    "minicpmv4_6": Family(
        "MiniCPMV4_6Model",
        ((64, 96), (96, 32), (32, 160)),
        _of_minicpmv4_6,
        {**SIGLIP, "num_hidden_layers": 4},
        text_of("qwen3_5_text"),
        {"insert_layer_id": 1},
    ),
    "mistral3": Family("Mistral3Model", _ANY, _of_pixtral, _PIXTRAL, {**LLAMA, "model_type": "mistral"}),
    "nemotron_h_omni": Family(
        "NemotronH_Omni_Reasoning_V3",
        _ANY,
        _of_nemotron_h_omni,
        {
            **{key: value for key, value in SIGLIP.items() if key not in ("intermediate_size", "image_size")},
            **{"model_type": "radio", "mlp_ratio": 1.5, "max_img_size": 48, "num_cls_tokens": 2, "num_registers": 3},
            "video_temporal_patch_size": 2,
        },
        text_of("nemotron_h"),
        {"vision_hidden_size": 144, "projector_hidden_size": 80, "audio_config": None},
    ),
    "ovis2": Family(
        "Ovis2Model",
        tuple((32, 32 + place) for place in range(len(FRAMES))),
        _of_ovis2,
        {**SIGLIP, "image_size": 32, "hidden_act": "silu", "vocab_size": 41, "hidden_stride": 2},
        {**LLAMA, "model_type": "qwen2", **_HEADS},
        {"hidden_size": 48},
    ),
    "paddleocr_vl": Family(
        "PaddleOCRVLModel",
        _ANY,
        _of_paddleocr_vl,
        SIGLIP,
        {**LLAMA, "model_type": "paddleocr_vl_text", **_HEADS, "head_dim": 24},
    ),
    "paligemma": Family("PaliGemmaModel", ((96, 96),), _of_llava, SIGLIP, text_of("gemma"), {"projection_dim": 48}),
    "qwen2_5_vl": Family(
        "Qwen2_5_VLModel", _ANY, _of_qwen_vl, _QWEN2_5_VL, {**LLAMA, "model_type": "qwen2_5_vl_text", **_HEADS}
    ),
    "qwen2_vl": Family(
        "Qwen2VLModel", _ANY, _of_qwen_vl, _QWEN2_VL, {**LLAMA, "model_type": "qwen2_vl_text", **_HEADS}
    ),
    "qwen3_5": Family("Qwen3_5Model", _ANY, _of_qwen_vl, _QWEN3_VL, text_of("qwen3_5_text")),
    "qwen3_5_moe": Family("Qwen3_5MoeModel", _ANY, _of_qwen_vl, _QWEN3_VL, text_of("qwen3_5_moe_text")),
    "qwen3_vl": Family(
        "Qwen3VLModel",
        _ANY,
        _of_qwen_vl,
        {**_QWEN3_VL, "deepstack_visual_indexes": []},
        {**LLAMA, "model_type": "qwen3_vl_text", "num_key_value_heads": 2, "head_dim": 24},
    ),
    "idefics3": Family("Idefics3Model", ((96, 96),), _of_idefics3, SIGLIP, whole={"scale_factor": 3}),
    "smolvlm": Family("SmolVLMModel", ((96, 96),), _of_idefics3, SIGLIP, whole={"scale_factor": 4}),
    **FURTHER,
}


#: Numbers that checkpoints have and that are no parameters -> around what they are drawn. Bounds cut some of what they
#: are for, at either end.
BUFFERS = {
    "std_bias": 0.0,
    "std_scale": 1.0,
    "input_min": -1.0,
    "input_max": 1.0,
    "output_min": -1.5,
    "output_max": 1.5,
}


@made_once
def save(
    folder: Path,
    name: str,
    dtype: str = "float32",
    seed: int = 0,
    whole: Mapping[str, Any] | None = None,
    **vision: Any,
) -> Path:
    """A model of that family; every weight is drawn, norms around one, the rest such that activations stay near unit
    size. Weights are numbers of dtype. Args: whole, vision: keys that differ, of the whole and of vision_config."""
    family = FAMILIES[name]
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind = getattr(transformers, family.class_name).config_class.sub_configs_defaults["vision_config"]
    of_vision = {"model_type": kind.model_type, **family.vision, **vision}
    parts = {"vision_config": of_vision, **({"text_config": dict(family.text)} if family.text else {})}
    config = transformers.AutoConfig.for_model(name.partition(",")[0], **parts, **{**family.whole, **(whole or {})})
    model = getattr(transformers, family.class_name)(config).eval()
    with torch.no_grad():
        for of_weight, parameter in model.named_parameters():
            if parameter.ndim > 1:
                scale = 1.0 if "position" in of_weight else parameter[0].numel() ** -0.5
                parameter.normal_(0.0, 1.3 * scale)
            else:
                parameter.normal_(1.0 if "norm" in of_weight.lower() and of_weight.endswith("weight") else 0.0, 0.2)
            parameter.copy_(parameter.to(getattr(torch, dtype)))
        for of_number, number in model.named_buffers():
            mean = BUFFERS.get(of_number.rpartition(".")[2])
            if mean is not None:
                number.normal_(mean, 0.2).copy_(number.to(getattr(torch, dtype)))
    model.save_pretrained(folder)
    return folder


def tiles(name: str, seed: int = 1) -> list[F32]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((*size, 3), np.float32) for size in FAMILIES[name].tiles]


def transformers_rows(folder: Path, name: str, dtype: str, given: list[F32]) -> list[F64]:
    torch.set_num_threads(1)
    family, kind = FAMILIES[name], getattr(torch, dtype)
    model = getattr(transformers, family.class_name).from_pretrained(folder, dtype=kind, attn_implementation="eager")
    with torch.no_grad():
        return [family.rows(model.eval(), torch.tensor(tile).to(kind)).double().numpy() for tile in given]


def opened(
    folder: Path, dtype: str = "float32", num_threads: int = 1, max_patches: int | None = None, **changes: Any
) -> VisionRunner:
    """On the CPU. Args: max_patches: None: as many as tiles of the family have. changes: keys of config.json that
    differ."""
    pool = thread_pool(num_threads)
    if max_patches is None:
        kind = json.loads((folder / "config.json").read_text())["model_type"]
        max_patches = FAMILIES[kind].max_patches if kind in FAMILIES else 160

    def open_program(program: Program, weights: Any) -> CpuModel:
        return CpuModel(program, weights, pool, num_blocks(program))

    return opened_by(open_program, CpuCatalog(isa_levels()), folder, dtype, max_patches, **changes)


def opened_by(
    open_program: Callable[[Program, Any], Any],
    catalog: KernelCatalog,
    folder: Path,
    dtype: str,
    max_patches: int,
    **changes: Any,
) -> VisionRunner:
    data = {**json.loads((folder / "config.json").read_text()), **changes}
    tower, tensors = open_tower(data, dtype, str(folder)), tower_tensors(folder)
    runner = VisionRunner(tower, tensors, vision_programs(tower, catalog, max_patches), open_program)
    tensors.close()
    return runner


def change_vision(folder: Path, **values: Any) -> dict[str, Any]:
    """The model's config.json with other keys of vision_config; None takes one away."""
    data: dict[str, Any] = json.loads((folder / "config.json").read_text())
    given = {**data["vision_config"], **values}
    return {**data, "vision_config": {key: value for key, value in given.items() if value is not None}}


def farthest(ours: list[Any], theirs: list[F64]) -> float:
    return max(float(np.linalg.norm(x - y) / np.linalg.norm(y)) for x, y in zip(ours, theirs, strict=True))
