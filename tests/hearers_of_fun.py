"""A tiny Fun-ASR-Nano, see hearer_family.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hearer_family import F32, Family

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
extraction = pytest.importorskip("transformers.models.fun_asr_nano.feature_extraction_fun_asr_nano")

_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
}
_AUDIO = {
    "num_mel_bins": 8,
    "hidden_size": 40,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_timestamp_prediction_layers": 1,
    "fsmn_kernel_size": 5,
}
_ADAPTOR = {
    "hidden_size": 48,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "projector_hidden_size": 56,
}


class FunExtractor:
    """What its own makes with torchaudio: frames of Kaldi, here by transformers' numpy; its own stacks them."""

    def __call__(self, samples: F32) -> Any:
        found = transformers.audio_utils.spectrogram(
            samples.astype(np.float64),
            np.hamming(400),
            400,
            160,
            512,
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=transformers.audio_utils.mel_filter_bank(
                257, 8, 20.0, 8000.0, 16000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
            ),
            mel_floor=2.0**-23,
            log_mel="log",
            remove_dc_offset=True,
        )
        own = extraction.FunAsrNanoFeatureExtractor
        stacking = type("Stacking", (), {"num_frames_lfr": 7, "stride_lfr": 6})()
        return own._apply_lfr(stacking, torch.tensor(found.T.astype(np.float32)))

    def save_pretrained(self, folder: Path) -> None:
        said = {"feature_extractor_type": "FunAsrNanoFeatureExtractor", "feature_size": 8, "sampling_rate": 16000}
        said |= {"frame_length": 25, "frame_shift": 10, "num_frames_lfr": 7, "stride_lfr": 6, "window": "hamming"}
        (folder / "preprocessor_config.json").write_text(json.dumps(said))


def _heard(extractor: Any, sounds: Sequence[F32]) -> tuple[dict[str, Any], list[int]]:
    given = [extractor(sound) for sound in sounds]
    lengths = [len(each) for each in given]
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    features = torch.nn.utils.rnn.pad_sequence(given, batch_first=True)
    return {"input_features": features, "input_features_mask": mask.long()}, lengths


def _config(ids: Mapping[str, int]) -> dict[str, Any]:
    return {
        "text_config": {**_TEXT, "model_type": "qwen3", "vocab_size": max(ids.values()) + 1},
        "audio_config": {**_AUDIO, "model_type": "fun_asr_nano_encoder"},
        "adaptor_config": _ADAPTOR,
        "audio_token_id": ids["<|object_ref_start|>"],
    }


OF_FUN: dict[str, Family] = {
    "fun_asr_nano": Family(
        "FunAsrNanoForConditionalGeneration",
        "<|object_ref_start|>",
        "<|object_ref_start|>",
        _config,
        FunExtractor,
        _heard,
        60.0,
    ),
}
