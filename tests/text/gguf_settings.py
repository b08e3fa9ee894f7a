"""Settings of tokenizers as converters to GGUF write them, from the files of the tokenizers themselves."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

_NORMAL, _CONTROL, _USER = 1, 3, 4


def byte_level_settings(directory: Path, pre: str) -> dict[str, Any]:
    """Of a byte-level tokenizer.json: gaps of the vocabulary are filled, merges are pairs with a space between."""
    data = json.loads((directory / "tokenizer.json").read_text())
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    vocab = {token: i for token, i in data["model"]["vocab"].items()}
    added = {entry["id"]: entry for entry in data["added_tokens"]}
    by_id = {i: token for token, i in vocab.items()} | {i: entry["content"] for i, entry in added.items()}
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(max(by_id) + 1)]
    types = [_NORMAL] * len(tokens)
    for i, entry in added.items():
        types[i] = _CONTROL if entry["special"] else _USER
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    settings = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": np.array(types, np.int32),
        "merges": merges,
    }
    ids = {token: i for i, token in enumerate(tokens)}
    for role in ("bos", "eos"):
        if config.get(f"{role}_token"):
            settings[f"{role}_token_id"] = ids[config[f"{role}_token"]]
    settings["add_bos_token"] = False
    return prefixed(settings, config.get("chat_template"))


def sentence_piece_settings(directory: Path) -> dict[str, Any]:
    """Of a tokenizer.model: pieces, scores and types as SentencePiece has them."""
    pieces = read_pieces((directory / "tokenizer.model").read_bytes())
    config = json.loads((directory / "tokenizer_config.json").read_text())
    tokens, scores, types = zip(*pieces, strict=True)
    settings = {"model": "llama", "pre": "default", "tokens": list(tokens)}
    settings |= {"scores": np.array(scores, np.float32), "token_type": np.array(types, np.int32)}
    settings |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "add_bos_token": True}
    return prefixed(settings, config.get("chat_template"))


def write_sentence_piece(writer: Any, settings: dict[str, Any]) -> None:
    """Settings of sentence_piece_settings() by a writer of the gguf package; they have a chat template."""
    writer.add_tokenizer_model(settings["tokenizer.ggml.model"])
    writer.add_token_list(settings["tokenizer.ggml.tokens"])
    writer.add_token_scores(settings["tokenizer.ggml.scores"].tolist())
    writer.add_token_types(settings["tokenizer.ggml.token_type"].tolist())
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(settings["tokenizer.chat_template"])


def prefixed(settings: dict[str, Any], template: str | None) -> dict[str, Any]:
    named = {f"tokenizer.ggml.{key}": value for key, value in settings.items()}
    return named | ({"tokenizer.chat_template": template} if isinstance(template, str) else {})


def read_pieces(data: bytes) -> list[tuple[str, float, int]]:
    """The pieces of a ModelProto: field 1, in it 1 the piece, 2 its score, 3 its type."""
    pieces = []
    for field, value in messages(data):
        if field == 1:
            parts = dict(messages(value))
            score = struct.unpack("<f", parts[2])[0] if 2 in parts else 0.0
            pieces.append((parts[1].decode(), score, parts.get(3, _NORMAL)))
    return pieces


def messages(data: bytes) -> list[tuple[int, Any]]:
    """Field numbers and values of a protobuf message."""
    at, found = 0, []

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            found.append((tag >> 3, varint()))
            continue
        size = {1: 8, 5: 4}.get(tag & 7)
        size = varint() if size is None else size
        found.append((tag >> 3, data[at : at + size]))
        at += size
    return found
