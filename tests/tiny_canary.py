"""A tiny Canary of random weights, as transformers saves it, with a tokenizer of a token a byte."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CanaryConfig, CanaryForConditionalGeneration, GenerationConfig

from made_once import made_once
from tiny_cohere import SPECIALS
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
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if not value.is_floating_point() or "inv_freq" in name or "pos_emb" in name:
            continue
        if "running_var" in name:
            torch.nn.init.uniform_(value, 0.5, 2.0)
        elif value.dim() > 1 and "bias" not in name:
            torch.nn.init.normal_(value, 0.0, 1.0 if "emb" in name else 1.5 * value[0].numel() ** -0.5)
        else:
            torch.nn.init.normal_(value, float("norm" in name and name.endswith("weight")), 0.2)
    model.generation_config = GenerationConfig(bos_token_id=4, eos_token_id=3, pad_token_id=2)
    model.save_pretrained(folder)
    extractor().save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({name: place for place, name in enumerate((*NAMES, *alphabet))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in NAMES])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
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
