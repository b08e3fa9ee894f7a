"""Prompt lookup: what followed the last few tokens where they stood before, in the prompt or in the output.

Made by proposer.py, one a sequence. Source: Saxena, "Prompt Lookup Decoding" (2023).

The index is a hash table of the n-grams of the shortest length, with chains: for each hash the place where such an
n-gram ended last, and for each place the one before it with the same hash. Places are looked at from the newest on, and
compared with the end of the sequence backwards, so that hashes that fall together do no harm.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

#: Places looked at for one guess.
MAX_CANDIDATES = 8
_NOWHERE = -1
#: Smallest table; a power of two.
_MIN_SLOTS = 256


class NgramProposer:
    """Implements proposer.Proposer. Of the longest matches the newest is taken; the kind of a guess is by how many
    tokens its match exceeds the shortest.

    The prompt is indexed at the first guess. Cost: under a microsecond a token, once; a few for a guess; 16 bytes a
    token.
    """

    def __init__(self, prompt_token_ids: Sequence[int], *, shortest: int, longest: int) -> None:
        self._prompt = prompt_token_ids
        self._shortest, self._longest = shortest, longest
        self._tokens = array("i")
        #: Of each hash, where an n-gram ended last: the place behind it.
        self._last = array("i")
        #: Of each place behind an n-gram, the one before it with the same hash.
        self._before = array("i")

    def propose(self, output_token_ids: Sequence[int], num: int) -> tuple[list[int], int]:
        self._read(output_token_ids)
        place, length = self._longest_match()
        if place == _NOWHERE:
            return [], 0
        tokens, end = self._tokens, len(self._tokens)
        drafts = tokens[place : place + num].tolist()
        # A match that reaches the end goes on with the drafts themselves: what repeats is taken to go on repeating.
        while len(drafts) < num:
            drafts.append(drafts[place + len(drafts) - end])
        return drafts, length - self._shortest

    def _read(self, output: Sequence[int]) -> None:
        """Take what is new, and index all places but the end."""
        tokens = self._tokens
        if not tokens:
            tokens.extend(self._prompt)
        tokens.extend(output[len(tokens) - len(self._prompt) :])
        if len(tokens) > len(self._last):
            slots = max(_MIN_SLOTS, 2 << len(tokens).bit_length())
            self._last = array("i", [_NOWHERE]) * slots
            self._before = array("i")
        n, last, before = self._shortest, self._last, self._before
        mask = len(last) - 1
        for place in range(len(before), len(tokens)):
            # at the beginning of fewer tokens, with which no match is long enough
            slot = hash(tuple(tokens[max(0, place - n) : place])) & mask
            before.append(last[slot])
            last[slot] = place

    def _longest_match(self) -> tuple[int, int]:
        """Where the end of the sequence stood before: the place behind it, and how many tokens are the same."""
        tokens, n, longest = self._tokens, self._shortest, self._longest
        end = len(tokens)
        if end <= n:
            return _NOWHERE, 0
        best, best_length = _NOWHERE, n - 1
        place = self._last[hash(tuple(tokens[end - n :])) & (len(self._last) - 1)]
        for _ in range(MAX_CANDIDATES):
            if place == _NOWHERE:
                break
            length = 0
            while length < longest and length < place and tokens[place - 1 - length] == tokens[end - 1 - length]:
                length += 1
            if length > best_length:
                best, best_length = place, length
                if length == longest:
                    break
            place = self._before[place]
        return best, best_length
