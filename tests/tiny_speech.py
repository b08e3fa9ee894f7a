"""A tiny Whisper of random weights, as transformers saves it, with a tokenizer that has Whisper's tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from made_once import made_once

#: Samples a second, and of a window.
RATE, SECONDS, POSITIONS = 16000, 1, 50
LANGUAGES = ("en", "de", "yue")
SPECIALS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{code}|>" for code in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
NUM_BYTES = 256
IDS = {name: NUM_BYTES + place for place, name in enumerate(SPECIALS)}
#: Of 0.00 s.
TIMES = NUM_BYTES + len(SPECIALS)
VOCAB = TIMES + POSITIONS + 1


@made_once
def save(folder: Path, *, dtype: str = "float32", seed: int = 3, **changes: Any) -> Path:
    """A model directory. Args: changes: of its config.json."""
    torch.manual_seed(seed)
    config = WhisperConfig(
        **{
            "vocab_size": VOCAB,
            "num_mel_bins": 8,
            "d_model": 48,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 80,
            "decoder_layers": 2,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 96,
            "max_source_positions": POSITIONS,
            "max_target_positions": 64,
            "decoder_start_token_id": IDS["<|startoftranscript|>"],
            "bos_token_id": IDS["<|endoftext|>"],
            "eos_token_id": IDS["<|endoftext|>"],
            "pad_token_id": IDS["<|endoftext|>"],
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
            **changes,
        }
    )
    model = WhisperForConditionalGeneration(config).to(getattr(torch, dtype))
    for name, value in model.named_parameters():
        if value.dim() > 1:
            torch.nn.init.normal_(value, 0.0, 0.15)
        else:
            torch.nn.init.normal_(value, float("norm.weight" in name), 0.2)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        max_length=config.max_target_positions,
    )
    for key, value in {
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": IDS[f"<|{code}|>"] for code in LANGUAGES},
        "task_to_id": {task: IDS[f"<|{task}|>"] for task in ("transcribe", "translate")},
        "no_timestamps_token_id": IDS["<|notimestamps|>"],
        "prev_sot_token_id": IDS["<|startofprev|>"],
        "max_initial_timestamp_index": 20,
        "suppress_tokens": [7, 9, IDS["<|startoftranscript|>"], IDS["<|startofprev|>"], IDS["<|nospeech|>"]],
        "begin_suppress_tokens": [32, IDS["<|endoftext|>"]],
        "return_timestamps": False,
    }.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=SECONDS).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


def _save_tokenizer(folder: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({each: place for place, each in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.add_tokens([f"<|{step * SECONDS / POSITIONS:.2f}|>" for step in range(POSITIONS + 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "WhisperTokenizer", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def sound(seconds: float = SECONDS, seed: int = 0) -> NDArray[np.float32]:
    """Noise that swells and fades."""
    count = round(seconds * RATE)
    swelling = 0.1 + 0.1 * np.sin(np.arange(count) * (2 * np.pi / 5000))
    return (np.random.default_rng(seed).standard_normal(count) * swelling).astype(np.float32)


def opened(folder: Path, dtype: str = "float32") -> WhisperForConditionalGeneration:
    """transformers' own."""
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def features(folder: Path, samples: NDArray[np.float32]) -> torch.Tensor:
    """[1, bands, frames] of one window, by transformers."""
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    return extractor(samples, sampling_rate=RATE, return_tensors="pt")["input_features"]
