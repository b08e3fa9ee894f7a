"""Tiny models that see in two GGUF files, as llama.cpp's converters make them of a checkpoint: the text part, and what
sees for it (mmproj).

Names are those of the gguf package's own map of tensors. What a converter does is written out here, after
conversion/*.py of llama.cpp, independently of albireo.models.gguf.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from models.gguf import conversions, further_conversions
from models.gguf.conversions import Conversion
from models.gguf.writer import Array, gguf, permuted
from sight_family import Family
from text.gguf_settings import byte_level_settings
from tiny_sights import FAMILIES, save_family

#: What a converter gives for a tensor of a tower: names as the authors publish them, or already of a file, and numbers.
Given = Iterator[tuple[str, Array]]
Config = dict[str, Any]
_TEXT = ("model.language_model.", "model.text_model.", "language_model.model.")


def _as_it_is(name: str, array: Array, config: Config) -> Given:
    yield name, array


@dataclass(frozen=True)
class Projection:
    """Of one family.

    Fields:
        kind: type of the projector. text: of the text part.
        keys: of the tower, beside those of all; a key with "." first is no tower's.
        names: patterns of names of the checkpoint -> what the map has, in this order.
        change: see Given.
        family: what is changed of the family in tiny_sights, so that such files can say it.
        heard: type, and keys, of what hears beside.
    """

    kind: str
    text: Conversion
    keys: Callable[[Config], Config]
    names: tuple[tuple[str, str], ...] = ()
    change: Callable[[str, Array, Config], Given] = _as_it_is
    family: Callable[[Family], Family] = lambda family: family
    heard: tuple[str, Callable[[Config], Config]] | None = None


def _text(text: Conversion, **keys: Any) -> Conversion:
    """With further keys."""
    return replace(text, keys=lambda c: {**text.keys(c), **keys})


def _of_qwen(name: str, array: Array, config: Config) -> Given:
    """Qwen2VLVisionModel.modify_tensors(), Qwen3VLVisionModel.modify_tensors()."""
    is_3 = config["model_type"].startswith("qwen3")
    if name.endswith("patch_embed.proj.weight"):
        yield "v.patch_embd.weight", array[:, :, 0]
        yield "v.patch_embd.weight.1", array[:, :, 1]
    elif ".qkv." in name and not is_3:
        for part, rows in zip("qkv", np.split(array, 3), strict=True):
            yield name.replace("qkv", part), rows
    elif (deep := re.fullmatch(r"visual\.deepstack_merger_list\.(\d+)\.(?:linear_)?(\w+)\.(\w+)", name)) is not None:
        layer = config["vision_config"]["deepstack_visual_indexes"][int(deep[1])]
        yield f"v.deepstack.{layer}.{deep[2]}.{deep[3]}", array
    elif name.startswith("visual.merger.linear_fc"):
        number, kind = name.removeprefix("visual.merger.linear_fc").split(".")
        yield f"mm.{(int(number) - 1) * 2}.{kind}", array
    elif name.startswith("visual.merger.norm."):
        yield f"v.post_ln.{name.rpartition('.')[2]}", array
    else:
        yield name, array


def _qwen_keys(**more: Any) -> Callable[[Config], Config]:
    def keys(config: Config) -> Config:
        vision = config["vision_config"]
        width = vision.get("embed_dim") or vision["hidden_size"]
        return {
            "embedding_length": width,
            # of Qwen 2 converters write the width of the text part
            "feed_forward_length": vision["hidden_size" if "embed_dim" in vision else "intermediate_size"],
            "block_count": vision["depth"],
            "attention.head_count": vision["num_heads"],
            "image_size": 560,
            "attention.layer_norm_epsilon": 1e-6,
            # as those of newer kinds have them
            "image_min_pixels": 256,
            "image_max_pixels": 4096,
            **more,
        }

    return keys


def _qwen3_keys(config: Config) -> Config:
    vision = config["vision_config"]
    deep = [layer in (vision.get("deepstack_visual_indexes") or []) for layer in range(vision["depth"])]
    return {**_qwen_keys(spatial_merge_size=2)(config), ".use_gelu": True, "is_deepstack_layers": deep}


def _qwen2_5_keys(config: Config) -> Config:
    vision = config["vision_config"]
    more = {"n_wa_pattern": vision["fullatt_block_indexes"][0] + 1, "window_size": vision["window_size"]}
    return {**_qwen_keys(**more)(config), ".use_silu": True}


def _sizes(config: Config) -> Config:
    """MmprojModel.set_gguf_parameters()."""
    vision = config["vision_config"]

    def one(key: str) -> Any:
        value = vision.get(key)
        return value[0] if isinstance(value, list) else value

    return {
        "embedding_length": vision["hidden_size"],
        "feed_forward_length": vision["intermediate_size"],
        "block_count": vision["num_hidden_layers"],
        "attention.head_count": vision["num_attention_heads"],
        "image_size": one("image_size"),
        "attention.layer_norm_epsilon": vision.get("layer_norm_eps", 1e-6),
    }


def _gemma3(name: str, array: Array, config: Config) -> Given:
    """Gemma3VisionModel.modify_tensors()."""
    if ".head." not in name:
        yield name.replace("_weight", ".weight"), array + np.float32("soft_emb_norm" in name)


def _gemma3_text(name: str, array: Array, c: Config) -> conversions.Given:
    """Gemma3Model.modify_tensors()."""
    yield name, array + np.float32(1) if name.endswith("norm.weight") else array


def _gemma3_text_keys(c: Config) -> Config:
    scaling = {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
    return {"attention.sliding_window": c["sliding_window"], **scaling}


def _pixtral(name: str, array: Array, config: Config) -> Given:
    """LlavaVisionModel.modify_tensors()."""
    heads = config["vision_config"]["num_attention_heads"]
    yield name, permuted(array, heads) if re.search(r"\.[qk]_proj\.", name) else array


def _pixtral_keys(config: Config) -> Config:
    merge = {"spatial_merge_size": config["spatial_merge_size"]} if "spatial_merge_size" in config else {}
    return {**_sizes(config), ".use_silu": True, **merge}


def _lfm2(name: str, array: Array, config: Config) -> Given:
    """LFM2VLModel.modify_tensors()."""
    if "patch_embedding.weight" in name:
        array = array.reshape(len(array), 16, 16, 3).transpose(0, 3, 1, 2)
    if ".head." not in name:
        yield name, array


_BOUNDS = tuple(f".{side}_{end}" for side in ("input", "output") for end in ("min", "max"))


def _llama4(name: str, array: Array, config: Config) -> Given:
    """Llama4VisionModel.modify_tensors()."""
    if name.startswith("multi_modal_projector.linear_1"):
        name = "mm.model.fc.weight"
    yield name + ".weight" if name.endswith("positional_embedding_vlm") else name, array


def _minicpm(name: str, array: Array, config: Config) -> Given:
    """MiniCPMV4_6VisionModel, of whose merger this version of the package has no names."""
    for of, new in _MINICPM.items():
        if name.startswith(of):
            name = new + name.removeprefix(of)
    yield name, array


_MINICPM = {
    "model.merger.mlp.0.pre_norm.": "mm.input_norm.",
    "model.merger.mlp.0.linear_1.": "mm.up.",
    "model.merger.mlp.0.linear_2.": "mm.down.",
    "model.vision_tower.vit_merger.layer_norm1.": "v.vit_merger.ln1.",
    **{f"model.vision_tower.vit_merger.self_attn.{p}_proj.": f"v.vit_merger.attn_{p}." for p in "qkv"},
    "model.vision_tower.vit_merger.self_attn.out_proj.": "v.vit_merger.attn_out.",
    "model.vision_tower.vit_merger.pre_norm.": "v.vit_merger.ds_ln.",
    "model.vision_tower.vit_merger.linear_1.": "v.vit_merger.ds_ffn_up.",
    "model.vision_tower.vit_merger.linear_2.": "v.vit_merger.ds_ffn_down.",
    "model.vision_tower.": "vision_tower.vision_model.",
}


def _gemma4(name: str, array: Array, config: Config) -> Given:
    """Gemma4VisionAudioModel.modify_tensors()."""
    array = array.reshape(1) if not array.shape else array
    if "audio" in name:
        name = name.replace("model.audio_tower.", "conformer.").replace(".linear.", ".")
        if name.endswith("per_dim_scale"):
            name, array = name + ".weight", np.log1p(np.exp(array))
        if "depthwise_conv1d" in name:
            array = array[:, 0]
    else:
        name = name.replace("model.vision_tower.encoder.", "vision_model.model.").replace(".linear.weight", ".weight")
        name += ".weight" if name.endswith("position_embedding_table") else ""
        if name.endswith("input_proj.weight"):
            array = array.reshape(len(array), 8, 8, 3).transpose(0, 3, 1, 2)
    yield name, array


def _gemma4_keys(config: Config) -> Config:
    # of pictures of up to six rows
    return {**_sizes({**config, "vision_config": {"image_size": 224, **config["vision_config"]}}), **_GEMMA4_SIZES}


def _of_older(c: Config) -> Config:
    """Of its text part, with heads of layers without a window as files had them before."""
    full = next(iter(c["per_layer_config"].values()))
    heads = {"global_head_dim": full["head_dim"], "num_global_key_value_heads": full.get("num_key_value_heads")}
    return {**c, **heads}


_OLDER_GEMMA4 = conversions.CONVERSIONS["gemma4_text"]
_GEMMA4_TEXT = replace(
    _OLDER_GEMMA4,
    keys=lambda c: _OLDER_GEMMA4.keys(_of_older(c)),
    change=lambda name, array, c: _OLDER_GEMMA4.change(name, array, _of_older(c)),
)
_GEMMA4_SIZES = {"image_size": 224, "projector.scale_factor": 2, "image_max_pixels": 6 * 16 * 16}


def _gemma4_sounds(config: Config) -> Config:
    audio = config["audio_config"]
    return {
        "embedding_length": audio["hidden_size"],
        "feed_forward_length": 4 * audio["hidden_size"],
        "block_count": audio["num_hidden_layers"],
        "attention.head_count": audio["num_attention_heads"],
        "attention.layer_norm_epsilon": 1e-6,
        "num_mel_bins": 4,
    }


_SIGLIP = (r"^(model\.)?vision_tower\.", "vision_tower.vision_model.")
_IN_TOWER = (r"^model\.(multi_modal_projector|vision_tower|visual)\.", r"\1.")
_INTERNVL = (
    (r"^(?:model\.)?multi_modal_projector\.layer_norm\.", "mlp1.0."),
    (r"^(?:model\.)?multi_modal_projector\.linear_1\.", "mlp1.1."),
    (r"^(?:model\.)?multi_modal_projector\.linear_2\.", "mlp1.3."),
    # as the authors publish it, of which this version of the package has names
    _SIGLIP,
    (r"\.cls_token$", ".class_embedding"),
    (r"\.position_embeddings", ".position_embedding"),
    (r"\.patch_embeddings\.projection\.", ".patch_embedding."),
    (r"\.encoder\.layer\.", ".encoder.layers."),
    (r"\.attention\.projection_layer\.", ".attn.proj."),
    (r"\.attention\.([qk])_norm\.", r".attn.\1_norm."),
    (r"\.attention\.([qkv])_proj\.", r".self_attn.\1_proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.lambda_(\d)", r".ls\1.weight"),
    (r"(position_embedding)$", r"\1.weight"),
)


def _as_gemma3(family: Family) -> Family:
    """One in six layers sees everything, and scores are divided as by a head's width."""
    return replace(
        family,
        config=lambda ids: {
            **family.config(ids),
            "text_config": {
                **{k: v for k, v in family.config(ids)["text_config"].items() if k != "layer_types"},
                "num_hidden_layers": 6,
                "sliding_window_pattern": 6,
                "query_pre_attn_scalar": family.config(ids)["text_config"]["head_dim"],
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
            },
        },
    )


def _as_lfm2(family: Family) -> Family:
    def config(ids: Mapping[str, int]) -> Config:
        found = family.config(ids)
        return {**found, "vision_config": {**found["vision_config"], "patch_size": 16}}

    files = {"preprocessor_config.json": {"image_processor_type": "Lfm2VlImageProcessor"}}
    return replace(family, config=config, files=files)


def _as_llama4(family: Family) -> Family:
    """Three of four layers rotate, and see chunks that no text of tests is as long as."""
    more = {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0], "attention_chunk_size": 8192, "floor_scale": 8192}
    more |= {"layer_types": ["chunked_attention"] * 3 + ["full_attention"], "moe_layers": None}

    def config(ids: Mapping[str, int]) -> Config:
        found = family.config(ids)
        return {**found, "text_config": {**found["text_config"], **more}}

    return replace(family, config=config)


_LLAMA = Conversion("llama", lambda c: {"rope.dimension_count": conversions.k.head_dim_of(c)}, conversions._llama)
_LFM2 = conversions.CONVERSIONS["lfm2"]
_QWEN_TEXT = further_conversions.CONVERSIONS["qwen2"]
PROJECTIONS: dict[str, Projection] = {
    "gemma3": Projection(
        "gemma3",
        Conversion("gemma3", _gemma3_text_keys, _gemma3_text),
        lambda c: {**_sizes(c), ".use_gelu": True, "projector.scale_factor": 2},
        (_SIGLIP, _IN_TOWER),
        _gemma3,
        _as_gemma3,
    ),
    "idefics3": Projection(
        "idefics3",
        _LLAMA,
        lambda c: {**_sizes(c), ".use_gelu": True, "projector.scale_factor": 2, "preproc_image_size": 96},
    ),
    "internvl": Projection(
        "internvl",
        _LLAMA,
        lambda c: {**_sizes(c), ".use_gelu": True, "projector.scale_factor": 2, "preproc_max_tiles": 3},
        _INTERNVL,
    ),
    "gemma4": Projection("gemma4v", _GEMMA4_TEXT, _gemma4_keys, change=_gemma4),
    "gemma4, embeddings of layers": Projection(
        "gemma4v",
        _GEMMA4_TEXT,
        _gemma4_keys,
        change=_gemma4,
        heard=("gemma4a", _gemma4_sounds),
    ),
    "llama4": Projection(
        "llama4",
        conversions.CONVERSIONS["llama4_text"],
        lambda c: {**_sizes(c), ".use_gelu": True, "projector.scale_factor": 2},
        change=_llama4,
        family=_as_llama4,
    ),
    "minicpmv4_6": Projection(
        "minicpmv4_6",
        conversions.CONVERSIONS["qwen3_5_text"],
        lambda c: (
            {**_sizes(c), ".use_gelu": True, "projector.scale_factor": 4, "image_size": 48}
            | {"wa_layer_indexes": [c["insert_layer_id"]]}
        ),
        change=_minicpm,
    ),
    "lfm2_vl": Projection(
        "lfm2",
        Conversion("lfm2", lambda c: _LFM2.keys({**c, "block_ff_dim": c["intermediate_size"]})),
        lambda c: {**_sizes(c), ".use_gelu": True, "image_size": 256, "projector.scale_factor": 2},
        (_SIGLIP, _IN_TOWER),
        _lfm2,
        _as_lfm2,
    ),
    "mistral3": Projection("pixtral", conversions.CONVERSIONS["mistral"], _pixtral_keys, (_IN_TOWER,), _pixtral),
    "llava, pixtral": Projection("pixtral", _LLAMA, _pixtral_keys, (_IN_TOWER,), _pixtral),
    "qwen2_vl": Projection(
        "qwen2vl_merger",
        _text(_QWEN_TEXT, **{"rope.dimension_sections": [1, 3, 2, 0]}),
        _qwen_keys(),
        (_IN_TOWER,),
        _of_qwen,
    ),
    "qwen2_5_vl": Projection(
        "qwen2.5vl_merger",
        _text(_QWEN_TEXT, **{"rope.dimension_sections": [1, 3, 2, 0]}),
        _qwen2_5_keys,
        (_IN_TOWER,),
        _of_qwen,
    ),
    "qwen3_vl": Projection(
        "qwen3vl_merger",
        Conversion("qwen3vl", lambda c: {"rope.dimension_sections": [3, 3, 2, 0], "n_deepstack_layers": 2}),
        _qwen3_keys,
        (_IN_TOWER,),
        _of_qwen,
    ),
}


def save_both(folder: Path, name: str, kind: str = "F32") -> tuple[Path, Path]:
    """A checkpoint, and a GGUF file of the same weights with its projector beside it. Args: kind: of matrices of the
    tower whose rows are whole blocks of it. Returns: the directory of the first, and the second file."""
    projection = PROJECTIONS[name]
    checkpoint, file = folder / "checkpoint", folder / "model.gguf"
    save_family(checkpoint, name, projection.family(FAMILIES[name]))
    config = json.loads((checkpoint / "config.json").read_text())
    weights = load_file(checkpoint / "model.safetensors")
    text = {old: array for old, array in weights.items() if _is_of_text(old)}
    settings = byte_level_settings(checkpoint, "gpt-2")
    named = {new: array for old, given in text.items() for new, array in _apart(_text_name(old), given)}
    conversions.write(
        file,
        config["text_config"],
        named,
        projection.text,
        tokenizer=lambda writer: _add_words(writer, settings, checkpoint),
    )
    tower = {old: array for old, array in weights.items() if not _is_of_text(old)}
    if projection.kind == "pixtral":  # the row that stands behind each line of a picture
        number = settings["tokenizer.ggml.tokens"].index("[IMG_BREAK]")
        tower["v.token_embd.img_break"] = named["model.embed_tokens.weight"][number]
    write_projector(folder / "mmproj-model.gguf", config, checkpoint, tower, projection, kind)
    return checkpoint, file


def _is_of_text(name: str) -> bool:
    plain = "model.embed_tokens.", "model.layers.", "model.norm."
    return name.startswith((*_TEXT, *plain, "lm_head.", "language_model.lm_head."))


def _text_name(name: str) -> str:
    for begin in _TEXT:
        name = f"model.{name.removeprefix(begin)}" if name.startswith(begin) else name
    return name.removeprefix("language_model.")


def _apart(name: str, array: Array) -> Given:
    """Experts one by one, of a tensor of all of a layer; a convolution without the dimension that it has one of."""
    block = name.rpartition(".")[0]
    if name.endswith(".experts.gate_up_proj"):
        for number, both in enumerate(array):
            for part, half in zip(("gate", "up"), np.split(both, 2, axis=1), strict=True):
                yield f"{block}.{number}.{part}_proj.weight", half.T
    elif name.endswith(".experts.down_proj"):
        yield from ((f"{block}.{number}.down_proj.weight", each.T) for number, each in enumerate(array))
    else:
        yield name, array[:, 0] if array.ndim == 3 and array.shape[1] == 1 else array


def _add_words(writer: Any, settings: Mapping[str, Any], checkpoint: Path) -> None:
    """The tokenizer of a checkpoint. It has no merges, and files have some: of what no text of tests has."""
    tokens = list(settings["tokenizer.ggml.tokens"])
    # a byte that UTF-8 has not
    tokens[tokens.index("ÿ")] = "QX"
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(settings["tokenizer.ggml.token_type"].tolist())
    writer.add_token_merges(["Q X"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|im_start|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template((checkpoint / "chat_template.jinja").read_text())


def write_projector(
    path: Path, config: Config, checkpoint: Path, tower: Mapping[str, Array], projection: Projection, kind: str = "F32"
) -> None:
    """Args: tower: its tensors, by the names of transformers. Others: see save_both()."""
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.vision.projector_type" if projection.heard else "clip.projector_type", projection.kind)
    vision = config["vision_config"]
    patch = vision["patch_size"]
    keys = {
        "projection_dim": config["text_config"]["hidden_size"],
        "patch_size": patch[0] if isinstance(patch, list) else patch,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        **_colours(checkpoint),
        **projection.keys(config),
    }
    if projection.heard is not None:
        kind_heard, of_sounds = projection.heard
        writer.add_bool("clip.has_audio_encoder", True)
        writer.add_string("clip.audio.projector_type", kind_heard)
        width = config["text_config"]["hidden_size"]
        keys |= {f".audio.{key}": value for key, value in {"projection_dim": width, **of_sounds(config)}.items()}
    for key, value in keys.items():
        name = f"clip{key}" if key.startswith(".") else f"clip.vision.{key}"
        add = {bool: writer.add_bool, float: writer.add_float32, int: writer.add_uint32, list: writer.add_array}
        add[type(value)](name, value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, 8)
    for old, array in tower.items():
        published = old
        for pattern, new in projection.names:
            published = re.sub(pattern, new, published)
        for given, numbers in projection.change(published, array, config):
            _add(writer, _stored_name(names, given), numbers, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _colours(checkpoint: Path) -> dict[str, list[float]]:
    """Of what prepares pictures; of a file that says nothing what the families of CLIP have."""
    from albireo.images.settings import CLIP_MEAN, CLIP_STD

    path = checkpoint / "preprocessor_config.json"
    said = json.loads(path.read_text()) if path.exists() else {"image_processor_type": ""}
    of_clip = said["image_processor_type"].startswith(("Qwen2VL", "Pixtral", "GotOcr2"))
    return {"image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD)} if of_clip else {}


def _stored_name(names: Any, name: str) -> str:
    if name.startswith(("v.", "a.", "mm.")):
        return name
    found = names.get_name(name, try_suffixes=(".weight", ".bias", *_BOUNDS))
    assert found is not None, name
    return str(found)


def _add(writer: Any, name: str, numbers: Array, kind: str) -> None:
    data = np.ascontiguousarray(numbers, np.float32)
    if kind == "F16" and data.ndim > 1:
        writer.add_tensor(name, data.astype(np.float16))
        return
    if kind in ("F32", "F16") or data.ndim != 2 or data.shape[-1] % 32 or "patch_embd" in name:
        writer.add_tensor(name, data)
        return
    number = gguf.GGMLQuantizationType[kind]
    writer.add_tensor(name, gguf.quantize(data, number), raw_dtype=number)
