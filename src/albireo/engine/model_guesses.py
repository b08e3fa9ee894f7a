"""ModelGuesses: what a draft model guesses, and which positions of its own KV cache hold what.

Called by drafting.py. Does not know what a guess is worth, nor how the draft model is computed: it is given execute(),
which takes plans as the engine's own does.

The draft model's cache has as many blocks as the model's, and sequences use the numbers that they have already. It is
behind: prompts are computed for it when a guess is wanted, and no more of them than one step may have. A draft is drawn
as the token itself will be, with the sequence's own parameters, its grammar and the random number of its place, so that
two models that think alike draw alike. No guess changes a token: where a block held what somebody else left there,
nothing would be lost but a guess.

A head that drafts is such a model, too, but for two things. It reads hidden states that the model left, so what it
computes at a position is of the token behind it: its sequences are one shorter. And where a token was a guess so was
the hidden state, so what it left there is computed again when both are known. One that reads the model's cache has
nothing to catch up with, and makes all of its guesses at one position.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from albireo.engine.prefix_cache import PrefixCache
from albireo.engine.request import Sequence as Seq
from albireo.errors import InvalidParams
from albireo.params import SamplingParams
from albireo.step import SampleTask, SequenceWork, StepPlan, StepResult, TokenMatcher

_LOG = logging.getLogger(__name__)

#: A draft model that failed so often in a row is not asked again.
MOST_FAILED = 8


@dataclass(slots=True)
class _Progress:
    """Of one sequence: its first num_known tokens are in the cache, the last of them in block tail; behind them fed.

    params: how drafts are drawn.
    """

    params: SamplingParams
    num_known: int = 0
    tail: int = -1
    fed: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Implements TokenMatcher for outputs that end in drafts, behind num_known tokens: the grammar remembers none.
    num_bytes: of a mask."""

    matcher: TokenMatcher
    num_known: int
    num_bytes: int

    @property
    def eos_token_ids(self) -> Sequence[int]:
        return self.matcher.eos_token_ids

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        known, drafts = output_token_ids[: self.num_known], output_token_ids[self.num_known :]
        try:
            masks = self.matcher.ahead(known, drafts) if drafts else [self.matcher.allowed(known)]
        except InvalidParams:
            masks = []  # it says so when the token itself is drawn
        if not masks or len(masks) < len(drafts):
            return b"\xff" * self.num_bytes
        return masks[-1].ljust(self.num_bytes, b"\0")

    def ahead(self, output_token_ids: Sequence[int], draft_token_ids: Sequence[int]) -> list[bytes]:
        return []

    def forced(self, output_token_ids: Sequence[int]) -> Sequence[int]:
        return []


class ModelGuesses:
    """Invariant: _held names blocks of the draft model's cache that hold all tokens of what goes by a key.

    Args:
        execute: computes a plan of the draft model. cache: knows keys of blocks.
        group: of block tables, whose layers see all positions. max_tokens: of one step.
        vocab_size: ids of the model are below it; own_vocab_size: those of the draft model.
        reads: see Method.
    """

    def __init__(
        self,
        execute: Callable[[StepPlan], StepResult],
        cache: PrefixCache,
        block_size: int,
        group: int,
        max_tokens: int,
        vocab_size: int,
        own_vocab_size: int,
        *,
        reads: Literal["", "states", "cache"] = "",
    ) -> None:
        self._shift, self._has_cache = int(bool(reads)), reads != "cache"
        self._mask_bytes = -(-max(vocab_size, own_vocab_size) // 8)
        self._execute, self._cache, self._block_size = execute, cache, block_size
        self._group, self._max_tokens, self._vocab_size = group, max_tokens, vocab_size
        self._progress: dict[int, _Progress] = {}
        self._held: dict[int, bytes] = {}
        #: Sequences that no guess could be drawn for; and how many in a row.
        self._barred: set[int] = set()
        self._num_failed = 0

    def left(self, seq: Seq) -> None:
        """It holds no blocks any more."""
        self._progress.pop(seq.seq_id, None)

    def forget(self, seq: Seq) -> None:
        """It is finished."""
        self.left(seq)
        self._barred.discard(seq.seq_id)

    def can_guess(self, seq: Seq) -> bool:
        """False where it failed: what failed once may fail again, and is not needed."""
        return self._num_failed < MOST_FAILED and seq.seq_id not in self._barred

    def num_missing(self, seq: Seq) -> int:
        """How many of its known tokens a guess would have to be computed from first, the last one included."""
        return self._length(seq) - self._num_known(seq)

    def guess(self, wanted: Sequence[tuple[Seq, int]]) -> list[list[int]]:
        """Guess what follows the last known tokens of sequences, each so many tokens.

        Their tables have places for these. Returns: for each its drafts, fewer or none where the draft model is not so
        far yet, or failed. A step that fails is computed again for each sequence alone, to find whose it is.
        Cost: a step of the draft model for each place, the first with all that it has not seen yet.
        """
        drafts: dict[int, list[int]] = {seq.seq_id: [] for seq, _ in wanted}
        try:
            self._draw(wanted, drafts)
        except Exception as error:
            for seq, _ in wanted:
                self.left(seq)
            if len(wanted) > 1:
                return [self.guess([each])[0] for each in wanted]
            self._bar(wanted[0][0], error)
            return [[]]
        if wanted:
            self._num_failed = 0
        return list(drafts.values())

    def _bar(self, seq: Seq, error: Exception) -> None:
        self._barred.add(seq.seq_id)
        self._num_failed += 1
        if self._num_failed < MOST_FAILED:
            _LOG.warning("the draft model failed for sequence %d, which has no drafts: %s", seq.seq_id, error)
        else:
            _LOG.warning("the draft model failed %d times, there are no drafts from now on: %s", MOST_FAILED, error)

    def _draw(self, wanted: Sequence[tuple[Seq, int]], drafts: dict[int, list[int]]) -> None:
        works: list[SequenceWork] = []
        budget = self._max_tokens
        for seq, _ in wanted:
            start = self._num_known(seq)
            if not self._has_cache:
                works.append(self._work(seq, seq.slice(start + 1, start + 2), start, []))
                continue
            num_new = min(self._length(seq) - start, budget)
            if num_new > 0:
                budget -= num_new
                tokens = seq.slice(start + self._shift, start + self._shift + num_new)
                works.append(self._work(seq, tokens, start, []))
                self._write(seq, start, start + num_new)
        drawn = self._step(works)
        for seq, _ in wanted:
            self._name_blocks(seq)
        by_id = {seq.seq_id: (seq, num) for seq, num in wanted}
        while drawn:
            works = []
            for seq_id, token in drawn.items():
                seq, num = by_id[seq_id]
                if token >= self._vocab_size:
                    continue
                drafts[seq_id].append(token)
                if len(drafts[seq_id]) < num and token not in seq.stop_ids:
                    position = self._length(seq) + len(drafts[seq_id]) - 1
                    if not self._has_cache:
                        works.append(self._work(seq, [token], self._length(seq) - 1, drafts[seq_id]))
                        continue
                    works.append(self._work(seq, [token], position, drafts[seq_id]))
                    self._spoil(seq, position, position + 1)
                    if not self._shift:
                        self._progress[seq_id].fed.append(token)
            drawn = self._step(works)

    def _step(self, works: list[SequenceWork]) -> dict[int, int]:
        """Sequence -> the token drawn behind its work, where that ends what is known."""
        if not works:
            return {}
        # what comes next is fed with what comes of it
        result = self._execute(StepPlan(0, works, sum(len(work.token_ids) for work in works), waits=True))
        return {token.seq_id: token.token_id for token in result.tokens}

    def _work(self, seq: Seq, token_ids: list[int], start: int, drafts: list[int]) -> SequenceWork:
        tables = (seq.block_tables[self._group],) if self._has_cache else tuple(seq.block_tables)
        work = SequenceWork(seq.seq_id, token_ids, start, tables)
        if not self._has_cache or start + len(token_ids) == self._length(seq) + len(drafts):
            output = [*seq.output_token_ids, *drafts]
            params, task = self._progress[seq.seq_id].params, seq.task
            kept = (task.seed, task.prompt_token_ids, output, task.stop_token_ids)
            num_known, grammar = len(seq.output_token_ids), task.matcher
            ahead = None if grammar is None else _Ahead(grammar, num_known, self._mask_bytes)
            work.samples = (SampleTask(seq.seq_id, params, *kept, ahead),)
        return work

    # -- the cache -----------------------------------------------------------------------------------------------------

    def _length(self, seq: Seq) -> int:
        """Positions that are computed of what is known of it."""
        return seq.num_tokens - self._shift

    def _num_known(self, seq: Seq) -> int:
        """How many of its first positions the cache has, all but the last at most."""
        table, size = seq.block_tables[self._group], self._block_size
        progress = self._progress.get(seq.seq_id)
        if not self._has_cache:
            if progress is None:
                self._progress[seq.seq_id] = _Progress(_of_guesses(seq))
            return self._length(seq) - 1
        if progress is None:
            progress = self._progress[seq.seq_id] = _Progress(_of_guesses(seq))
            while (progress.num_known + size) < seq.num_tokens and self._is_held(seq, progress.num_known // size):
                progress.num_known += size
            # the last position of the last block read a token behind it, which need not be this one's
            progress.num_known = max(0, progress.num_known - self._shift)
        elif progress.num_known and table[(progress.num_known - 1) // size] != progress.tail:
            # it was shared, and replaced by a copy for whoever writes on
            progress.num_known = (progress.num_known - 1) // size * size
            progress.fed.clear()
        for token, known in zip(progress.fed, seq.slice(progress.num_known, seq.num_tokens - 1), strict=False):
            if token != known:
                break
            progress.num_known += 1
        progress.fed.clear()
        # where a step failed, nothing came behind what was computed for its guess
        progress.num_known = max(0, min(progress.num_known, self._length(seq) - 1))
        if progress.num_known:
            progress.tail = table[(progress.num_known - 1) // size]
        return progress.num_known

    def _is_held(self, seq: Seq, idx: int) -> bool:
        block = seq.block_tables[self._group][idx]
        return block in self._held and self._held[block] == self._cache.key_at(seq, (idx + 1) * self._block_size)

    def _write(self, seq: Seq, start: int, end: int) -> None:
        """Known tokens at positions start .. end-1 are to be computed."""
        self._spoil(seq, start, end)
        progress = self._progress[seq.seq_id]
        progress.num_known, progress.tail = end, seq.block_tables[self._group][(end - 1) // self._block_size]

    def _spoil(self, seq: Seq, start: int, end: int) -> None:
        """Blocks of these positions hold from now on something else than they go by."""
        for block in seq.block_tables[self._group][start // self._block_size : -(-end // self._block_size)]:
            self._held.pop(block, None)

    def _name_blocks(self, seq: Seq) -> None:
        """Full blocks of known tokens go by their keys."""
        if not self._cache.is_enabled or not self._has_cache:
            return
        table, size = seq.block_tables[self._group], self._block_size
        for idx in range(self._progress[seq.seq_id].num_known // size - 1, -1, -1):
            if self._is_held(seq, idx):
                break
            self._held[table[idx]] = self._cache.key_at(seq, (idx + 1) * size)


def _of_guesses(seq: Seq) -> SamplingParams:
    """How drafts are drawn: nobody is told how likely they were, nor when it has thought enough."""
    return seq.request.params.clone(logprobs=None, prompt_logprobs=None, thinking_token_budget=None)
