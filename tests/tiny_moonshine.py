"""A tiny Moonshine of random weights, as transformers saves it, with a tokenizer of a token a byte."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    Wav2Vec2FeatureExtractor,
)

from made_once import made_once

RATE = 16000
SPECIALS = ("<unk>", "<s>", "</s>")


@made_once
def save(folder: Path, *, dtype: str = "float32", seed: int = 3) -> Path:
    """A model directory. Heads have 12 numbers, of which 10 are rotated."""
    torch.manual_seed(seed)
    config = MoonshineConfig(
        vocab_size=256 + len(SPECIALS),
        hidden_size=48,
        intermediate_size=80,
        encoder_num_hidden_layers=2,
        encoder_num_attention_heads=4,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        max_position_embeddings=64,
        pad_head_dim_to_multiple_of=8,
    )
    model = MoonshineForConditionalGeneration(config).to(getattr(torch, dtype))
    for name, value in model.named_parameters():
        if value.dim() > 1:
            torch.nn.init.normal_(value, 0.0, 1.0 if "embed" in name else 1.5 * value[0].numel() ** -0.5)
        else:
            torch.nn.init.normal_(value, float("norm" in name and name.endswith("weight")), 0.2)
    model.generation_config = GenerationConfig(decoder_start_token_id=1, bos_token_id=1, eos_token_id=2)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE({name: place for place, name in enumerate(SPECIALS)} | _bytes(), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _bytes() -> dict[str, int]:
    return {each: len(SPECIALS) + place for place, each in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def opened(folder: Path, dtype: str = "float32") -> MoonshineForConditionalGeneration:
    """transformers' own."""
    kind = MoonshineForConditionalGeneration
    return kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager").eval()


def theirs(folder: Path, samples: NDArray[np.float32], prompt: list[int], num: int) -> tuple[list[int], list[float]]:
    """The likeliest tokens behind a prompt and their log-probabilities, by transformers, of a sound alone."""
    model = opened(folder)
    given = torch.tensor(samples)[None]
    with torch.no_grad():
        found = model.generate(
            given, decoder_input_ids=torch.tensor([prompt]), max_new_tokens=num, min_new_tokens=num, do_sample=False,
            output_logits=True, return_dict_in_generate=True, suppress_tokens=None,
        )  # fmt: skip
    tokens = found.sequences[0, len(prompt) :].tolist()
    values = [torch.log_softmax(row[0], -1)[token].item() for row, token in zip(found.logits, tokens, strict=True)]
    return tokens, values
