"""What a token contributes, per kind of decoder."""

from __future__ import annotations

import pytest
import tokenizers
from tokenizers import decoders, models

from albireo.text.pieces import Piece, Pieces


def test_kinds_of_real_tokenizers(tokenizer_of):
    kinds = {name: tokenizer_of(name).pieces for name in ("gpt2", "qwen3", "falcon", "phi-3-mini", "stories260k")}
    assert {name: pieces.kind for name, pieces in kinds.items()} == {
        "gpt2": "byte_level",
        "qwen3": "byte_level",
        "falcon": "byte_level",
        "phi-3-mini": "byte_fallback",
        "stories260k": "byte_fallback",
    }
    assert kinds["phi-3-mini"].leading_spaces == 1
    assert kinds["gpt2"].leading_spaces == 0


def test_every_byte_of_gpt2_has_a_token(tokenizer_of):
    pieces = tokenizer_of("gpt2").pieces
    # Published: the first 256 ids are the bytes, printable ones first.
    assert sorted(pieces.piece(token_id).data[0] for token_id in range(256)) == list(range(256))
    assert pieces.piece(0) == Piece(b"!", False)
    assert pieces.piece(220) == Piece(b" ", False)
    assert pieces.piece(50257) is None


def test_byte_tokens_and_spaces_of_sentencepiece(tokenizer_of):
    pieces = tokenizer_of("mistral-v1").pieces
    assert pieces.piece(3) == Piece(b"\x00", True)
    assert pieces.piece(258) == Piece(b"\xff", True)
    assert pieces.piece(22557) == Piece(b" Hello", False)
    assert pieces.piece(1) == Piece(b"<s>", False)


def test_added_tokens_outside_the_byte_alphabet_are_their_own_text():
    backend = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(["<｜User｜>", "two words", "é"])
    pieces = Pieces(backend)
    for token_id in range(4):
        data = pieces.piece(token_id).data
        assert data.decode("utf-8", "replace") == backend.decode([token_id])


_REPLACE, _BYTES, _FUSE = decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()


@pytest.mark.parametrize(
    ("decoder", "kind", "spaces"),
    [
        (None, "whole", 0),
        (decoders.WordPiece(), "whole", 0),
        (decoders.Metaspace(), "whole", 0),
        (decoders.ByteLevel(), "byte_level", 0),
        (decoders.Sequence([decoders.ByteLevel()]), "byte_level", 0),
        (decoders.Sequence([_REPLACE, _BYTES, _FUSE]), "byte_fallback", 0),
        (decoders.Sequence([_REPLACE, _BYTES, _FUSE, decoders.Strip(" ", 1, 0)]), "byte_fallback", 1),
        (decoders.Sequence([_REPLACE, _BYTES, _FUSE, decoders.Strip(" ", 0, 1)]), "whole", 0),
        (decoders.Sequence([_REPLACE, _FUSE]), "whole", 0),
        (decoders.Sequence([decoders.Replace("a", "b"), _BYTES, _FUSE]), "whole", 0),
        (decoders.Sequence([decoders.Replace(tokenizers.Regex("a+"), " "), _BYTES, _FUSE]), "whole", 0),
    ],
)
def test_only_decoders_that_are_understood_are_taken_apart(decoder, kind, spaces):
    backend = tokenizers.Tokenizer(models.BPE({"a": 0}, []))
    if decoder is not None:
        backend.decoder = decoder
    pieces = Pieces(backend)
    assert (pieces.kind, pieces.leading_spaces) == (kind, spaces)
