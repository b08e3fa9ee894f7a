"""Tiny models that answer about pictures, with random weights, as transformers makes and saves them: model, tokenizer,
template and processor in one directory; and what transformers answers.

Used by the tests that go from a message to an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}IMAGE{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A tiny model.

    Fields:
        class_name: of transformers. tokens: special ones, beside those of turns. mark: what the template writes for a
            picture. roles: of tokens that tokenizer_config.json names.
        config: keys of config.json, given the ids of tokens.
        processor: of transformers, given a tokenizer. files: of the processor, by name.
    """

    class_name: str
    tokens: tuple[str, ...]
    mark: str
    config: Callable[[Mapping[str, int]], dict[str, Any]]
    processor: Callable[[Any], Any]
    files: Mapping[str, Any]
    roles: Mapping[str, str] = field(default_factory=dict)


_LLAMA = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
}
_SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_LINES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))
_SMOL = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 32}, "resample": 1}


def _smolvlm(tokenizer: Any) -> Any:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    return transformers.Idefics3Processor(Idefics3ImageProcessorPil(**_SMOL), tokenizer, image_seq_len=4)


FAMILIES: dict[str, Family] = {
    "idefics3": Family(
        "Idefics3ForConditionalGeneration",
        ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *_LINES),
        "<image>",
        lambda ids: {
            "text_config": {**_LLAMA, "vocab_size": len(ids)},
            "vision_config": _SIGLIP,
            "scale_factor": 2,
            "image_token_id": ids["<image>"],
        },
        _smolvlm,
        {
            "preprocessor_config.json": {"image_processor_type": "Idefics3ImageProcessor", **_SMOL},
            "processor_config.json": {"processor_class": "Idefics3Processor", "image_seq_len": 4},
        },
    ),
}


def save(folder: Path, name: str, seed: int = 0) -> Path:
    """A model of that family, whose every weight is drawn so that pictures are seen in what it answers."""
    family = FAMILIES[name]
    ids = _save_tokenizer(folder, family)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = transformers.AutoConfig.for_model(name, **family.config(ids))
    config.text_config.eos_token_id = config.eos_token_id = ids["<|im_end|>"]
    config.text_config.bos_token_id = config.text_config.pad_token_id = ids["<|im_start|>"]
    model = getattr(transformers, family.class_name)(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim > 1:
                scale = 1.0 if "position" in key or "embed_tokens" in key else weight[0].numel() ** -0.5
                weight.normal_(0.0, 1.5 * scale)
            else:
                weight.normal_(1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0, 0.2)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for file, content in family.files.items():
        (folder / file).write_text(json.dumps(content))
    return folder


def _save_tokenizer(folder: Path, family: Family) -> dict[str, int]:
    """A token a byte, and those of the family. Returns: token -> id, of all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>", *family.tokens)]
    )
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    named = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", **family.roles}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(_TURNS.replace("IMAGE", family.mark))
    return dict(backend.get_vocab(with_added_tokens=True))


def picture(width: int, height: int, seed: int = 0) -> Any:
    """Noise on a gradient."""
    numbers = np.random.default_rng(seed * 7919 + width)
    slope = np.add.outer(np.linspace(0, 128, height), np.linspace(0, 64, width))[..., None]
    return Image.fromarray((slope + numbers.integers(0, 64, (height, width, 3))).astype(np.uint8))


class Theirs:
    """What transformers makes of a saved model."""

    def __init__(self, folder: Path, name: str) -> None:
        self.family = FAMILIES[name]
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.processor = self.family.processor(tokenizer)
        self.processor.chat_template = (folder / "chat_template.jinja").read_text()
        kind = getattr(transformers, self.family.class_name)
        self.model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        self.model.generation_config.eos_token_id = None

    def inputs(self, messages: list[dict[str, Any]]) -> Any:
        """What the model is given of a chat whose parts are texts and pictures."""
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        pictures = [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]
        return self.processor(text=text, images=pictures or None, return_tensors="pt", add_special_tokens=False)

    def answer(self, messages: list[dict[str, Any]], num_tokens: int) -> tuple[list[int], list[int], list[float]]:
        """Ids of the prompt, those of the greedy answer, and their log-probabilities."""
        inputs = self.inputs(messages)
        with torch.no_grad():
            found = self.model.generate(
                **inputs,
                max_new_tokens=num_tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        prompt = inputs["input_ids"][0].tolist()
        output = found.sequences[0, len(prompt) :].tolist()
        values = [torch.log_softmax(row[0], -1)[token].item() for row, token in zip(found.logits, output, strict=True)]
        return prompt, output, values
