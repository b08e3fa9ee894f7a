"""Tiny models that answer about sounds, with random weights, as transformers makes and saves them: model, tokenizer,
template and extractor in one directory; and what transformers answers.

Used by the tests of models/hearing, and by those that go from a message to an answer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from albireo.backends.backend import KernelCatalog
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.execution.vision import VisionRunner, num_blocks, vision_programs
from albireo.graph.program import Program
from albireo.models.settings.text_part import inner
from albireo.models.vision.tensors import tower_tensors
from albireo.models.vision.tower import open_ear
from albireo.sounds.processor import SoundProcessor, open_sound_processor
from hearer_family import F32, RATE, Family
from hearers_of_fun import OF_FUN
from hearers_of_gemma import OF_GEMMA, as_wide
from hearers_of_phi import OF_PHI, hear_one_by_one
from made_once import made_once
from tiny_towers import BUFFERS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'audio' %}SOUND"
    "{% elif part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
_WHISPER = {
    "num_mel_bins": 8,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "d_model": 40,
}
_BARE = {"hidden_size": 40, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}


def _of_qwen2_audio(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given = extractor(
        list(sounds), sampling_rate=RATE, return_attention_mask=True, padding="max_length", return_tensors="pt"
    )
    lengths = [((int(mask.sum()) - 1) // 2 + 1 - 2) // 2 + 1 for mask in given.attention_mask]
    return {"input_features": given.input_features, "feature_attention_mask": given.attention_mask}, lengths


def _of_voxtral(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    parts, lengths = [], []
    for sound in sounds:
        given = extractor(
            sound, sampling_rate=RATE, truncation=False, pad_to_multiple_of=RATE, padding=True, return_tensors="pt"
        )
        parts.append(given.input_features.reshape(8, -1, 100).transpose(0, 1))
        lengths.append(25 * len(parts[-1]))
    return {"input_features": torch.cat(parts)}, lengths


def _of_qwen3_asr(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given = [
        extractor(
            sound, sampling_rate=RATE, truncation=False, padding=True, return_attention_mask=True, return_tensors="pt"
        )
        for sound in sounds
    ]
    most = max(each["input_features"].shape[-1] for each in given)

    def joined(key: str) -> Any:
        return torch.cat([torch.nn.functional.pad(each[key], (0, most - each[key].shape[-1])) for each in given])

    frames = [int(each["attention_mask"].sum()) for each in given]
    # of each second behind three convolutions that go on by two, 13; an eighth of the rest
    lengths = [count // 100 * 13 + (count % 100 + 7) // 8 for count in frames]
    return {"input_features": joined("input_features"), "input_features_mask": joined("attention_mask")}, lengths


def _of_audioflamingo3(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given, frames = _in_twos(extractor, sounds)
    lengths = [((int(each.sum()) - 1) // 2 + 1 - 2) // 2 + 1 for each in frames]
    return {"input_features": given.input_features, "input_features_mask": given.attention_mask}, lengths


def _of_music(model: Any, given: Mapping[str, Any]) -> Any:
    """Rows are told apart by where their tokens stand."""
    mask = given["input_features_mask"]
    _, lengths = model.model.audio_tower._get_feat_extract_output_lengths(mask.sum(-1).long())
    ids = torch.full((1, int(lengths.sum())), model.config.audio_token_id)
    return model.model.get_audio_features(**given, input_ids=ids).pooler_output


def _of_glmasr(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given, frames = _in_twos(extractor, sounds)
    lengths = [((int(each.sum()) - 1) // 2 + 1) // 4 for each in frames]
    return {"input_features": given.input_features, "input_features_mask": given.attention_mask}, lengths


def _in_twos(extractor: Any, sounds: Sequence[F32]) -> tuple[Any, Any]:
    """Each two seconds by themselves; and of each sound frames of each."""
    parts = [[sound[at : at + 2 * RATE] for at in range(0, len(sound), 2 * RATE)] for sound in sounds]
    given = extractor(
        [part for some in parts for part in some],
        sampling_rate=RATE,
        return_attention_mask=True,
        padding="max_length",
        return_tensors="pt",
    )
    return given, given.attention_mask.sum(-1).split([len(some) for some in parts])


class GraniteExtractor:
    """What Granite Speech's own makes with torchaudio: a spectrogram of powers, in bands as HTK has them."""

    def __call__(self, samples: F32) -> Any:
        window = torch.hann_window(400)
        found = torch.stft(torch.tensor(samples), 512, 160, 400, window, center=True, return_complex=True)
        bands = transformers.audio_utils.mel_filter_bank(257, 8, 0.0, 8000.0, RATE, norm=None, mel_scale="htk")
        logs = (found.abs().double() ** 2).T @ torch.tensor(bands)
        logs = logs.clip(min=1e-10).log10()
        logs = (torch.maximum(logs, logs.max() - 8.0) / 4 + 1).float()
        return logs[: len(logs) // 2 * 2].reshape(-1, 16)

    def save_pretrained(self, folder: Path) -> None:
        mel = {"sample_rate": RATE, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 8}
        said = {"feature_extractor_type": "GraniteSpeechFeatureExtractor", "melspec_kwargs": mel}
        said |= {"sampling_rate": RATE, "projector_window_size": 15, "projector_downsample_rate": 5}
        (folder / "preprocessor_config.json").write_text(json.dumps(said))


def _of_granite(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given = [extractor(sound) for sound in sounds]
    lengths = [-(-len(each) // 15) * 3 for each in given]
    features = torch.nn.utils.rnn.pad_sequence(given, batch_first=True)
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    return {"input_features": features, "input_features_mask": mask}, lengths


def _one_by_one(model: Any) -> Any:
    """How a model of Granite Speech is given sounds: each alone. transformers lets the shorter ones of a batch hear
    what they are filled up with."""
    hear = model.get_audio_features

    def heard(input_features: Any, input_features_mask: Any = None, **more: Any) -> Any:
        lengths = [int(each.abs().sum(-1).nonzero().max()) + 1 for each in input_features]
        each = [hear(features[None, :n], return_dict=True) for features, n in zip(input_features, lengths, strict=True)]
        rows = torch.nn.utils.rnn.pad_sequence([one.pooler_output[0] for one in each], batch_first=True)
        each[0].pooler_output = rows
        return each[0]

    return heard


def _granite_speech(kind: str, **more: Any) -> Callable[[Mapping[str, int]], dict[str, Any]]:
    encoder = {"input_dim": 16, "num_layers": 4, "hidden_dim": 32, "num_heads": 2, "output_dim": 6}
    encoder |= {"context_size": 20, "max_pos_emb": 32, "conv_kernel_size": 5, "model_type": f"{kind}_encoder", **more}
    heard = 32 * (1 + len(more.get("cat_hidden_layers", ())))
    multipliers = {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3}
    return lambda ids: {
        "text_config": {**_TEXT, **multipliers, "model_type": "granite", "vocab_size": max(ids.values()) + 1},
        "encoder_config": encoder,
        "projector_config": {
            "model_type": "blip_2_qformer",
            "hidden_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            # as published files have it
            "position_embedding_type": "absolute",
            "encoder_hidden_size": heard,
            "cross_attention_frequency": 2,
        },
        "audio_token_index": ids["<|audio|>"],
        "has_lora_adapter": False,
    }


def _of_qwen2_5_omni(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given = extractor(
        list(sounds), sampling_rate=RATE, return_attention_mask=True, padding="max_length", return_tensors="pt"
    )
    lengths = [((int(mask.sum()) - 1) // 2 + 1 - 2) // 2 + 1 for mask in given.attention_mask]
    return {"input_features": given.input_features, "feature_attention_mask": given.attention_mask}, lengths


def _of_qwen3_omni(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given, lengths = _of_qwen3_asr(extractor, sounds)
    given["feature_attention_mask"] = given.pop("input_features_mask")
    return given, lengths


def _fill_chunks(tower: Any, features: tuple[Any], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What a tower of Qwen3-Omni is given, chunks filled up with zeros, as they are where a longer one is beside them.
    transformers leaves those of a batch of short sounds as they are."""
    from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import chunk_and_pad_features

    chunks, lengths = chunk_and_pad_features(features[0], given["feature_lens"], tower.n_window)
    filled = torch.nn.functional.pad(chunks, (0, 2 * tower.n_window - chunks.shape[-1]))
    return features, {**given, "padded_feature": filled, "chunk_lengths": lengths}


_SIGHT = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 8}
_SIGHT |= {"out_hidden_size": 48}
_EYE = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
_EYE |= {"min_pixels": 256, "max_pixels": 4096, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def _mrope(*sections: int) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(sections)}}


FAMILIES: dict[str, Family] = {
    **OF_FUN,
    **OF_GEMMA,
    **OF_PHI,
    "qwen2_5_omni": Family(
        "Qwen2_5OmniThinkerForConditionalGeneration",
        "<|audio_bos|><|AUDIO|><|audio_eos|>",
        "<|AUDIO|>",
        lambda ids: {
            "text_config": {**_TEXT, **_mrope(1, 3, 2), "vocab_size": max(ids.values()) + 1},
            # chunks of 0.4 s
            "audio_config": {**_WHISPER, "n_window": 20, "output_dim": 48},
            "vision_config": {**_SIGHT, "window_size": 32, "fullatt_block_indexes": [1]},
            "audio_token_index": ids["<|AUDIO|>"],
            "image_token_index": ids["<|IMAGE|>"],
            "video_token_index": ids["<|VIDEO|>"],
            "audio_start_token_id": ids["<|audio_bos|>"],
            "audio_end_token_id": ids["<|audio_eos|>"],
            "vision_start_token_id": ids["<|vision_bos|>"],
            "vision_end_token_id": ids["<|vision_eos|>"],
        },
        lambda: transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=5),
        _of_qwen2_5_omni,
        5.0,
        sights=("<|vision_bos|><|IMAGE|><|vision_eos|>", "<|vision_bos|><|VIDEO|><|vision_eos|>"),
        images=_EYE,
        model_type="qwen2_5_omni_thinker",
    ),
    "qwen3_omni_moe": Family(
        "Qwen3OmniMoeThinkerForConditionalGeneration",
        "<|audio_start|><|audio_pad|><|audio_end|>",
        "<|audio_pad|>",
        lambda ids: {
            "text_config": {
                **_TEXT,
                **_mrope(3, 3, 2),
                "head_dim": 16,
                "num_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 32,
                "vocab_size": max(ids.values()) + 1,
            },
            "audio_config": {
                **_WHISPER,
                "n_window": 50,
                "n_window_infer": 200,
                "output_dim": 48,
                "downsample_hidden_size": 12,
            },
            "vision_config": {**_SIGHT, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
            "position_id_per_seconds": 13,
            "audio_token_id": ids["<|audio_pad|>"],
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
            "audio_start_token_id": ids["<|audio_start|>"],
            "vision_start_token_id": ids["<|vision_start|>"],
            "vision_end_token_id": ids["<|vision_end|>"],
        },
        lambda: transformers.WhisperFeatureExtractor(feature_size=8),
        _of_qwen3_omni,
        60.0,
        sights=("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"),
        images=_EYE,
        model_type="qwen3_omni_moe_thinker",
    ),
    "audioflamingo3": Family(
        "AudioFlamingo3ForConditionalGeneration",
        "<sound>",
        "<sound>",
        lambda ids: {
            "text_config": {**_TEXT, "model_type": "qwen2", "vocab_size": max(ids.values()) + 1},
            "audio_config": {
                **_BARE,
                "num_mel_bins": 8,
                "model_type": "audioflamingo3_encoder",
                "max_source_positions": 100,
            },
            "audio_token_id": ids["<sound>"],
        },
        lambda: transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=2),
        _of_audioflamingo3,
        60.0,
    ),
    "musicflamingo": Family(
        "MusicFlamingoForConditionalGeneration",
        "<sound>",
        "<sound>",
        lambda ids: {
            "text_config": {**_TEXT, "model_type": "qwen2", "vocab_size": max(ids.values()) + 1},
            "audio_config": {
                **_BARE,
                "num_mel_bins": 12,
                "model_type": "audioflamingo3_encoder",
                "max_source_positions": 100,
            },
            "rope_parameters": {"rope_type": "default", "rope_theta": 60.0, "partial_rotary_factor": 0.2},
            "audio_token_id": ids["<sound>"],
            "audio_bos_token_id": ids["<|sound_bos|>"],
            "audio_eos_token_id": ids["<|sound_eos|>"],
        },
        lambda: transformers.WhisperFeatureExtractor(feature_size=12, chunk_length=2),
        _of_audioflamingo3,
        60.0,
        ("<|sound_bos|>", "<|sound_eos|>"),
        around=("<|sound_bos|>", "<|sound_eos|>"),
        rows=_of_music,
    ),
    "glmasr": Family(
        "GlmAsrForConditionalGeneration",
        "<|begin_of_audio|><|pad|><|end_of_audio|>",
        "<|pad|>",
        lambda ids: {
            "text_config": {**_TEXT, "model_type": "llama", "head_dim": 16, "vocab_size": max(ids.values()) + 1},
            "audio_config": {
                **_BARE,
                "hidden_size": 48,
                "intermediate_size": 192,
                "num_mel_bins": 8,
                "model_type": "glmasr_encoder",
                "max_position_embeddings": 100,
            },
            "audio_token_id": ids["<|pad|>"],
        },
        lambda: transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=2),
        _of_glmasr,
        60.0,
    ),
    "granite_speech": Family(
        "GraniteSpeechForConditionalGeneration",
        "<|audio|>",
        "<|audio|>",
        _granite_speech("granite_speech"),
        GraniteExtractor,
        _of_granite,
        180.0,
    ),
    "granite_speech_plus": Family(
        "GraniteSpeechPlusForConditionalGeneration",
        "<|audio|>",
        "<|audio|>",
        # before the letters, behind them, and behind one of the second half
        _granite_speech("granite_speech_plus", cat_hidden_layers=[0, 1, 2, 3]),
        GraniteExtractor,
        _of_granite,
        180.0,
    ),
    "qwen2_audio": Family(
        "Qwen2AudioForConditionalGeneration",
        "<|audio_bos|><|AUDIO|><|audio_eos|>",
        "<|AUDIO|>",
        lambda ids: {
            "text_config": {**_TEXT, "model_type": "qwen2", "vocab_size": max(ids.values()) + 1},
            "audio_config": {**_WHISPER, "model_type": "qwen2_audio_encoder", "max_source_positions": 50},
            "audio_token_index": ids["<|AUDIO|>"],
        },
        lambda: transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1),
        _of_qwen2_audio,
        1.0,
    ),
    "qwen3_asr": Family(
        "Qwen3ASRForConditionalGeneration",
        "<|audio_start|><|audio_pad|><|audio_end|>",
        "<|audio_pad|>",
        # windows of two chunks
        lambda ids: {
            "text_config": {**_TEXT, "model_type": "qwen3", "head_dim": 16, "vocab_size": max(ids.values()) + 1},
            "audio_config": {
                **_WHISPER,
                "model_type": "qwen3_asr_encoder",
                "n_window": 50,
                "n_window_infer": 200,
                "output_dim": 48,
                "downsample_hidden_size": 12,
            },
            "audio_token_id": ids["<|audio_pad|>"],
        },
        lambda: transformers.Qwen3ASRFeatureExtractor(feature_size=8),
        _of_qwen3_asr,
        60.0,
    ),
    "voxtral": Family(
        "VoxtralForConditionalGeneration",
        "[BEGIN_AUDIO][AUDIO]",
        "[AUDIO]",
        lambda ids: {
            "text_config": {**_TEXT, "model_type": "llama", "head_dim": 16, "vocab_size": max(ids.values()) + 1},
            "audio_config": {
                **_BARE,
                "num_mel_bins": 8,
                "model_type": "voxtral_encoder",
                "max_source_positions": 50,
            },
            "audio_token_id": ids["[AUDIO]"],
        },
        lambda: transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1),
        _of_voxtral,
        60.0,
        ("<s>", "[INST]", "[/INST]", "[TRANSCRIBE]"),
    ),
}


#: Numbers that are no parameters: around what they are drawn.
_BUFFERS = {**{key: 2 * mean for key, mean in BUFFERS.items()}, "global_mean": 0.0, "global_invstd": 1.0}


@made_once
def save(folder: Path, name: str, seed: int = 0, dtype: str = "float32", *, with_tekken: bool = False) -> Path:
    """A model of that family, whose every weight is drawn so that sounds are heard in what it answers. Args:
    with_tekken: its tokenizer is a tekken.json, as Voxtral was published, and it has no template."""
    family = FAMILIES[name]
    ids = save_tekken(folder) if with_tekken else _save_tokenizer(folder, family)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = transformers.AutoConfig.for_model(family.model_type or name, **family.config(ids))
    begin, end = ("<s>", "</s>") if with_tekken else ("<|im_start|>", "<|im_end|>")
    # of some it lies among the keys of the whole
    of_text = getattr(config, "text_config", config)
    of_text.eos_token_id = config.eos_token_id = ids[end]
    of_text.bos_token_id = of_text.pad_token_id = config.pad_token_id = ids[begin]
    config.tie_word_embeddings = of_text.tie_word_embeddings = name in ("fun_asr_nano", "glmasr", "qwen3_asr")
    model = getattr(transformers, family.class_name)(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for key, weight in model.named_buffers():
            if "running_var" in key:
                weight.uniform_(0.5, 2.0)
            elif "running_mean" in key:
                weight.normal_(0.0, 0.2)
            elif (mean := _BUFFERS.get(key.rpartition(".")[2])) is not None:
                weight.normal_(mean, 0.2)
        for key, weight in model.named_parameters():
            if weight.ndim > 1:
                is_embedding = "embed" in key.replace("embed_tokens_extend", "")
                weight.normal_(0.0, 1.0 if is_embedding else 1.5 * weight[0].numel() ** -0.5)
            else:
                is_norm = ("norm" in key.lower() or "ln_post" in key) and key.endswith("weight")
                weight.normal_(1.0 if is_norm else 0.0, 0.2)
    model.save_pretrained(folder)
    family.extractor().save_pretrained(folder)
    if family.parts is not None:
        said = folder / "preprocessor_config.json"
        parts = {"feature_extractor": json.loads(said.read_text()), **family.parts}
        (folder / "processor_config.json").write_text(json.dumps(parts))
        said.unlink()
    if family.images is not None:
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | family.images))
        kept = ("image_mean", "image_std", "min_pixels", "max_pixels", "patch_size")
        videos = {"video_processor_type": "Qwen2VLVideoProcessor", **{key: family.images[key] for key in kept}}
        (folder / "video_preprocessor_config.json").write_text(json.dumps(videos))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def publish_first(folder: Path) -> Path:
    """A saved Qwen3-ASR as it was first published: a part of a whole, whose projector is its tower's."""
    data = json.loads((folder / "config.json").read_text())
    data["audio_config"]["model_type"], data["text_config"]["model_type"] = "qwen3_asr_audio_encoder", "qwen3_asr_text"
    theta = data["text_config"].pop("rope_parameters")["rope_theta"]
    rope = {"interleaved": True, "mrope_interleaved": True, "mrope_section": [3, 3, 2], "rope_type": "default"}
    data["text_config"] |= {"rope_theta": theta, "rope_scaling": {**rope, "type": "default"}}
    inner = {key: data.pop(key) for key in ("audio_config", "text_config", "audio_token_id")}
    inner |= {"model_type": "qwen3_asr_thinker", "audio_start_token_id": 1, "audio_end_token_id": 2, "user_token_id": 3}
    data |= {"thinker_config": inner, "support_languages": ["English", "German"]}
    (folder / "config.json").write_text(json.dumps(data))
    names = {
        "model.audio_tower.": "thinker.audio_tower.",
        "model.multi_modal_projector.linear_1.": "thinker.audio_tower.proj1.",
        "model.multi_modal_projector.linear_2.": "thinker.audio_tower.proj2.",
        "model.language_model.": "thinker.model.",
        "lm_head.": "thinker.lm_head.",
    }
    tensors = {}
    for name, value in load_file(folder / "model.safetensors").items():
        old = next(each for each in names if name.startswith(each))
        tensors[names[old] + name.removeprefix(old)] = value
    save_file(tensors, folder / "model.safetensors")
    whisper = transformers.WhisperFeatureExtractor(feature_size=8)
    whisper.save_pretrained(folder)
    return folder


def publish_whole(folder: Path, name: str) -> Path:
    """A saved part that answers, as omni models are published: of a whole that speaks, too."""
    data = json.loads((folder / "config.json").read_text())
    data["architectures"] = ["ThinkerOfItsOwn"]
    whole = {"architectures": [FAMILIES[name].class_name.replace("Thinker", "")], "model_type": name}
    speaks = {"enable_audio_output": True, "talker_config": {"num_code_groups": 16}, "tts_bos_token_id": 3}
    (folder / "config.json").write_text(json.dumps({**whole, **speaks, "thinker_config": data}))
    tensors = {f"thinker.{key}": value for key, value in load_file(folder / "model.safetensors").items()}
    tensors["talker.model.layers.0.mlp.gate.weight"] = np.ones((4, 4), np.float32)
    tensors["code2wav.decoder.0.conv.bias"] = np.ones(4, np.float32)
    save_file(tensors, folder / "model.safetensors")
    return folder


def _save_tokenizer(folder: Path, family: Family) -> dict[str, int]:
    """A token a byte, and those of the family. Returns: token -> id, of all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    written = _split("".join((family.mark, *family.sights)))
    marks = ("<|im_start|>", "<|im_end|>", *(each for each in written if each not in family.tokens), *family.tokens)
    backend.add_special_tokens([AddedToken(each, special=True) for each in dict.fromkeys(marks)])
    backend.add_tokens([AddedToken("<asr_text>", special=False)])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    named = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    template = _TURNS.replace("SOUND", family.mark)
    for kind, mark in zip(("IMAGE", "VIDEO"), family.sights or ("", ""), strict=True):
        template = template.replace(kind, mark)
    (folder / "chat_template.jinja").write_text(template)
    return dict(backend.get_vocab(with_added_tokens=True))


#: Of Voxtral's, by rank; those between have no name here.
TEKKEN = {"<unk>": 0, "<s>": 1, "</s>": 2, "[INST]": 3, "[/INST]": 4, "[AVAILABLE_TOOLS]": 5, "[/AVAILABLE_TOOLS]": 6}
TEKKEN |= {"[TOOL_RESULTS]": 7, "[/TOOL_RESULTS]": 8, "[TOOL_CALLS]": 9, "<pad>": 11, "[SYSTEM_PROMPT]": 17}
TEKKEN |= {
    "[/SYSTEM_PROMPT]": 18,
    "[TOOL_CONTENT]": 19,
    "[AUDIO]": 24,
    "[BEGIN_AUDIO]": 25,
    "[TRANSCRIBE]": 34,
    "[STREAMING_PAD]": 32,
    "[STREAMING_WORD]": 33,
}


NUM_SPECIAL = 40


def save_tekken(folder: Path) -> dict[str, int]:
    """A token a byte, behind special ones."""
    folder.mkdir(exist_ok=True)
    coded = [base64.b64encode(bytes([number])).decode() for number in range(256)]
    content = {
        "config": {
            "pattern": r"[^\n]+|\n",
            "version": "v7",
            "num_vocab_tokens": 256,
            "default_vocab_size": NUM_SPECIAL + 256,
            "default_num_special_tokens": NUM_SPECIAL,
        },
        "vocab": [{"rank": rank, "token_bytes": text, "token_str": None} for rank, text in enumerate(coded)],
        "special_tokens": [{"rank": rank, "token_str": text, "is_control": True} for text, rank in TEKKEN.items()],
    }
    (folder / "tekken.json").write_text(json.dumps(content))
    return {**TEKKEN, **{f"byte {number}": NUM_SPECIAL + number for number in range(256)}}


def _split(mark: str) -> list[str]:
    return mark.replace(">", "> ").replace("]", "] ").split()


def sound(seconds: float, seed: int = 0) -> F32:
    """Noise that swells and fades."""
    count = round(seconds * RATE)
    swelling = 0.1 + 0.1 * np.sin(np.arange(count) * (2 * np.pi / 5000))
    return (np.random.default_rng(seed).standard_normal(count) * swelling).astype(np.float32)


class Theirs:
    """What transformers makes of a saved model."""

    def __init__(self, folder: Path, name: str, dtype: str = "float32") -> None:
        self.family = FAMILIES[name]
        self.folder = folder
        kind = getattr(transformers, self.family.class_name)
        self.model = kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()
        self.model.generation_config.eos_token_id = None
        if name == "qwen3_omni_moe":
            self.model.model.audio_tower.register_forward_pre_hook(_fill_chunks, with_kwargs=True)
        if name == "phi4_multimodal":
            hear_one_by_one(self.model)
        if name.startswith("granite"):
            self.model.model.get_audio_features = _one_by_one(self.model.model)

    @cached_property
    def tokenizer(self) -> Any:
        """Of those alone who ask about text."""
        return transformers.AutoTokenizer.from_pretrained(self.folder)

    def inputs(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """What the model is given of a chat whose parts are texts and sounds."""
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        parts = [part for message in messages for part in message["content"]]
        sounds = [part["audio"][0] for part in parts if part["type"] == "audio"]
        more, lengths = self.family.heard(self.family.extractor(), sounds) if sounds else ({}, [])
        pieces = text.split(self.family.row)
        assert len(pieces) == len(lengths) + 1
        before, behind = self.family.around
        standing = [f"{before}{self.family.row * n}{behind}" for n in lengths]
        whole = pieces[0] + "".join(row + rest for row, rest in zip(standing, pieces[1:], strict=True))
        ids = self.tokenizer.encode(whole, add_special_tokens=False)
        more |= self.family.asked
        return {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)), **more}

    def answer(self, messages: list[dict[str, Any]], num_tokens: int) -> tuple[list[int], list[int], list[float]]:
        """Ids of the prompt, those of the greedy answer, and their log-probabilities."""
        inputs = self.inputs(messages)
        with torch.no_grad():
            found = self.model.generate(
                **inputs, max_new_tokens=num_tokens, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        ids = inputs["input_ids"][0].tolist()
        output = found.sequences[0, len(ids) :].tolist()
        values = [torch.log_softmax(row[0], -1)[token].item() for row, token in zip(found.logits, output, strict=True)]
        return ids, output, values

    def rows(self, samples: F32) -> NDArray[np.float64]:
        """What transformers puts in place of embeddings."""
        given, lengths = self.family.heard(self.family.extractor(), [samples])
        given = {key: value.to(self.model.dtype) if "mask" not in key else value for key, value in given.items()}
        if self.family.ended is not None:  # its tower is told where nothing is heard
            given["input_features_mask"] = ~given["input_features_mask"]
        with torch.no_grad(), as_wide(self.model.dtype):
            if self.family.rows is not None:
                rows = self.family.rows(self.model, given)
            elif isinstance(self.model, transformers.Qwen2AudioForConditionalGeneration):
                count = (int(given["feature_attention_mask"].sum()) - 1) // 2 + 1
                most = self.model.config.audio_config.max_source_positions
                mask = torch.zeros(1, 1, most, most, dtype=self.model.dtype)
                mask[..., count:] = -torch.inf
                tower = self.model.model.audio_tower(given["input_features"], attention_mask=mask).last_hidden_state
                rows = self.model.model.multi_modal_projector(tower)[0]
            else:
                rows = self.model.model.get_audio_features(**given).pooler_output
                rows = rows[0] if rows.ndim == 3 else rows
            if self.family.ended is not None:
                return np.asarray(self.family.ended(self.model.model, rows).double().numpy())
        return np.asarray(rows[: lengths[0]].double().numpy())


def tiles(folder: Path, samples: F32) -> list[F32]:
    """What the tower of a saved model is given of a sound."""
    return list(_processor(folder).prepare(samples).tiles)


def _processor(folder: Path) -> SoundProcessor:
    return open_sound_processor(folder, inner(json.loads((folder / "config.json").read_text())))


def opened_by(
    open_program: Callable[[Program, Any], Any], catalog: KernelCatalog, folder: Path, dtype: str
) -> VisionRunner:
    data = json.loads((folder / "config.json").read_text())
    tower, tensors = open_ear(inner(data), dtype, str(folder)), tower_tensors(folder, True)
    most = tower.patches(*_processor(folder).largest_tile())
    runner = VisionRunner(tower, tensors, vision_programs(tower, catalog, most), open_program)
    tensors.close()
    return runner


def opened(folder: Path, dtype: str = "float32", num_threads: int = 1) -> VisionRunner:
    """On the CPU."""
    pool = thread_pool(num_threads)

    def open_program(program: Program, weights: Any) -> CpuModel:
        return CpuModel(program, weights, pool, num_blocks(program))

    return opened_by(open_program, CpuCatalog(isa_levels()), folder, dtype)
