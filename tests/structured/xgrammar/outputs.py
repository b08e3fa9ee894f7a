"""Random outputs of a grammar, as bytes: tokens that its masks allow, until one of them is EOS."""

from __future__ import annotations

import random

from albireo.step import TokenMatcher
from structured.vocabularies import allowed_ids, tokenizer


def random_output(matcher: TokenMatcher, chance: random.Random, name: str = "bundled", most: int = 300) -> bytes | None:
    """None when it did not come to an end."""
    pieces = tokenizer(name).pieces
    output: list[int] = []
    while len(output) < most:
        ids = allowed_ids(matcher, output)
        ends = set(ids) & set(matcher.eos_token_ids)
        ids = [token_id for token_id in ids if token_id not in ends]
        if ends and (not ids or chance.random() < 0.3):
            return b"".join(piece.data for piece in map(pieces.piece, output) if piece is not None)
        # Brackets and quotes are few among the tokens, and end what is open.
        closing = [i for i in ids if (piece := pieces.piece(i)) is not None and piece.data[-1:] in b'"}],']
        output.append(chance.choice(closing if closing and chance.random() < 0.4 else ids))
    return None
