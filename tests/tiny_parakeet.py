"""Tiny Parakeets of random weights, as transformers saves them, with a tokenizer of a token a character."""

from __future__ import annotations

import functools
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    Nemotron3_5AsrConfig,
    Nemotron3_5AsrForRNNT,
    NemotronAsrStreamingConfig,
    NemotronAsrStreamingFeatureExtractor,
    NemotronAsrStreamingForRNNT,
    ParakeetCTCConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetForRNNT,
    ParakeetForTDT,
    ParakeetRNNTConfig,
    ParakeetTDTConfig,
)

from made_once import made_once

RATE = 16000
SPECIALS = ("<unk>", "<pad>")
PIECES = (
    *SPECIALS,
    *(f"\u2581{letter}" for letter in string.ascii_lowercase[:20]),
    *string.ascii_lowercase,
    *".?!,'-",
    "<blank>",
)
#: Tokens and the blank, which is the last.
VOCAB = len(PIECES)
BLANK = VOCAB - 1
_ENCODER = {
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "subsampling_conv_channels": 6,
    "num_mel_bins": 16,
}
_KINDS: dict[str, tuple[Any, Any]] = {
    "ctc": (ParakeetCTCConfig, ParakeetForCTC),
    "rnnt": (ParakeetRNNTConfig, ParakeetForRNNT),
    "tdt": (ParakeetTDTConfig, ParakeetForTDT),
    # hears as a sound comes
    "asked": (Nemotron3_5AsrConfig, Nemotron3_5AsrForRNNT),
    "streaming": (NemotronAsrStreamingConfig, NemotronAsrStreamingForRNNT),
}

#: By which outputs have much in them.
_SEEDS = {"ctc": 9, "rnnt": 4, "tdt": 13, "streaming": 4, "asked": 4}
#: That hear as a sound comes; the second is told which language is spoken.
STREAMING = ("streaming", "asked")


def tones(seconds: float, number: int = 0) -> NDArray[np.float32]:
    """A sound that is another one every eighth of a second."""
    rng, part = np.random.default_rng(number), RATE // 8
    times, found = np.arange(part) / RATE, list[NDArray[np.float64]]()
    for _ in range(-(-int(seconds * RATE) // part)):
        hertz, loud = np.exp(rng.uniform(5.0, 8.9, 3)), rng.uniform(0.0, 0.3, 3)
        found.append((loud[:, None] * np.sin(2 * np.pi * hertz[:, None] * times)).sum(axis=0))
    return np.concatenate(found)[: int(seconds * RATE)].astype(np.float32)


def extractor(kind: str = "") -> ParakeetFeatureExtractor | NemotronAsrStreamingFeatureExtractor:
    of_kind = NemotronAsrStreamingFeatureExtractor if kind in STREAMING else ParakeetFeatureExtractor
    return of_kind(feature_size=16)


def piece_tokenizer(folder: Path) -> None:
    """Of pieces as SentencePiece makes them, of a character each: some begin a word."""
    tokenizer = Tokenizer(models.BPE({name: place for place, name in enumerate(PIECES)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in (*SPECIALS, "<blank>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ParakeetTokenizer"}))


def lively(model: torch.nn.Module, blank: dict[str, float], amount: float = 1.5) -> None:
    """Weights whose outputs differ. Args: blank: bias of what says nothing, by the head's name."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if not value.is_floating_point() or "inv_freq" in name:
            continue
        if "running_var" in name:
            torch.nn.init.uniform_(value, 0.5, 2.0)
        elif value.dim() > 1 and "bias" not in name:
            more = 4.0 if name.startswith(("joint", "ctc_head", "encoder_projector")) else amount
            torch.nn.init.normal_(value, 0.0, 1.0 if "emb" in name else more * value[0].numel() ** -0.5)
        else:
            torch.nn.init.normal_(value, float("norm" in name and name.endswith("weight")), 0.2)
        if name in blank:
            value.data[BLANK] += blank[name]


@made_once
def save(folder: Path, kind: str = "ctc") -> Path:
    """A model directory. Args: kind: ctc, rnnt, tdt, streaming or asked."""
    torch.manual_seed(_SEEDS[kind])
    of_kind, whole = _KINDS[kind]
    own: dict[str, Any] = {"pad_token_id": BLANK}
    if kind != "ctc":
        own = {"pad_token_id": 1, "blank_token_id": BLANK, "decoder_hidden_size": 24, "max_symbols_per_step": 3}
    if kind == "asked":
        own |= {"num_prompts": 8, "prompt_intermediate_size": 32, "default_prompt_id": 5}
    few = {"sliding_window": 9, "default_num_lookahead_tokens": 3} if kind in STREAMING else {}
    model = whole(of_kind(vocab_size=VOCAB, encoder_config={**_ENCODER, **few}, **own))
    lively(model, {"ctc_head.bias": 12.0, "joint.head.bias": 12.0})
    if kind != "ctc":
        # so that durations are no tokens
        never = list(range(VOCAB, VOCAB + 5)) if kind == "tdt" else None
        model.generation_config = GenerationConfig(
            decoder_start_token_id=BLANK, pad_token_id=1, suppress_tokens=never, max_length=2000
        )
    model.save_pretrained(folder)
    extractor(kind).save_pretrained(folder)
    piece_tokenizer(folder)
    return folder


@functools.cache
def opened(folder: Path, kind: str) -> Any:
    """transformers' own. Its eager attention takes what streaming encoders may see for what they may not."""
    how = "sdpa" if kind in STREAMING else "eager"
    return _KINDS[kind][1].from_pretrained(folder, dtype=torch.float32, attn_implementation=how).eval()


def heard(samples: NDArray[np.float32], kind: str = "") -> dict[str, torch.Tensor]:
    """What its encoder is given of a sound alone."""
    given = extractor(kind)(samples, sampling_rate=RATE, return_tensors="pt")
    return {key: given[key] for key in ("input_features", "attention_mask")}


def theirs(
    folder: Path, kind: str, samples: NDArray[np.float32], told: int | None = None
) -> tuple[list[int], list[int]]:
    """Tokens and blanks that transformers' generate() gives, and frames that pass behind each.

    Args: told: the number of the language.
    """
    more = {} if told is None else {"prompt_ids": torch.tensor([told])}
    with torch.no_grad():
        found = opened(folder, kind).generate(**heard(samples, kind), **more, return_dict_in_generate=True)
    ids = found.sequences[0].tolist()
    if kind == "ctc":
        return ids, [1] * len(ids)
    return ids[1:], found.durations[0].tolist()[1:]
