"""Tiny models of random weights that hear samples, as transformers saves them: wav2vec 2.0, HuBERT, UniSpeech,
data2vec, WavLM, W2v-BERT 2.0, Omnilingual ASR."""

from __future__ import annotations

import functools
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    HubertConfig,
    HubertForCTC,
    OmniASRAudioConfig,
    OmniASRCTCConfig,
    OmniASRFeatureExtractor,
    OmniASRForCTC,
    SeamlessM4TFeatureExtractor,
    UniSpeechConfig,
    UniSpeechForCTC,
    UniSpeechSatConfig,
    UniSpeechSatForCTC,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WavLMConfig,
    WavLMForCTC,
)

from made_once import made_once
from tiny_parakeet import PIECES, piece_tokenizer

#: As of wav2vec2-base-960h.
CHARACTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *string.ascii_uppercase, "'")
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [6, 8, 8, 8, 8, 8, 10],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
#: Kinds: first convolution normed by channel, layers that norm what they give; and the others.
KINDS = ("base", "large", "hubert", "omni", "unispeech", "unispeech-sat", "data2vec", "bert", "wavlm", "wavlm-large")
#: By what those are opened that are no wav2vec 2.0.
_CLASSES = {
    "hubert": (HubertForCTC, HubertConfig),
    "omni": (OmniASRForCTC, OmniASRCTCConfig),
    "unispeech": (UniSpeechForCTC, UniSpeechConfig),
    "unispeech-sat": (UniSpeechSatForCTC, UniSpeechSatConfig),
    "data2vec": (Data2VecAudioForCTC, Data2VecAudioConfig),
    "wavlm": (WavLMForCTC, WavLMConfig),
    "wavlm-large": (WavLMForCTC, WavLMConfig),
    "bert": (Wav2Vec2BertForCTC, Wav2Vec2BertConfig),
}


def _made(kind: str) -> Any:
    vocab = {"vocab_size": len(CHARACTERS), "pad_token_id": 0}
    if kind == "base":
        return Wav2Vec2ForCTC(Wav2Vec2Config(**_SIZES, **vocab))
    if kind == "omni":
        config = OmniASRAudioConfig(**_SIZES)
        return OmniASRForCTC(OmniASRCTCConfig(vocab_size=len(PIECES), audio_config=config, blank_token_id=54))
    stable = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    if kind == "large":
        return Wav2Vec2ForCTC(Wav2Vec2Config(**_SIZES, **vocab, **stable))
    model, config = _CLASSES[kind]
    if kind == "data2vec":
        vocab |= {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7}
    if kind == "bert":
        vocab |= {"feature_projection_input_dim": 32, "conv_depthwise_kernel_size": 5}
        vocab |= {"left_max_position_embeddings": 6, "right_max_position_embeddings": 3}
        return model(config(**{key: value for key, value in _SIZES.items() if "conv" not in key}, **vocab))
    if kind.startswith("wavlm"):
        vocab |= {"num_buckets": 24, "max_bucket_distance": 40}
    # as their large ones
    return model(config(**{**_SIZES, **vocab, **(stable if kind in ("unispeech", "wavlm-large") else {})}))


def _extractor(kind: str) -> Any:
    if kind == "bert":
        return SeamlessM4TFeatureExtractor(feature_size=16, num_mel_bins=16)
    return OmniASRFeatureExtractor() if kind == "omni" else Wav2Vec2FeatureExtractor()


@made_once
def save(folder: Path, kind: str) -> Path:
    """A model directory."""
    torch.manual_seed(11)
    model = _made(kind)
    for name, value in model.named_parameters():
        if "original0" in name:
            torch.nn.init.uniform_(value, 0.5, 1.5)
        elif value.dim() > 1:
            more = 4.0 if "head" in name else 1.5
            torch.nn.init.normal_(value, 0.0, more * value[0].numel() ** -0.5)
        else:
            torch.nn.init.normal_(value, float("norm" in name and name.endswith("weight")), 0.2)
        if name in ("lm_head.bias", "ctc_head.bias"):
            value.data[54 if kind == "omni" else 0] += 1.0
            # no other that is no text
            value.data[slice(0, 2) if kind == "omni" else slice(1, 4)] -= 100.0
    model.save_pretrained(folder)
    _extractor(kind).save_pretrained(folder)
    if kind == "omni":
        piece_tokenizer(folder)
        return folder
    # as its repository has it: without a class
    (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(CHARACTERS)}))
    settings = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": kind == "large"}))
    return folder


def tokenizer(folder: Path, kind: str) -> Wav2Vec2CTCTokenizer:
    return Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), do_lower_case=kind == "large")


@functools.cache
def _opened(folder: Path, kind: str) -> Any:
    of_kind = _CLASSES[kind][0] if kind in _CLASSES else Wav2Vec2ForCTC
    return of_kind.from_pretrained(folder, attn_implementation="eager").eval()


def theirs(folder: Path, kind: str, samples: NDArray[np.float32]) -> torch.Tensor:
    """[frames, vocabulary] logits, by transformers."""
    if kind == "bert":
        # of one frame there is no deviation
        samples = np.pad(samples, (0, max(0, 560 - len(samples))))
    given = _extractor(kind)(samples, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        if kind != "bert":
            return _opened(folder, kind)(given["input_values"]).logits[0]
        # a row of a frame and of nothing is seen by none
        return _opened(folder, kind)(**given).logits[0, : given["attention_mask"].sum()]
