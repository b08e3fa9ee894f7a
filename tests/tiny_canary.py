"""A tiny Canary of random weights, as transformers saves it, with a tokenizer of a token a byte."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CanaryConfig, CanaryForConditionalGeneration

from made_once import made_once
from tiny_cohere import SPECIALS, draw, save_beside
from tiny_parakeet import extractor, heard

#: Of the languages of both.
NAMES = (*SPECIALS, "<|sv|>", "<|bg|>", "<|hr|>", "<|cs|>", "<|da|>", "<|et|>", "<|fi|>", "<|hu|>", "<|lv|>", "<|lt|>")
NAMES = (*NAMES, "<|mt|>", "<|ro|>", "<|sk|>", "<|sl|>", "<|ru|>", "<|uk|>")


@made_once
def save(folder: Path) -> Path:
    """A model directory."""
    torch.manual_seed(5)
    vocab = 256 + len(NAMES)
    sizes = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CanaryConfig(
        vocab_size=vocab,
        encoder_config={**sizes, "intermediate_size": 80, "subsampling_conv_channels": 6, "num_mel_bins": 16},
        decoder_config={
            **sizes,
            "vocab_size": vocab,
            "intermediate_size": 64,
            "num_key_value_heads": 4,
            "head_dim": 10,
            "max_position_embeddings": 64,
        },
        decoder_start_token_id=NAMES.index("<|startofcontext|>"),
    )
    model = CanaryForConditionalGeneration(config)
    draw(model, ("inv_freq", "pos_emb"))
    save_beside(folder, model, extractor(), NAMES)
    return folder


@functools.cache
def _opened(folder: Path) -> CanaryForConditionalGeneration:
    return CanaryForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()


def theirs(folder: Path, samples: NDArray[np.float32], prompt: list[int], num: int) -> tuple[list[int], list[float]]:
    """The likeliest tokens behind a prompt and their log-probabilities, by transformers, without its cache."""
    model = _opened(folder)
    ids, found, values = list(prompt), list[int](), list[float]()
    with torch.no_grad():
        given = heard(samples)
        encoded = model.model.encoder(**given)
        for _ in range(num):
            asked = {"encoder_outputs": encoded, "attention_mask": given["attention_mask"]}
            row = model(**asked, decoder_input_ids=torch.tensor([ids])).logits[0, -1].clone()
            logprobs = torch.log_softmax(row, -1)
            row[3] = -torch.inf
            token = int(row.argmax())
            values.append(float(logprobs[token]))
            found.append(token)
            ids.append(token)
    return found, values
