"""The tiny models that hear, by name; see hearer_family.py. Used by tiny_hearers.py, which makes and saves them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hearer_family import F32, RATE, Family
from hearers_of_fun import OF_FUN
from hearers_of_gemma import OF_GEMMA
from hearers_of_phi import OF_PHI

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TURNS = (
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


def one_by_one(model: Any) -> Any:
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


def _of_qwen3_omni(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given, lengths = _of_qwen3_asr(extractor, sounds)
    given["feature_attention_mask"] = given.pop("input_features_mask")
    return given, lengths


def fill_chunks(tower: Any, features: tuple[Any], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
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
        _of_qwen2_audio,
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
