"""Towers that hear samples (wav2vec 2.0 and what is made as it, Omnilingual ASR): what their tensors are called here.

Called by whoever opens tensors. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Iterable

_FIRST = "conv_layers.0.conv.weight"
#: Before the tower's, of models with a head.
BERT = "wav2vec2_bert."
_WHOLES = "wav2vec2.", "hubert.", "unispeech.", "unispeech_sat.", "data2vec_audio.", "wavlm."
#: Of Omnilingual ASR, whose parts have newer names.
OMNI = "model.audio_tower."
_OF_OMNI = {
    f"{OMNI}subsampling.conv_layers.": "feature_extractor.conv_layers.",
    f"{OMNI}subsampling.": "feature_projection.",
    f"{OMNI}encode_positions.conv.": "encoder.pos_conv_embed.conv.",
    OMNI: "encoder.",
}
#: What the parts of a weight that is a length and a direction were called before torch 2.
_LENGTHS = {".conv.weight_g": 0, ".conv.weight_v": 1}


def names_of_sample_tower(names: Iterable[str]) -> dict[str, str]:
    """By the name in the file, of a tower's; empty: there is no such tower."""
    names, found = list(names), dict[str, str]()
    if f"{OMNI}subsampling.{_FIRST}" in names:
        for name in names:
            old = next((old for old in _OF_OMNI if name.startswith(old)), None)
            if old is not None:
                found[name] = _OF_OMNI[old] + name.removeprefix(old)
        return found
    if f"{BERT}feature_projection.projection.weight" in names:
        return {name: name.removeprefix(BERT) for name in names if name.startswith(BERT)}
    whole = next((whole for whole in _WHOLES if f"{whole}feature_extractor.{_FIRST}" in names), None)
    for name in names if whole is not None else ():
        if name.startswith(whole or ""):
            renamed = name.removeprefix(whole or "")
            for old, place in _LENGTHS.items():
                renamed = renamed.replace(old, f".conv.parametrizations.weight.original{place}")
            found[name] = renamed
    return found
