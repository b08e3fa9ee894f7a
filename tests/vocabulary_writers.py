"""Vocabularies in the forms that models ship beside tokenizer.json, written out of the tokenizer.json of another."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from pathlib import Path
from typing import Any

#: Published with Mistral's models; the same in all their files.
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_names() -> dict[int, str]:
    """Byte -> the character that stands for it in byte-level vocabularies, as transformers has them."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return dict(bytes_to_unicode())


@cache
def tokens_of(source: Path) -> list[bytes]:
    """Tokens of a byte-level tokenizer.json by rank: bytes in order, then what merges make."""
    byte_of = {name: byte for byte, name in byte_names().items()}
    tokens = [bytes([byte]) for byte in range(256)]
    for merge in json.loads((source / "tokenizer.json").read_text())["model"]["merges"]:
        tokens.append(bytes([byte_of[c] for c in "".join(merge if isinstance(merge, list) else merge.split(" "))]))
    return tokens


def tekken_of(source: Path, num_ordinary: int = 8192, num_special: int = 24, **config: Any) -> dict[str, Any]:
    """A tekken.json of the first tokens of a byte-level tokenizer.json: bytes in order, then what merges make.

    Five tokens more are in the file than are used, as in real ones.
    """
    tokens = tokens_of(source)[: num_ordinary + 5]
    return {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(tokens),
            "default_vocab_size": num_ordinary + num_special,
            "default_num_special_tokens": num_special,
            "version": "v3",
        }
        | config,
        "vocab": [
            {"rank": rank, "token_bytes": b64encode(token).decode(), "token_str": _text_of(token)}
            for rank, token in enumerate(tokens)
        ],
    }


def write_tekken(directory: Path, data: dict[str, Any]) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "tekken.json").write_text(json.dumps(data))
    return directory


def write_byte_level(directory: Path, source: Path, **config: Any) -> Path:
    """vocab.json, merges.txt and a tokenizer_config.json that lists the added tokens, out of a tokenizer.json."""
    data = json.loads((source / "tokenizer.json").read_text())
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {str(token.pop("id")): token for token in data["added_tokens"]}
    directory.mkdir(exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps(data["model"]["vocab"], ensure_ascii=False), encoding="utf-8")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | config))
    return directory


def _text_of(token: bytes) -> str | None:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return None
