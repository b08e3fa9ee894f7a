"""A tiny Phi-4 multimodal that hears, see hearer_family.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from hearer_family import F32, RATE, Family

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "original_max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
}
#: Distances beyond the farthest are alike.
_AUDIO = {
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_blocks": 2,
    "num_attention_heads": 2,
    "ext_pw_out_channel": 32,
    "depthwise_separable_out_channel": 32,
    "kernel_size": 3,
    "input_size": 8,
    "bias_max_distance": 7,
    "nemo_conv_channels": 6,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "crop_size": 28,
}


def _config(ids: Mapping[str, int]) -> dict[str, Any]:
    return {
        **_TEXT,
        "vocab_size": max(ids.values()) + 1,
        "audio_config": {**_AUDIO, "audio_token_id": ids["<|audio|>"]},
        "vision_config": {**_VISION, "image_token_id": ids["<|image|>"]},
    }


def _heard(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given = [extractor(sound, sampling_rate=RATE, return_tensors="pt") for sound in sounds]
    counts = [each["audio_input_features"].shape[1] for each in given]
    filled = [
        torch.nn.functional.pad(each["audio_input_features"], (0, 0, 0, max(counts) - count))
        for each, count in zip(given, counts, strict=True)
    ]
    mask = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
    sizes = torch.cat([each["audio_embed_sizes"].reshape(-1) for each in given])
    named = {"audio_input_features": torch.cat(filled), "audio_attention_mask": mask, "audio_embed_sizes": sizes}
    return named, sizes.tolist()


def hear_one_by_one(model: Any) -> None:
    """Each sound alone: of several transformers adds whether a position is heard to its score, in place of leaving out
    those that are not."""
    encoder = model.model.embed_tokens_extend.audio_embed.encoder
    hear = encoder.forward

    def heard(features: Any, mask: Any) -> Any:
        each = [hear(one[None, : int(of_one.sum())], None)[0] for one, of_one in zip(features, mask, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(each, batch_first=True)

    encoder.forward = heard


def _rows(model: Any, given: Mapping[str, Any]) -> Any:
    part = model.model.embed_tokens_extend.audio_embed
    heard = part.encoder(given["audio_input_features"], given["audio_attention_mask"])
    return part.down_proj_for_speech(torch.nn.functional.gelu(part.up_proj_for_speech(heard)))[0]


OF_PHI: dict[str, Family] = {
    "phi4_multimodal": Family(
        "Phi4MultimodalForCausalLM",
        "<|audio|>",
        "<|audio|>",
        _config,
        lambda: transformers.Phi4MultimodalFeatureExtractor(feature_size=8),
        _heard,
        40.0,
        ("<|audio|>", "<|image|>"),
        rows=_rows,
    ),
}
