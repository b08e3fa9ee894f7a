"""Several prompts in one step: how they share its tokens, and who of the waiting may begin beside one that is long.

Used by scheduler.py. Does not know seats, or slots of adapters.

A prompt that one step does not hold is open. Those behind it would wait until all of it is computed, however short they
are; so the first open one leaves half of what prompts have to others, if they need as much: to those that are open too,
the shortest first, and then to who passes. It takes at most twice as long for that, and who is a quarter of it or less
begins at once.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from albireo.engine.block_tables import BlockTables
from albireo.engine.prefix_cache import Hit, PrefixCache
from albireo.engine.request import Sequence

#: Who passes an open prompt is so many times shorter.
SHORTER = 4
#: How many of the first that wait are looked at in a step.
LOOKED_AT = 8
#: Whoever has fewer tokens to compute than this is no open prompt: drafts that came true may be computed once more.
FEW = 16


def rest(seq: Sequence) -> int:
    """Tokens that are still to be computed of a sequence that runs."""
    return seq.num_tokens - seq.num_computed_tokens


def is_open(seq: Sequence) -> bool:
    """Whether a sequence that runs has most of a prompt before it, and not a token or a few."""
    return rest(seq) > FEW


def shares(open_prompts: Seq[Sequence], num_tokens: int, num_passing: int) -> dict[int, int]:
    """How many tokens each open prompt has of a step, by seq_id; at least one each. The first shares with those of its
    priority: none goes before it.

    Args: open_prompts: in order. num_tokens: of the step, for prompts. num_passing: tokens of who may pass them.
    """
    first, others = open_prompts[0], sorted(open_prompts[1:], key=rest)
    wanted = sum(rest(seq) for seq in others if seq.request.priority == first.request.priority) + num_passing
    own = min(rest(first), max(num_tokens - wanted, -(-num_tokens // 2)))
    given, left = {first.seq_id: max(1, own)}, num_tokens - own
    for seq in others:
        given[seq.seq_id] = max(1, min(rest(seq), left))
        left = max(0, left - given[seq.seq_id])
    return given


class Passing:
    """Who may begin beside an open prompt: who is short, or goes before it, and takes nothing that it needs later."""

    def __init__(self, cache: PrefixCache, tables: BlockTables, max_new: int) -> None:
        """Args: max_new: most tokens of a step."""
        self._cache, self._tables, self._max_new = cache, tables, max_new

    def tokens(self, seq: Sequence, first: Sequence, num_of_step: int, running: Seq[Sequence]) -> int:
        """How many tokens are to be computed of a sequence that waits, if it may pass the first open prompt; else 0.

        Args: num_of_step: tokens that a step has for prompts: a prompt that fits in it makes nobody wait.
        """
        hit = self._cache.match(seq)
        num_new = seq.num_tokens - max(hit.num_tokens, seq.num_swapped_tokens)
        is_short = rest(first) > num_of_step and num_new * SHORTER <= rest(first)
        goes_before = seq.request.priority < first.request.priority
        if seq.request.priority > first.request.priority or not (is_short or goes_before):
            return 0
        return num_new if self._is_apart(seq, hit, running) else 0

    def is_apart(self, seq: Sequence, running: Seq[Sequence]) -> bool:
        """Whether it shares nothing that is to be computed, and has blocks beside all that others know they need."""
        return self._is_apart(seq, self._cache.match(seq), running)

    def _is_apart(self, seq: Sequence, hit: Hit, running: Seq[Sequence]) -> bool:
        size = self._tables.block_size
        num_missing = sum(-(-other.num_tokens // size) - len(other.block_tables[0]) for other in running)
        num_tokens = seq.num_tokens + size * max(0, num_missing)
        return self._tables.has_room(hit.blocks, num_tokens, self._max_new) and not self._shares(seq, hit, running)

    def _shares(self, seq: Sequence, hit: Hit, running: Seq[Sequence]) -> bool:
        """Whether the first block that is to be computed of it is one that others are computing, or will."""
        end = hit.num_tokens + self._tables.block_size
        if not self._cache.is_enabled or not seq.request.can_read_cache or end >= seq.num_tokens:
            return False
        return any(
            other.num_computed_tokens < end <= other.num_tokens
            and self._cache.key_at(other, end) == self._cache.key_at(seq, end)
            for other in running
        )
