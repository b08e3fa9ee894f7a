"""Byte strings by rank, as tiktoken has them, as a model of the tokenizers library.

Called by tekken.py and tiktoken_file.py. Of the bytes of a word those two neighbours are joined first whose union has
the lowest rank; a word that is a token is one. Does not know files, nor how text is cut into words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from albireo.errors import ModelError, short
from albireo.text.pieces import byte_level_alphabet

#: Squared lengths of all tokens, which is what looking for their parts costs; of real files they add up to 7 million.
_MAX_WORK = 2**26


def ranked(tokens: Iterable[bytes], where: str) -> dict[str, int]:
    """Token, a character for each byte, -> rank, of tokens by rank.

    Raises: ModelError naming what is there twice, or missing: each byte must be a token.
    """
    characters = {byte: character for character, byte in byte_level_alphabet().items()}
    ranks: dict[str, int] = {}
    work = 0
    for rank, data in enumerate(tokens):
        token = data.decode("latin-1").translate(characters)
        if token in ranks:
            raise ModelError(f"{where}[{rank}] is {short(data)}, and so is {where.split()[-1]}[{ranks[token]}]")
        ranks[token] = rank
        work += len(token) ** 2
        if work > _MAX_WORK:
            raise ModelError(f"{where}: the tokens are too long for a vocabulary: squared lengths add up to {work}")
    lacking = next((byte for byte in range(256) if characters[byte] not in ranks), None)
    if lacking is not None:
        raise ModelError(f"{where}: has no token for the byte {lacking}; each byte must be one")
    return ranks


def merges(ranks: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every pair of tokens whose union is a token, by that token's rank.

    The library joins the pair that comes first in this list, tiktoken the one whose union has the lowest rank. In a
    vocabulary that was learnt as BPE learns one, only one pair of those with the same union can ever be neighbours.
    """
    return [
        (token[:cut], token[cut:])
        for token in ranks
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
