"""The text part of a model that reads images too: its settings, as those of a model of text alone. Its tensors are
text_tensors.py's.

Called by opening.py and whoever reads the other parts. Does not know what these compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import ModelError, short
from albireo.json_file import Fields, keys
from albireo.models.config_keys import MAX_HEAD_DIM, MAX_HEADS, MAX_WIDTH
from albireo.models.settings import ernie4_5_moe_vl, minicpmv, paired, phi3_v
from albireo.models.settings.class_sizes import OF_CLASSES
from albireo.models.settings.deepseek_ocr import by_parts, is_deepseek_ocr
from albireo.models.settings.ernie4_5_moe_vl import ERNIE4_5_MOE_VL
from albireo.models.settings.internvl_chat import INTERNVL_CHAT, SKYWORK_CHAT, as_transformers_has_it
from albireo.models.settings.known_keys import IGNORABLE_KEYS
from albireo.models.settings.retrievers import CLASS_END, is_retriever, reader_of
from albireo.models.settings.wholes import SPEAKING, WHOLES

#: Keys of the whole that are about images and sounds; what training leaves out; and code of the directory, which is
#: never run.
_OF_IMAGES = keys(
    "audio_config audio_token_id boa_token_id eoa_token_id eoa_token_index vision_soft_tokens_per_image",
    "audio_token_index audio_start_token_id audio_end_token_id user_token_id support_languages timestamp_token_id",
    "token_classification_bias",
    "vision_config mm_tokens_per_image boi_token_index eoi_token_index image_token_index boi_token_id eoi_token_id",
    "image_token_id video_token_id vision_start_token_id vision_end_token_id vision_token_id",
    "media_placeholder_token_id video_placeholder use_unified_vision_chunk ignore_index auto_map",
    "projector_hidden_act vision_feature_layer multimodal_projector_bias spatial_merge_size",
    "_pad_token_id scale_factor image_seq_len use_reentrant_checkpointing transformers.js_config vocab_size",
    "downsample_factor downsample_ratio projector_bias projector_hidden_size projector_use_layernorm",
    "do_image_splitting encoder_patch_size max_image_tokens max_num_patches max_pixels_tolerance max_tiles",
    "min_image_tokens min_tiles tile_size use_image_special_tokens use_thumbnail vision_feature_select_strategy",
    "image_seq_length",
)
#: Of rotary settings: which pairs follow which of three positions, or of four. Those of text are equal, and those of
#: sounds.
_SECTIONS = ("mrope_section", "xdrope_section")
_OF_PLACES = (*_SECTIONS, "mrope_interleaved")
#: What some wholes are a part of, which does nothing else here: what makes speech of what they write is left out.
_INNER = "thinker_config"
#: What such a part is called where it is alone.
_ALONE = {"qwen2_5_omni_thinker": "qwen2_5_omni", "qwen3_omni_moe_thinker": "qwen3_omni_moe"}
_OF_NEMOTRON = {
    "llm_config": "text_config",
    "sound_config": "audio_config",
    "vit_hidden_size": "vision_hidden_size",
    "img_context_token_id": "image_token_id",
    "video_context_token_id": "video_token_id",
    "sound_context_token_id": "audio_token_id",
}
#: A model_type as it was first published -> what transformers calls it, and what its keys.
_FIRST_NAMES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "NemotronH_Nano_Omni_Reasoning_V3": ("nemotron_h_omni", _OF_NEMOTRON),
    "vlm": ("hyperclovax_vision_v2", {}),
}
#: A class -> the model_type that it was published with, and what it is.
_BELIED = {"LightOnOCRForConditionalGeneration": ("mistral3", "lighton_ocr")}
#: What rotary settings were called that have them, and are else those of text; and what else these are.
_OLD_TYPE = "mrope"
_OLD_TYPES = {"xdrope": "dynamic"}
#: Keys that the whole may have in place of its text part.
_TYPES = ("dtype", "torch_dtype")
_SHARED = (*_TYPES, "bos_token_id", "eos_token_id", "tie_word_embeddings")


def is_whole(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a model with a text part."""
    return inner(data).get("model_type") in WHOLES


def text_settings(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What config.json would hold of the text part alone; data itself where there are no parts.

    Raises: ModelError for a bad value; UnsupportedModel for a key of the whole that may change what it computes.
    """
    if not is_whole(data):
        return dict(data)
    retrieves, data = is_retriever(data), inner(data)
    fields = Fields(data, where)
    whole = WHOLES[fields.text("model_type")]
    classes = fields.texts("architectures")
    # LightOnOCR once wrote its own name otherwise
    names = whole.class_name, *whole.other_classes
    if classes and not {name.lower() for name in classes} & {name.lower() for name in names}:
        fields.unsupported(
            "architectures", list(classes), f"of a model_type {data['model_type']!r}: {whole.class_name}"
        )
    text = text_keys(data, where)
    part = Fields(text, f"{where}: text_config").text("model_type", next(iter(whole.parts)))
    if part not in whole.parts:
        fields.unsupported("text_config", text, f"its model_type must be {' or '.join(whole.parts)}")
    for key, value in whole.always.items():
        if text.get(key, value) != value:
            fields.unsupported(f"text_config.{key}", text[key], f"a {part} computes {short(value)}")
    for key, value in whole.neutral.items():
        if text.get(key, value) != value:
            fields.unsupported(f"text_config.{key}", text[key], f"supported: {short(value)}")
    shared = {key: fields.raw(key) for key in _SHARED if fields.raw(key) is not None}
    if shared.keys() & set(_TYPES):  # two names of one thing, by which old files say different things of whole and part
        text = {key: value for key, value in text.items() if key not in _TYPES}
    # written twice by some
    again = {key for key, value in text.items() if whole.may_be_flat and data.get(key) == value}
    if whole.may_be_flat and text.get("sliding_window", "") is None:
        again |= {"sliding_window"}  # of the whole it is as it was published, of the part that it is not used
    fields.refuse_unread(IGNORABLE_KEYS | _OF_IMAGES | whole.beside | again | {"text_config"}, {})
    left_out = {"architectures", *whole.neutral, *whole.ignored}
    text = {key: _without_places(value) for key, value in text.items() if key not in left_out}
    # ids that end a text are told by the whole, which knows of turns
    found = {**sizes_of_class(data), **whole.defaults, **text, **shared, **whole.always}
    found["model_type"] = whole.parts[part]
    if whole.cuts_width and found.get("head_dim") is None:
        of_text = Fields(found, f"{where}: text_config")
        heads = of_text.integer("num_attention_heads", 1, MAX_HEADS)
        found["head_dim"] = of_text.integer("hidden_size", heads, MAX_WIDTH) // heads
    if retrieves:
        found["architectures"] = [f"{found['model_type']}{CLASS_END}"]
    return found


def inner(data: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of a whole, where it is written as a part of one; what that says itself comes first. A
    model_type that the class of the model belies is the class's."""
    part = data.get(_INNER)
    if isinstance(part, Mapping):
        data = {**part, **{key: value for key, value in data.items() if key != _INNER}}
    if data.get("model_type") in _ALONE:
        return {**data, "model_type": _ALONE[str(data["model_type"])]}
    if data.get("model_type") in (INTERNVL_CHAT, SKYWORK_CHAT):
        return as_transformers_has_it({**data, "model_type": INTERNVL_CHAT})
    if data.get("model_type") == ERNIE4_5_MOE_VL:
        return ernie4_5_moe_vl.as_transformers_has_it(data)
    if is_retriever(data):
        return reader_of(data)
    if is_deepseek_ocr(data):
        return by_parts(data, "config.json")
    if paired.is_paired(data):
        return paired.by_parts(data, "config.json")
    if phi3_v.is_phi3_v(data):
        return phi3_v.by_parts(data, "config.json")
    if minicpmv.is_minicpmv(data):
        return minicpmv.by_parts(data, "config.json")
    own, names = _FIRST_NAMES.get(str(data.get("model_type")), (None, {}))
    if own is not None:
        return {**{names.get(key, key): value for key, value in data.items()}, "model_type": own}
    classes = data.get("architectures")
    for name in classes if isinstance(classes, list) else ():
        published, own = _BELIED.get(str(name), (None, None))
        if published is not None and data.get("model_type") == published:
            return {**data, "model_type": own}
    return dict(data)


def speaking_parts(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a model that speaks, too, the keys of the parts that do, which are not computed here."""
    return tuple(key for key in SPEAKING if isinstance(data.get(key), Mapping))


def text_type(data: Mapping[str, Any]) -> str:
    """The architecture of what config.json describes, or of its text part; what it calls itself where none is known."""
    data = inner(data)
    named = str(data.get("model_type"))
    whole, text = WHOLES.get(named), data.get("text_config")
    if whole is None:
        return named
    part = text.get("model_type") if isinstance(text, Mapping) else None
    return whole.parts.get(str(part), next(iter(whole.parts.values())))


def sizes_of_class(data: Mapping[str, Any]) -> Mapping[str, int]:
    """What the text part of a whole has where its keys leave it out, by their names; empty: they may not."""
    data = inner(data)
    whole, text = WHOLES.get(str(data.get("model_type"))), data.get("text_config")
    if whole is None:
        return {}
    part = text.get("model_type") if isinstance(text, Mapping) else None
    return {**OF_CLASSES.get(str(part or next(iter(whole.parts))), {}), **OF_CLASSES.get(str(data["model_type"]), {})}


def text_keys(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What config.json says of the text part of a whole, as it says it. Raises: ModelError where that is nothing."""
    data = inner(data)
    text, whole = Fields(data, where).table("text_config"), WHOLES.get(str(data.get("model_type")))
    if text is not None:
        return text
    if whole is None or not whole.may_be_flat:
        raise ModelError(f"{where}: text_config is missing")
    of_whole = _OF_IMAGES - {"vocab_size"} | {"model_type", "architectures"}
    return {key: value for key, value in data.items() if key not in of_whole}


def sees_images_both_ways(data: Mapping[str, Any]) -> bool:
    """Whether tokens of an image see those of it that are behind them. Args: data: what config.json holds."""
    whole, text = WHOLES.get(str(data.get("model_type"))), data.get("text_config")
    if whole is None or isinstance(whole.sees_images_both_ways, bool):
        return whole is not None and bool(whole.sees_images_both_ways)
    key = "use_bidirectional_attention"
    return isinstance(text, Mapping) and text.get(key, whole.defaults.get(key)) == whole.sees_images_both_ways


def sees_prompts_both_ways(data: Mapping[str, Any]) -> bool:
    """Whether tokens of a prompt with images see what is behind them of it. Args: data: what config.json holds."""
    whole = WHOLES.get(str(data.get("model_type")))
    return whole is not None and whole.sees_prompts_both_ways


def multiplies_images(data: Mapping[str, Any]) -> bool:
    """Whether rows of pictures are multiplied as embeddings are. Args: data: what config.json holds."""
    whole = WHOLES.get(str(data.get("model_type")))
    return whole is not None and whole.multiplies_images


def sees_images_beyond_windows(data: Mapping[str, Any]) -> bool:
    """Whether tokens of an image see what is before them of it in layers with a window, too, however far it is."""
    return sees_images_both_ways(data) and not WHOLES[str(data["model_type"])].are_windows_kept


def token_of_images(data: Mapping[str, Any], where: str, vocab_size: int) -> int:
    """Id of the token that tokens of an image count as where each has an embedding beside the row of the image.

    Args: data: what config.json holds. Raises: ModelError for one that is none.
    """
    return Fields(text_keys(data, where), f"{where}: text_config").integer("pad_token_id", 0, vocab_size - 1, 0)


def rope_axes(data: Mapping[str, Any]) -> tuple[int, ...]:
    """Of each pair of the rotation, by which axis it turns: 0 time, 1 row, 2 column, or where there are four see
    execution.images.positions_beside(). Empty: positions are numbers.

    Args: data: what config.json holds. Where pairs of the three take turns, they do until one has all of its own; time
        has the rest.
    Raises: ModelError for sections that cannot be; UnsupportedModel where the last of four axes turns none.
    """
    whole = WHOLES.get(str(data.get("model_type")))
    if whole is None or whole.sections is None:
        return ()
    text = data.get("text_config", data)
    text = text if isinstance(text, Mapping) else {}
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    sections = _said_sections(rope) if isinstance(rope, Mapping) else None
    sections = sections or list(whole.sections)
    if whole.are_beside:
        if not sections[-1]:  # by which four axes are told from three
            Fields(data, "config.json").unsupported("xdrope_section", sections, "some pairs turn by the last axis")
        first = 4 - len(sections)
        return tuple(first + axis for axis, count in enumerate(sections) for _ in range(count))
    if whole.ends_with_time:
        rows, columns, time = sections
        if rows != columns:
            Fields(data, "config.json").unsupported("mrope_section", sections, "as many pairs turn by row as by column")
        return (1, 2) * rows + (0,) * time
    if not whole.takes_turns:
        return tuple(axis % 3 for axis, count in enumerate(sections) for _ in range(count))
    return tuple(turn if turn and i < 3 * sections[turn] else 0 for i in range(sum(sections)) for turn in (i % 3,))


def _said_sections(rope: Mapping[str, Any]) -> list[int] | None:
    """Pairs of each axis. Raises: ModelError for what cannot be."""
    key = next((key for key in _SECTIONS if rope.get(key) is not None), None)
    if key is None:
        return None
    said = rope[key]
    if (
        not isinstance(said, list)
        or not 3 <= len(said) <= 4
        or not all(type(each) is int and 0 <= each <= MAX_HEAD_DIM for each in said)
    ):
        wanted = f"must be how many pairs turn by each of three axes, or four: numbers up to {MAX_HEAD_DIM}"
        Fields(rope, "config.json: rope settings").fail(key, said, wanted)
    return said


def _without_places(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    left_out = (*_OF_PLACES, *(("interleaved",) if "mrope_section" in value else ()))
    return {
        key: _OLD_TYPES.get(each, each) if isinstance(each, str) else each
        for key, each in value.items()
        if key not in left_out and each != _OLD_TYPE
    }
