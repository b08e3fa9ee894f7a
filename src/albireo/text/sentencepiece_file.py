"""What a SentencePiece model file holds: pieces with scores, and how text is made ready for them.

Called by sentence_pieces.py. Such a file is one message of protobuf, of which the few fields needed are picked; it is
hostile until checked. Does not know tokenizers.
Source: src/sentencepiece_model.proto of SentencePiece.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from albireo.errors import ModelError, UnsupportedModel, short
from albireo.json_file import read_bytes

#: Kinds of pieces.
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
#: Real files have 256,000 pieces and 4 MB.
_MAX_BYTES, _MAX_PIECES = 64 * 2**20, 2**22
_ALGORITHMS: dict[int, Literal["unigram", "bpe"]] = {1: "unigram", 2: "bpe"}
#: Of protobuf: how a value is written.
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
#: A line of another kind of vocabulary that goes by the same name: a token in base64, and its rank.
_RANKED = re.compile(rb"[A-Za-z0-9+/=]+ \d+\r?\n")


@dataclass(slots=True)
class SentencePieceModel:
    """Fields: pieces, scores, kinds: by id; algorithm: how a text is cut into pieces; charsmap: of characters that are
    written otherwise, as the tokenizers library reads it; adds_prefix: a space goes before a text; trims: spaces round
    a text and runs of them go."""

    where: str
    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    algorithm: Literal["unigram", "bpe"] = "unigram"
    charsmap: bytes = b""
    adds_prefix: bool = True
    trims: bool = True

    def of_kind(self, *kinds: int) -> list[str]:
        """Pieces of some kinds, by id."""
        return [piece for piece, kind in zip(self.pieces, self.kinds, strict=True) if kind in kinds]


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Raises: ModelError naming the place for a file that is no such model, or holds contradictions; UnsupportedModel
    for ways to cut texts that are not known here. Cost: 0.1 s for 32,000 pieces."""
    data = read_bytes(path, _MAX_BYTES)
    if _RANKED.match(data):
        raise UnsupportedModel(f"{path}: is a list of tokens and ranks (tiktoken), not a SentencePiece model")
    model = SentencePieceModel(str(path))
    try:
        _read_model(model, data)
    except (ValueError, struct.error) as error:
        raise ModelError(f"{path}: is no SentencePiece model: {error}") from None
    if len(set(model.pieces)) != len(model.pieces):
        twice = Counter(model.pieces).most_common(1)[0][0]
        raise ModelError(f"{path}: holds the piece {short(twice)} twice")
    if model.kinds.count(UNKNOWN) != 1:
        raise ModelError(f"{path}: holds {model.kinds.count(UNKNOWN)} pieces for what is unknown; it needs one")
    return model


def _read_model(model: SentencePieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if number == 1:
            _read_piece(model, _message(value))
        elif number == 2:
            _read_trainer(model, _message(value))
        elif number == 3:
            _read_normalizer(model, _message(value))


def _read_piece(model: SentencePieceModel, data: bytes) -> None:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = _message(value).decode("utf-8")
        elif number == 2:
            (score,) = struct.unpack("<f", _message(value))
        elif number == 3:
            kind = _integer(value)
    if not text or not NORMAL <= kind <= BYTE or score != score:
        raise ValueError(f"piece {len(model.pieces)} is {short(text)} with score {score}, of kind {kind}")
    if len(model.pieces) == _MAX_PIECES:
        raise ValueError(f"it has more than {_MAX_PIECES} pieces")
    model.pieces.append(text)
    model.scores.append(score)
    model.kinds.append(kind)


def _read_trainer(model: SentencePieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if number == 3:
            algorithm = _ALGORITHMS.get(_integer(value))
            if algorithm is None:
                raise UnsupportedModel(
                    f"{model.where}: cuts text into words or characters (model_type {_integer(value)}); supported are "
                    "unigram (1) and BPE (2)"
                )
            model.algorithm = algorithm
        elif number == 24 and _integer(value):
            raise UnsupportedModel(f"{model.where}: treat_whitespace_as_suffix is not supported")


def _read_normalizer(model: SentencePieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if number == 2:
            model.charsmap = _message(value)
        elif number == 3:
            model.adds_prefix = bool(_integer(value))
        elif number == 4:
            model.trims = bool(_integer(value))
        elif number == 5 and not _integer(value):
            raise UnsupportedModel(f"{model.where}: escape_whitespaces=false is not supported")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message. Raises: ValueError for bytes that are none."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        size, at = {_EIGHT_BYTES: (8, at), _FOUR_BYTES: (4, at)}.get(kind) or (
            _varint(data, at) if kind == _BYTES else (-1, at)
        )
        if size < 0 or size > len(data) - at:
            raise ValueError(f"field {number} does not end inside of its message of {len(data)} bytes")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError(f"a number does not end inside of its message of {len(data)} bytes")


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"it has the number {value} where bytes belong")
    return value


def _integer(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError(f"it has {len(value)} bytes where a number belongs")
    return value
