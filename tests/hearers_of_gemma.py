"""Tiny Gemmas that hear, see hearer_family.py: beside pictures, and without a tower."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from hearer_family import F32, RATE, Family
from sight_family import text_of
from variants import VARIANTS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
modeling_gemma3n = pytest.importorskip("transformers.models.gemma3n.modeling_gemma3n")

_SIGHT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "patch_size": 8,
    "pooling_kernel_size": 2,
    "position_embedding_size": 12,
}
#: What a tower of more sizes than one has: layers that see less than a chunk, bands that are halved twice.
_HEARING = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "subsampling_conv_channels": [8, 6],
    "attention_chunk_size": 4,
    "attention_context_left": 5,
    "conv_kernel_size": 3,
    "output_proj_dims": 20,
}
_TEXT = {**VARIANTS["gemma4_text, embeddings of layers"], "sliding_window": 16, "max_position_embeddings": 2048}


def _ids(ids: Mapping[str, int]) -> dict[str, Any]:
    names = {"image": "<|image|>", "video": "<|video|>", "audio": "<|audio|>", "boi": "<|image>", "boa": "<|audio>"}
    found = {f"{name}_token_id": ids[token] for name, token in names.items()}
    return {**found, "eoi_token_id": ids["<image|>"], "eoa_token_id": ids["<audio|>"]}


def _gemma4(ids: Mapping[str, int]) -> dict[str, Any]:
    count = max(ids.values()) + 1
    text = {**text_of("gemma4_text", **_TEXT), "vocab_size": count, "vocab_size_per_layer_input": count}
    return {"text_config": text, "vision_config": _SIGHT, "audio_config": _HEARING, **_ids(ids)}


def _unified(ids: Mapping[str, int]) -> dict[str, Any]:
    text = {**text_of("gemma4_unified_text", sliding_window=16), "max_position_embeddings": 2048}
    seen = {"patch_size": 8, "pooling_kernel_size": 2, "mm_embed_dim": 32, "output_proj_dims": 32, "mm_posemb_size": 6}
    return {
        "text_config": {**text, "vocab_size": max(ids.values()) + 1},
        "vision_config": seen,
        "audio_config": {"audio_embed_dim": 500},
        **_ids(ids),
    }


@contextmanager
def as_wide(dtype: Any) -> Iterator[None]:
    """Of a model in float64, what asks for float32 is given that: Gemma's layers, which then could not go on."""
    kept = torch.Tensor.float
    if dtype == torch.float64:
        torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.float = kept


def _heard(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given = extractor(list(sounds), sampling_rate=RATE, return_tensors="pt")
    lengths = [int(mask[::2][::2].sum()) for mask in given.input_features_mask]
    return {"input_features": given.input_features, "input_features_mask": given.input_features_mask}, lengths


def _of_samples(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given = extractor(list(sounds), sampling_rate=RATE, return_tensors="pt")
    lengths = [int(mask.sum()) for mask in given["input_features_mask"]]
    return {key: given[key] for key in ("input_features", "input_features_mask")}, lengths


def _parts(name: str) -> dict[str, Any]:
    sizes = {"max_soft_tokens": 6, "patch_size": 8, "pooling_kernel_size": 2}
    return {
        "processor_class": f"{name}Processor",
        "image_processor": {"image_processor_type": f"{name}ImageProcessor", "do_normalize": False, **sizes},
        "video_processor": {"video_processor_type": f"{name}VideoProcessor", "num_frames": 3, **sizes},
        "audio_ms_per_token": 40,
        "audio_seq_length": 750,
        "image_seq_length": 280,
    }


class _Blind(torch.nn.Module):
    """In place of what sees, which transformers takes from another library."""


def _without_sight(config: Any) -> Any:
    return _Blind() if config.model_type == "gemma3n_vision" else transformers.AutoModel.from_config(config)


modeling_gemma3n.AutoModel = SimpleNamespace(from_config=_without_sight)


def _gemma3n(ids: Mapping[str, int]) -> dict[str, Any]:
    """Its last tokens, of which the first ends a sound, have embeddings of their own."""
    first, count = ids["<end_of_audio>"], max(ids.values()) + 1
    text = {**text_of("gemma3n_text"), "max_position_embeddings": 2048, "sliding_window": 64}
    beside = {"hidden_size": 24, "vocab_size": 1, "vocab_offset": first}
    return {
        "text_config": {**text, "vocab_size": count, "vocab_size_per_layer_input": first},
        "vision_config": {**beside, "model_type": "gemma3n_vision", "label_names": ["a", "b"]},
        "audio_config": {
            "hidden_size": 32,
            "conf_num_hidden_layers": 2,
            "conf_num_attention_heads": 2,
            "conf_attention_chunk_size": 4,
            "conf_attention_context_left": 5,
            "conf_conv_kernel_size": 3,
            "sscp_conv_channel_size": [8, 6],
            "input_feat_size": 8,
            "vocab_size": count - first,
            "vocab_offset": first,
        },
        "audio_soft_tokens_per_image": 188,
        "audio_token_id": ids["<audio_soft_token>"],
        "boa_token_id": ids["<start_of_audio>"],
        "eoa_token_id": first,
    }


def _all_of_30_s(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given = [extractor(sound, sampling_rate=RATE, return_tensors="pt") for sound in sounds]
    most = max(each.input_features.shape[1] for each in given)

    def joined(key: str) -> Any:
        return torch.cat([_filled(each[key], most - each[key].shape[1]) for each in given])

    names = "input_features", "input_features_mask"
    return {name: joined(name) for name in names}, [188] * len(given)


def _filled(values: Any, count: int) -> Any:
    return torch.nn.functional.pad(values, (0, 0, 0, count) if values.ndim == 3 else (0, count))


def _ended(model: Any, rows: Any) -> Any:
    """With what stands where nothing is heard, and with the token at the end."""
    ids = torch.tensor([[model.vocab_size - 1, model.config.eoa_token_id]])
    filling, ending = model.embed_audio(input_ids=ids)[0]
    return torch.cat([rows, filling.expand(188 - len(rows), -1), ending[None]])


_TOKENS = ("<|audio>", "<audio|>", "<|image>", "<|image|>", "<image|>", "<|video|>")
_AROUND = ("<|audio>", "<audio|>")
OF_GEMMA: dict[str, Family] = {
    "gemma3n": Family(
        "Gemma3nForConditionalGeneration",
        "<audio_soft_token>",
        "<audio_soft_token>",
        _gemma3n,
        lambda: transformers.Gemma3nAudioFeatureExtractor(feature_size=8),
        _all_of_30_s,
        30.0,
        ("<start_of_audio>", "<end_of_audio>", "<audio_soft_token>"),
        around=("\n\n<start_of_audio>", "<end_of_audio>\n\n"),
        ended=_ended,
    ),
    "gemma4": Family(
        "Gemma4ForConditionalGeneration",
        "<|audio|>",
        "<|audio|>",
        _gemma4,
        lambda: transformers.Gemma4AudioFeatureExtractor(feature_size=8),
        _heard,
        30.0,
        _TOKENS,
        sights=("<|image|>", "<|video|>"),
        around=_AROUND,
        parts=_parts("Gemma4"),
    ),
    "gemma4_unified": Family(
        "Gemma4UnifiedForConditionalGeneration",
        "<|audio|>",
        "<|audio|>",
        _unified,
        lambda: transformers.Gemma4UnifiedAudioFeatureExtractor(feature_size=500, audio_samples_per_token=500),
        _of_samples,
        60.0,
        _TOKENS,
        sights=("<|image|>", "<|video|>"),
        around=_AROUND,
        parts=_parts("Gemma4Unified"),
        # its masks are Gemma 4's where caches are made at once, else those of Gemma 3
        asked={"cache_implementation": "static"},
    ),
}
