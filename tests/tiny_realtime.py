"""A tiny Voxtral Realtime with random weights, as transformers makes and saves it, and what it writes of a sound.

Used by the tests of models/hearing and of what is written down.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from made_once import made_once
from tiny_hearers import RATE, save_tekken

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

F32 = NDArray[np.float32]
#: Samples of a row; rows before a sound, and behind it; by how many the text is behind.
STEP, BEFORE, BEHIND, DELAY = 1280, 32, 17, 6
_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    # shorter than what is heard of a second
    "sliding_window": 50,
}
_AUDIO = {
    "hidden_size": 40,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
    "num_mel_bins": 8,
    "sliding_window": 30,
}


@made_once
def save(folder: Path, dtype: str = "float32", seed: int = 0) -> Path:
    """Every weight is drawn, so that what is heard decides what is written."""
    ids = save_tekken(folder)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}
    text = {**_TEXT, **rope, "vocab_size": max(ids.values()) + 1}
    config = transformers.VoxtralRealtimeConfig(text_config=text, audio_config={**_AUDIO, **rope})
    model = transformers.VoxtralRealtimeForConditionalGeneration(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 1.0 if "embed_tokens" in key else 1.5 * weight[0].numel() ** -0.5)
            else:
                weight.normal_(1.0 if "norm" in key else 0.0, 0.2)
    model.save_pretrained(folder)
    extractor().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def extractor() -> Any:
    return transformers.VoxtralRealtimeFeatureExtractor(feature_size=8)


def features(samples: F32) -> Any:
    """[1, bands, frames] as its processor gives them to its model."""
    behind = -len(samples) % STEP + BEHIND * STEP
    whole = np.pad(samples, (BEFORE * STEP, behind))
    return extractor()(whole, sampling_rate=RATE, return_tensors="pt").input_features


class Theirs:
    """What transformers makes of a saved model."""

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        self.kind = getattr(torch, dtype)
        model = transformers.VoxtralRealtimeForConditionalGeneration.from_pretrained(
            folder, dtype=self.kind, attn_implementation="eager"
        )
        self.model = model.eval()
        self.special = json.loads((folder / "tekken.json").read_text())["special_tokens"]

    def rows(self, samples: F32) -> NDArray[np.float64]:
        with torch.no_grad():
            found = self.model.get_audio_features(features(samples).to(self.kind)).pooler_output[0]
        return np.asarray(found.double().numpy())

    def written(self, samples: F32) -> tuple[list[int], list[int], list[float]]:
        """Ids of the prompt, those written greedily until the sound ends, and their log-probabilities."""
        by_name = {each["token_str"]: each["rank"] for each in self.special}
        prompt = [by_name["<s>"], *[by_name["[STREAMING_PAD]"]] * (BEFORE + DELAY)]
        self.model.generation_config.eos_token_id = None
        with torch.no_grad():
            found = self.model.generate(
                input_ids=torch.tensor([prompt]), input_features=features(samples), num_delay_tokens=DELAY,
                do_sample=False, output_logits=True, return_dict_in_generate=True,
                # far more than the sound has room for, by which it is cut
                max_new_tokens=10_000,
            )  # fmt: skip
        tokens = found.sequences[0, len(prompt) :].tolist()
        rows = zip(found.logits, tokens, strict=True)
        return prompt, tokens, [torch.log_softmax(row[0], -1)[token].item() for row, token in rows]
