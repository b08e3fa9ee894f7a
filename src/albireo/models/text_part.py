"""The text part of a model that reads images too: its settings, as those of a model of text alone. Its tensors are
text_tensors.py's.

Called by opening.py and whoever reads the other parts. Does not know what these compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from albireo.errors import ModelError, short
from albireo.json_file import Fields, keys
from albireo.models.config import IGNORABLE_KEYS, MAX_HEADS, MAX_WIDTH
from albireo.models.internvl_chat import INTERNVL_CHAT, INTERNVL_CHAT_KEYS, as_transformers_has_it


@dataclass(frozen=True, slots=True)
class _Whole:
    """A model with a text part.

    Fields:
        class_name: what the whole is an instance of. other_classes: what it may be, too.
        parts: what the text part's model_type may be, first what it is where it is not said -> the architecture.
        defaults: what absent keys of the text part mean, where that differs from its architecture.
        always: keys of the text part that are what the part does, whatever they say: any other value is refused.
        neutral: keys of the text part that say nothing as long as they have these values; any other is refused.
        ignored: keys of the text part that say nothing. beside: of the whole.
        sees_images_both_ways: tokens of an image see all of it; or the value of use_bidirectional_attention of the text
            part by which they do. are_windows_kept: of what is before them, they see what layers with a window see.
        sees_prompts_both_ways: tokens of a prompt with pictures do, all of them.
        sections: pairs of the rotation that turn by each of three axes where files do not say; none: positions are
            numbers. takes_turns: pairs of the three axes do; else those of one are side by side.
        may_be_flat: the whole may have the keys of its text part among its own.
        multiplies_images: rows of pictures are multiplied as embeddings are, where those are.
        cuts_width: heads of the text part are equal parts of its width where nothing is said, whatever they are in a
            model of text alone.
    """

    class_name: str
    parts: Mapping[str, str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    always: Mapping[str, Any] = field(default_factory=dict)
    neutral: Mapping[str, Any] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    sees_images_both_ways: bool | str = False
    are_windows_kept: bool = False
    sees_prompts_both_ways: bool = False
    sections: tuple[int, int, int] | None = None
    takes_turns: bool = True
    may_be_flat: bool = False
    cuts_width: bool = False
    multiplies_images: bool = False
    other_classes: tuple[str, ...] = ()


#: Of Idefics 3 and SmolVLM: what their own Llama could do beside others', and did not.
_IDEFICS = _Whole(
    "Idefics3ForConditionalGeneration",
    {"llama": "llama"},
    neutral={"qk_layer_norms": False, "use_resampler": False, "rope_interleaved": False},
    ignored=keys(
        "_flash_attn_2_enabled perceiver_config pixel_shuffle_factor",
        "transformers.js_config",
    ),
)
_LFM2 = _Whole("Lfm2VlForConditionalGeneration", {"lfm2": "lfm2"})
_QWEN2_SECTIONS, _QWEN3_5_SECTIONS, _QWEN3_VL_SECTIONS = (16, 24, 24), (11, 11, 10), (24, 20, 20)
_QWEN2_VL = _Whole(
    "Qwen2VLForConditionalGeneration",
    {"qwen2_vl_text": "qwen2"},
    {"rope_theta": 1000000.0},
    sections=_QWEN2_SECTIONS,
    takes_turns=False,
    may_be_flat=True,
)
#: Of Qwen's omni models: what makes speech of what they write, and how what is heard in a video goes with what is seen.
_SPEAKING = ("talker_config", "token2wav_config", "code2wav_config")
_OF_OMNI = keys(
    *_SPEAKING,
    "enable_audio_output enable_talker init_std",
    "im_start_token_id im_end_token_id tts_pad_token_id tts_bos_token_id tts_eos_token_id",
    "system_token_id assistant_token_id position_id_per_seconds seconds_per_chunk video_token_index",
)
_QWEN2_5_OMNI = _Whole(
    "Qwen2_5OmniForConditionalGeneration",
    {"qwen2_5_omni_text": "qwen2"},
    {"rope_theta": 1000000.0, "tie_word_embeddings": False},
    # the whole says whether embeddings are tied
    ignored=keys("init_std tie_word_embeddings"),
    beside=_OF_OMNI,
    sections=_QWEN2_SECTIONS,
    takes_turns=False,
    # as it was first published; and the part that is computed here by itself
    other_classes=("Qwen2_5OmniModel", "Qwen2_5OmniThinkerForConditionalGeneration"),
)
#: Ids of tokens around pictures, which files have in either part.
_GLM_TOKENS = keys("image_start_token_id image_end_token_id video_start_token_id video_end_token_id")
_GLM4V = _Whole(
    "Glm4vForConditionalGeneration",
    {"glm4v_text": "glm4"},
    {"rms_norm_eps": 1e-5, "partial_rotary_factor": 1.0},
    {"attention_bias": True},
    ignored=_GLM_TOKENS | keys("image_token_id video_token_id"),
    beside=_GLM_TOKENS,
    sections=(8, 12, 12),
    takes_turns=False,
    may_be_flat=True,
    cuts_width=True,
)
_LLAVA = _Whole(
    "LlavaForConditionalGeneration",
    {"llama": "llama", "mistral": "mistral"},
    # of Pixtral
    ignored=keys("is_composition"),
)
_INTERNVL = _Whole(
    "InternVLForConditionalGeneration",
    {kind: kind for kind in ("qwen2", "llama", "qwen3", "qwen3_moe", "gpt_oss")},
)
_GRANITE_SPEECH = _Whole(
    "GraniteSpeechForConditionalGeneration",
    {"granite": "granite"},
    {"tie_word_embeddings": True},
    # the head of the whole divides nothing, where Granite's own does; and the whole says whether embeddings are tied
    ignored=keys("logits_scaling tie_word_embeddings"),
    beside=keys("encoder_config projector_config has_lora_adapter downsample_rate window_size"),
    multiplies_images=True,
)
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
#: What files of wholes leave out of a text part, since transformers' class of it has it by itself.
_OF_CLASSES: Mapping[str, Mapping[str, int]] = {
    "cohere": dict(zip(_SIZES, (256000, 8192, 22528, 40, 64, 8192), strict=True)),
    "cohere2": dict(zip(_SIZES, (256000, 8192, 22528, 40, 64, 8192), strict=True)),
    "exaone4": dict(zip(_SIZES, (102400, 4096, 16384, 32, 32, 2048), strict=True)) | {"num_key_value_heads": 32},
    "gemma": dict(zip(_SIZES, (256000, 3072, 24576, 28, 16, 8192), strict=True)) | {"num_key_value_heads": 16},
    "gemma2": dict(zip(_SIZES, (256000, 2304, 9216, 26, 8, 8192), strict=True)) | {"num_key_value_heads": 4},
    "granite": dict(zip(_SIZES, (32000, 4096, 11008, 32, 32, 2048), strict=True)),
    "llama": dict(zip(_SIZES, (32000, 4096, 11008, 32, 32, 2048), strict=True)),
    "mistral": dict(zip(_SIZES, (32000, 4096, 14336, 32, 32, 131072), strict=True)) | {"num_key_value_heads": 8},
    "qwen2": dict(zip(_SIZES, (151936, 4096, 22016, 32, 32, 32768), strict=True)) | {"num_key_value_heads": 32},
    "qwen3": dict(zip(_SIZES, (151936, 4096, 22016, 32, 32, 32768), strict=True)) | {"num_key_value_heads": 32},
}
#: By the model_type of the whole.
_WHOLES = {
    "apertus1p5": _Whole(
        "Apertus1p5ForConditionalGeneration",
        {"apertus1p5_text": "apertus1p5_text"},
        beside=keys("image_token_offset audio_token_offset"),
    ),
    "audioflamingo3": _Whole("AudioFlamingo3ForConditionalGeneration", {"qwen2": "qwen2"}),
    "aya_vision": _Whole(
        "AyaVisionForConditionalGeneration",
        {"cohere2": "cohere2", "cohere": "cohere"},
        beside=keys("adapter_layer_norm_eps alignment_intermediate_size"),
    ),
    "cohere2_vision": _Whole(
        "Cohere2VisionForConditionalGeneration",
        {"cohere2": "cohere2"},
        beside=keys("alignment_intermediate_size"),
    ),
    "exaone4_5": _Whole(
        "Exaone4_5_ForConditionalGeneration",
        # as transformers has it, and as it was first published
        {"exaone4": "exaone4", "exaone4_5_text": "exaone4"},
    ),
    "gemma3": _Whole("Gemma3ForConditionalGeneration", {"gemma3_text": "gemma3_text"}, sees_images_both_ways=True),
    "gemma4": _Whole(
        "Gemma4ForConditionalGeneration",
        {"gemma4_text": "gemma4_text"},
        sees_images_both_ways="vision",
        are_windows_kept=True,
    ),
    "gemma4_unified": _Whole(
        "Gemma4UnifiedForConditionalGeneration",
        {"gemma4_unified_text": "gemma4_unified_text"},
        {"use_bidirectional_attention": "vision"},
        sees_images_both_ways="vision",
        are_windows_kept=True,
    ),
    "gemma3n": _Whole(
        "Gemma3nForConditionalGeneration",
        {"gemma3n_text": "gemma3n_text"},
        beside=keys("audio_soft_tokens_per_image"),
    ),
    "glm46v": replace(_GLM4V, class_name="Glm46VForConditionalGeneration"),
    "glm4v": _GLM4V,
    "glm4v_moe": replace(
        _GLM4V,
        class_name="Glm4vMoeForConditionalGeneration",
        parts={"glm4v_moe_text": "glm4_moe"},
        defaults={"attention_bias": True},
        always={},
    ),
    "glm_ocr": replace(
        _GLM4V,
        class_name="GlmOcrForConditionalGeneration",
        parts={"glm_ocr_text": "glm4"},
        always={"attention_bias": False},
    ),
    "glmasr": _Whole(
        "GlmAsrForConditionalGeneration",
        {"llama": "llama"},
        {"rms_norm_eps": 1e-5, "tie_word_embeddings": True},
        beside=keys("hidden_size"),
    ),
    "granite_speech": _GRANITE_SPEECH,
    "granite_speech_plus": replace(_GRANITE_SPEECH, class_name="GraniteSpeechPlusForConditionalGeneration"),
    "idefics3": _IDEFICS,
    "smolvlm": replace(_IDEFICS, class_name="SmolVLMForConditionalGeneration"),
    "internvl": _INTERNVL,
    INTERNVL_CHAT: replace(_INTERNVL, class_name="InternVLChatModel", beside=INTERNVL_CHAT_KEYS),
    "qianfan_ocr": replace(_INTERNVL, class_name="QianfanOCRForConditionalGeneration", parts={"qwen3": "qwen3"}),
    "lfm2_vl": _LFM2,
    # as it was first published
    "lfm2-vl": _LFM2,
    "lighton_ocr": _Whole("LightOnOcrForConditionalGeneration", {"qwen3": "qwen3"}, {"tie_word_embeddings": True}),
    "llama4": _Whole("Llama4ForConditionalGeneration", {"llama4_text": "llama4_text"}),
    "llava": _LLAVA,
    "llava_next": replace(
        _LLAVA,
        class_name="LlavaNextForConditionalGeneration",
        parts={kind: kind for kind in ("llama", "mistral", "qwen2", "granite")},
        # the head of the whole divides nothing, where Granite's own does
        ignored=_LLAVA.ignored | keys("logits_scaling"),
        beside=keys("image_grid_pinpoints use_image_newline_parameter"),
        multiplies_images=True,
    ),
    "llava_onevision": _Whole(
        "LlavaOnevisionForConditionalGeneration",
        {"qwen2": "qwen2"},
        beside=keys("image_grid_pinpoints vision_aspect_ratio video_token_index use_image_newline_parameter"),
    ),
    "kimi_k25": _Whole("KimiK25ForConditionalGeneration", {"deepseek_v3": "deepseek_v3", "kimi_k2": "kimi_k2"}),
    "minicpmv4_6": _Whole(
        "MiniCPMV4_6ForConditionalGeneration",
        {"qwen3_5_text": "qwen3_5_text"},
        beside=keys(
            "insert_layer_id image_size patch_size drop_vision_last_layer",
            "downsample_mode merge_kernel_size merger_times",
        ),
    ),
    "mistral3": _Whole(
        "Mistral3ForConditionalGeneration",
        {kind: kind for kind in ("mistral", "ministral3", "mistral4")},
        {"tie_word_embeddings": True},
    ),
    "paddleocr_vl": _Whole(
        "PaddleOCRVLForConditionalGeneration",
        # ERNIE 4.5, but for pairs half a head apart
        {"paddleocr_vl_text": "llama"},
        {"head_dim": 128, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True},
        neutral={"use_bias": False, "compression_ratio": 1.0, "use_3d_rope": True, "rope_is_neox_style": True},
        # training, and a bias of the head where there are any
        ignored=keys("ignored_index attention_probs_dropout_prob hidden_dropout_prob weight_share_add_bias"),
        sections=_QWEN2_SECTIONS,
        takes_turns=False,
        may_be_flat=True,
    ),
    "paligemma": _Whole(
        "PaliGemmaForConditionalGeneration",
        {"gemma": "gemma", "gemma2": "gemma2"},
        {"tie_word_embeddings": True},
        neutral={"use_bidirectional_attention": True},
        ignored=keys("num_image_tokens"),
        beside=keys("_vocab_size hidden_size projection_dim num_hidden_layers"),
        sees_images_both_ways=True,
        sees_prompts_both_ways=True,
    ),
    "qwen2_5_omni": _QWEN2_5_OMNI,
    "qwen2_5_vl": replace(
        _QWEN2_VL, class_name="Qwen2_5_VLForConditionalGeneration", parts={"qwen2_5_vl_text": "qwen2"}
    ),
    "qwen2_audio": _Whole(
        "Qwen2AudioForConditionalGeneration",
        {"qwen2": "qwen2"},
        # of Qwen 2 7B as transformers has it, which files of Qwen2-Audio leave out
        {
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 22016,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
        },
        neutral={"use_mrope": False},
    ),
    "qwen2_vl": _QWEN2_VL,
    "qwen3_5": _Whole("Qwen3_5ForConditionalGeneration", {"qwen3_5_text": "qwen3_5_text"}, sections=_QWEN3_5_SECTIONS),
    "qwen3_5_moe": _Whole(
        "Qwen3_5MoeForConditionalGeneration", {"qwen3_5_moe_text": "qwen3_5_moe_text"}, sections=_QWEN3_5_SECTIONS
    ),
    "qwen3_asr": _Whole(
        "Qwen3ASRForConditionalGeneration", {"qwen3": "qwen3", "qwen3_asr_text": "qwen3"}, {"tie_word_embeddings": True}
    ),
    "qwen3_omni_moe": replace(
        _QWEN2_5_OMNI,
        class_name="Qwen3OmniMoeForConditionalGeneration",
        parts={"qwen3_omni_moe_text": "qwen3_moe"},
        defaults={"rope_theta": 1000000.0, "norm_topk_prob": True, "tie_word_embeddings": False},
        neutral={"use_qk_norm": True},
        sections=_QWEN3_VL_SECTIONS,
        takes_turns=True,
        other_classes=("Qwen3OmniMoeThinkerForConditionalGeneration",),
    ),
    "qwen3_vl": _Whole(
        "Qwen3VLForConditionalGeneration",
        {"qwen3_vl_text": "qwen3"},
        {"rope_theta": 500000.0},
        sections=_QWEN3_VL_SECTIONS,
    ),
    "qwen3_vl_moe": _Whole(
        "Qwen3VLMoeForConditionalGeneration",
        {"qwen3_vl_moe_text": "qwen3_moe"},
        {"rope_theta": 500000.0},
        # its router does not ask
        {"norm_topk_prob": True},
        sections=_QWEN3_VL_SECTIONS,
    ),
    "voxtral": _Whole(
        "VoxtralForConditionalGeneration", {"llama": "llama"}, {"rms_norm_eps": 1e-5}, beside=keys("hidden_size")
    ),
}
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
#: Of rotary settings: which pairs follow which of three positions. Those of text are equal, and those of sounds.
_OF_PLACES = ("mrope_section", "mrope_interleaved")
#: What some wholes are a part of, which does nothing else here: what makes speech of what they write is left out.
_INNER = "thinker_config"
#: What such a part is called where it is alone.
_ALONE = {"qwen2_5_omni_thinker": "qwen2_5_omni", "qwen3_omni_moe_thinker": "qwen3_omni_moe"}
#: A class -> the model_type that it was published with, and what it is.
_BELIED = {"LightOnOCRForConditionalGeneration": ("mistral3", "lighton_ocr")}
#: What rotary settings were called that have them, and are else those of text.
_OLD_TYPE = "mrope"
#: Keys that the whole may have in place of its text part.
_TYPES = ("dtype", "torch_dtype")
_SHARED = (*_TYPES, "bos_token_id", "eos_token_id", "tie_word_embeddings")


def is_whole(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a model with a text part."""
    return inner(data).get("model_type") in _WHOLES


def text_settings(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What config.json would hold of the text part alone; data itself where there are no parts.

    Raises: ModelError for a bad value; UnsupportedModel for a key of the whole that may change what it computes.
    """
    if not is_whole(data):
        return dict(data)
    data = inner(data)
    fields = Fields(data, where)
    whole = _WHOLES[fields.text("model_type")]
    classes = fields.texts("architectures")
    # LightOnOCR once wrote its own name otherwise
    names = whole.class_name, *whole.other_classes
    if classes and not {name.lower() for name in classes} & {name.lower() for name in names}:
        fields.unsupported(
            "architectures", list(classes), f"of a model_type {data['model_type']!r}: {whole.class_name}"
        )
    text = text_keys(data, where)
    part = text.get("model_type", next(iter(whole.parts)))
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
    fields.refuse_unread(IGNORABLE_KEYS | _OF_IMAGES | whole.beside | again | {"text_config"}, {})
    left_out = {"architectures", *whole.neutral, *whole.ignored}
    text = {key: _without_places(value) for key, value in text.items() if key not in left_out}
    # ids that end a text are told by the whole, which knows of turns
    found = {**_OF_CLASSES.get(part, {}), **whole.defaults, **text, **shared, **whole.always}
    found["model_type"] = whole.parts[part]
    if whole.cuts_width and found.get("head_dim") is None:
        of_text = Fields(text, f"{where}: text_config")
        heads = of_text.integer("num_attention_heads", 1, MAX_HEADS)
        found["head_dim"] = of_text.integer("hidden_size", heads, MAX_WIDTH) // heads
    return found


def inner(data: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of a whole, where it is written as a part of one; what that says itself comes first. A
    model_type that the class of the model belies is the class's."""
    part = data.get(_INNER)
    if isinstance(part, Mapping):
        data = {**part, **{key: value for key, value in data.items() if key != _INNER}}
    if data.get("model_type") in _ALONE:
        return {**data, "model_type": _ALONE[str(data["model_type"])]}
    if data.get("model_type") == INTERNVL_CHAT:
        return as_transformers_has_it(data)
    classes = data.get("architectures")
    for name in classes if isinstance(classes, list) else ():
        published, own = _BELIED.get(str(name), (None, None))
        if published is not None and data.get("model_type") == published:
            return {**data, "model_type": own}
    return dict(data)


def speaking_parts(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a model that speaks, too, the keys of the parts that do, which are not computed here."""
    return tuple(key for key in _SPEAKING if isinstance(data.get(key), Mapping))


def text_type(data: Mapping[str, Any]) -> str:
    """The architecture of what config.json describes, or of its text part; what it calls itself where none is known."""
    data = inner(data)
    named = str(data.get("model_type"))
    whole, text = _WHOLES.get(named), data.get("text_config")
    if whole is None:
        return named
    part = text.get("model_type") if isinstance(text, Mapping) else None
    return whole.parts.get(str(part), next(iter(whole.parts.values())))


def text_keys(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What config.json says of the text part of a whole, as it says it. Raises: ModelError where that is nothing."""
    data = inner(data)
    text, whole = Fields(data, where).table("text_config"), _WHOLES.get(str(data.get("model_type")))
    if text is not None:
        return text
    if whole is None or not whole.may_be_flat:
        raise ModelError(f"{where}: text_config is missing")
    of_whole = _OF_IMAGES - {"vocab_size"} | {"model_type", "architectures"}
    return {key: value for key, value in data.items() if key not in of_whole}


def sees_images_both_ways(data: Mapping[str, Any]) -> bool:
    """Whether tokens of an image see those of it that are behind them. Args: data: what config.json holds."""
    whole, text = _WHOLES.get(str(data.get("model_type"))), data.get("text_config")
    if whole is None or isinstance(whole.sees_images_both_ways, bool):
        return whole is not None and bool(whole.sees_images_both_ways)
    key = "use_bidirectional_attention"
    return isinstance(text, Mapping) and text.get(key, whole.defaults.get(key)) == whole.sees_images_both_ways


def sees_prompts_both_ways(data: Mapping[str, Any]) -> bool:
    """Whether tokens of a prompt with images see what is behind them of it. Args: data: what config.json holds."""
    whole = _WHOLES.get(str(data.get("model_type")))
    return whole is not None and whole.sees_prompts_both_ways


def multiplies_images(data: Mapping[str, Any]) -> bool:
    """Whether rows of pictures are multiplied as embeddings are. Args: data: what config.json holds."""
    whole = _WHOLES.get(str(data.get("model_type")))
    return whole is not None and whole.multiplies_images


def sees_images_beyond_windows(data: Mapping[str, Any]) -> bool:
    """Whether tokens of an image see what is before them of it in layers with a window, too, however far it is."""
    return sees_images_both_ways(data) and not _WHOLES[str(data["model_type"])].are_windows_kept


def token_of_images(data: Mapping[str, Any], where: str, vocab_size: int) -> int:
    """Id of the token that tokens of an image count as where each has an embedding beside the row of the image.

    Args: data: what config.json holds. Raises: ModelError for one that is none.
    """
    return Fields(text_keys(data, where), f"{where}: text_config").integer("pad_token_id", 0, vocab_size - 1, 0)


def rope_axes(data: Mapping[str, Any]) -> tuple[int, ...]:
    """Of each pair of the rotation, by which axis it turns: 0 time, 1 row, 2 column. Empty: positions are numbers.

    Args: data: what config.json holds. Where pairs of the three take turns, they do until one has all of its own; time
        has the rest.
    """
    whole = _WHOLES.get(str(data.get("model_type")))
    if whole is None or whole.sections is None:
        return ()
    text = data.get("text_config", data)
    text = text if isinstance(text, Mapping) else {}
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    said = rope.get("mrope_section", whole.sections) if isinstance(rope, Mapping) else whole.sections
    sections = [int(each) for each in said]
    if not whole.takes_turns:
        return tuple(axis % 3 for axis, count in enumerate(sections) for _ in range(count))
    return tuple(turn if turn and i < 3 * sections[turn] else 0 for i in range(sum(sections)) for turn in (i % 3,))


def _without_places(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    left_out = (*_OF_PLACES, *(("interleaved",) if "mrope_section" in value else ()))
    return {key: each for key, each in value.items() if key not in left_out and each != _OLD_TYPE}
