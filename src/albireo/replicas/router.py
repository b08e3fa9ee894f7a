"""Which engine gets a request: the one where fewest tokens are to be computed before its first one comes.

Asked by replicas.py, with numbers only. Does not know processes, requests or clocks. The rule, and why: choose().
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from albireo.replicas.prefixes import Prefixes

#: What a sequence that is there already counts for, in tokens to compute: about as many as it will still produce, each
#: of which makes a step longer for whoever joins it.
SEQUENCE_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Standing:
    """How an engine stands that can be given a request.

    Fields:
        index: of the engine.
        num_pending: tokens of requests there that are computed before these have their next one.
        num_sequences: that are not over; num_seats: as many run at once.
    """

    index: int
    num_pending: int
    num_sequences: int
    num_seats: int


class Router:
    """Invariant: with equal engines and prompts that share nothing, no two differ by more than one sequence."""

    def __init__(self, num_engines: int, block_size: int, num_blocks: int) -> None:
        """Args: num_blocks: of the KV cache of each."""
        self._block_size = block_size
        self._held = [Prefixes(num_blocks) for _ in range(num_engines)]
        self._num_sent = [0] * num_engines

    def choose(self, keys: Sequence[bytes], num_tokens: int, standings: Sequence[Standing]) -> int:
        """The engine for a request.

        1. One with a free seat, if any has: behind a full one a request waits for somebody's end, which no prefix is
           worth.
        2. The one with the least sum of: tokens of this prompt that its KV cache does not hold, tokens that others have
           to have computed there first, and SEQUENCE_TOKENS for each sequence. All are in one unit, so that a prefix
           is followed as far as computing it again elsewhere would take longer, and no further.
        3. The one with the fewest sequences; then the one that was given the fewest requests.

        Args: keys: of the prompt's full blocks; num_tokens: of the prompt; standings: of those that can run, one at
            least.
        """
        free = [each for each in standings if each.num_sequences < each.num_seats] or standings

        def cost(each: Standing) -> tuple[int, int, int, int]:
            tokens = self.num_missing(each.index, keys, num_tokens) + each.num_pending
            load = SEQUENCE_TOKENS * each.num_sequences
            return tokens + load, each.num_sequences, self._num_sent[each.index], each.index

        return min(free, key=cost).index

    def num_missing(self, engine: int, keys: Sequence[bytes], num_tokens: int) -> int:
        """Tokens of a prompt that an engine computes, the last one at least."""
        return max(1, num_tokens - self._block_size * self._held[engine].num_held(keys))

    def sent(self, engine: int, keys: Sequence[bytes]) -> None:
        """A request was given to an engine."""
        self._num_sent[engine] += 1
        self._held[engine].add(keys)

    def ended(self, engine: int, keys: Sequence[bytes]) -> None:
        """A request has ended there. Args: keys: of prompt and output, with which the next turn of a chat begins."""
        self._held[engine].add(keys)

    def forget(self, engine: int) -> None:
        """Its process is gone, and the KV cache with it."""
        self._held[engine].clear()
