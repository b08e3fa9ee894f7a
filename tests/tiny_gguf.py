"""A tiny model in a GGUF file, with all that is needed to talk to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.gguf.writer import LLAMA, write_gguf
from text.gguf_settings import sentence_piece_settings, write_sentence_piece
from tiny_models import shared_data


def write_with_tokenizer(path: Path, kind: str, split: dict[str, Any] | None = None, width: int = 32) -> Path:
    """A small model with a tokenizer and a template. Returns: the directory that the tokenizer is from."""
    directory = shared_data("tokenizers", "mistral-v1")
    settings = sentence_piece_settings(directory)
    config = LLAMA | {"vocab_size": len(settings["tokenizer.ggml.tokens"]), "hidden_size": width}
    config |= {
        "intermediate_size": width,
        "head_dim": width // 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
    }
    write_gguf(path, config, kind, split=split, tokenizer=lambda writer: write_sentence_piece(writer, settings))
    return directory
