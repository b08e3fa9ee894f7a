"""Tiny models that put texts and pictures into one space, with random weights, as transformers makes and saves them;
and what it makes of either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny_sights import picture

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

NAMES = ("clip", "siglip")
TEXT = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 3}
IMAGE = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 24, "patch_size": 8}
#: Positions of either's texts.
LENGTHS = {"clip": 40, "siglip": 16}
_PREPARED = {
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 24},
        "crop_size": {"height": 24, "width": 24},
        "resample": 3,
    },
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 24, "width": 24}, "resample": 3},
}
TEXTS = ["a cat on a mat", "two dogs", "", "snow", "a bird, seen"]
PICTURES = [(40, 24), (24, 90), (31, 57)]


def save_pair(folder: Path, name: str, seed: int = 0, **changes: Any) -> Path:
    """Args: changes: of the keys of config.json."""
    ids = _save_tokenizer(folder)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    ends = {"bos_token_id": ids["<s>"], "eos_token_id": ids["</s>"], "pad_token_id": ids["</s>"]}
    text = {**TEXT, "vocab_size": len(ids), "max_position_embeddings": LENGTHS[name], **ends}
    whole: dict[str, Any] = {"text_config": text, "vision_config": {**IMAGE, "hidden_size": 48}}
    if name == "clip":
        text["projection_dim"], whole["vision_config"]["hidden_size"], whole["projection_dim"] = 48, 32, 48
    config = transformers.AutoConfig.for_model(name, **{**whole, **changes})
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 1.0 if "embedding" in key else 1.5 * weight[0].numel() ** -0.5)
            else:
                weight.normal_(1.0 if "norm" in key and key.endswith("weight") else 0.0, 0.2)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPARED[name]))
    return folder


def _save_tokenizer(folder: Path) -> dict[str, int]:
    """A token a byte, the one that ends a text last: as of CLIP's own its id is the largest."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in ("<s>", "</s>")])
    ids = backend.get_vocab(with_added_tokens=True)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, ids[token]) for token in ("<s>", "</s>")]
    )
    folder.mkdir(exist_ok=True, parents=True)
    backend.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return dict(ids)


def pictures() -> list[Any]:
    return [picture(*size) for size in PICTURES]


class Theirs:
    """What transformers makes of texts and pictures, in float32 unless another dtype is named."""

    def __init__(self, folder: Path, name: str, dtype: str = "float64") -> None:
        self._dtype = getattr(torch, dtype)
        self.model = transformers.AutoModel.from_pretrained(folder, dtype=self._dtype).eval()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        kind = {"clip": "CLIPImageProcessorPil", "siglip": "SiglipImageProcessorPil"}[name]
        self._images = getattr(transformers, kind).from_pretrained(folder)
        self._length = LENGTHS[name] if name == "siglip" else None

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """[n, E], as they come."""
        padding = {"padding": "max_length", "max_length": self._length} if self._length else {}
        found = []
        for text in texts:
            ids = torch.tensor([self._tokenizer(text, **padding)["input_ids"]])
            found.append(self._vector(self.model.get_text_features(input_ids=ids)))
        return np.stack(found)

    def pictures(self, images: Sequence[Any]) -> np.ndarray:
        values = (self._images(image, return_tensors="pt")["pixel_values"].to(self._dtype) for image in images)
        return np.stack([self._vector(self.model.get_image_features(pixel_values=each)) for each in values])

    def _vector(self, found: Any) -> np.ndarray:
        return getattr(found, "pooler_output", found)[0].detach().double().numpy()
