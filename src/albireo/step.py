"""StepPlan -> StepResult: the one message between deciding (engine/) and doing (execution/).

Built by engine/scheduler.py, consumed by execution/runner.py. Integers and lists only; no tensors.
There is no prefill or decode here: a sequence has tokens to compute, from a position on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from albireo.errors import InvalidParams, InvariantError
from albireo.image_input import ImageInput
from albireo.params import PoolingParams, SamplingParams

#: Numbers in order: sums, an embedding, or what each token of a prompt has, one token behind the other.
Floats: TypeAlias = "Sequence[float]"

#: Stands in a block table where there is none; its contents mean nothing.
NULL_BLOCK = 0


class TokenMatcher(Protocol):
    """Which tokens a grammar lets one sequence go on with; a function of its output tokens and nothing else."""

    @property
    def eos_token_ids(self) -> Sequence[int]:
        """The ids by which an output ends where the grammar lets it."""
        ...

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        """The token mask: bit i % 8 of byte i // 8, counted from the lowest, says whether token i may come next.

        Raises: InvalidParams when these tokens do not follow the grammar, or it asks for more work than is allowed.
        """
        ...

    def ahead(self, output_token_ids: Sequence[int], draft_token_ids: Sequence[int]) -> list[bytes]:
        """The masks behind each of these drafts, should they come: fewer where one may not, or the grammar gives up.

        Nothing is to be seen of it afterwards.
        """
        ...

    def forced(self, output_token_ids: Sequence[int]) -> Sequence[int]:
        """Tokens of what must come next whatever is drawn, as a tokenizer would have them: a guess, since the same text
        may come in other tokens. None where nothing is certain, or the grammar does not tell."""
        ...


class TokenConstraint(Protocol):
    """A compiled grammar: gives each sequence of a request its matcher."""

    def matcher(self) -> TokenMatcher:
        """A matcher that has seen nothing."""
        ...


def allows(mask: bytes, token_id: int) -> bool:
    """Whether a token mask has a token."""
    return token_id >> 3 < len(mask) and bool(mask[token_id >> 3] >> (token_id & 7) & 1)


class ThinkingBudget(Protocol):
    """When one sequence has thought enough; a function of its output tokens and nothing else."""

    def forced(self, output_token_ids: Sequence[int]) -> int | None:
        """The token that must come next, to end its thinking; None: it thinks within its budget, or not at all."""
        ...


@dataclass(slots=True)
class SampleTask:
    """Draw the next token of one sequence from the logits of the last token computed for its work.

    Fields:
        seq_id: the sequence the token belongs to (for n > 1 several tasks share one row of logits).
        seed: of this sequence's random stream; the stream's position is len(output_token_ids).
        prompt_token_ids, output_token_ids: for the penalties; borrowed, not to be changed.
        stop_token_ids: ids masked while fewer than min_tokens are out (EOS ids included, also where they are ignored).
        matcher: of the grammar that the output follows; it is this sequence's own.
        budget: of its thinking; likewise.
    """

    seq_id: int
    params: SamplingParams
    seed: int
    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    stop_token_ids: tuple[int, ...] = ()
    matcher: TokenMatcher | None = None
    budget: ThinkingBudget | None = None

    def after(self, output_token_ids: Sequence[int]) -> SampleTask:
        """The same task when the output is longer."""
        # as replace(), which takes five times as long
        kept = (self.seq_id, self.params, self.seed, self.prompt_token_ids)
        return SampleTask(*kept, output_token_ids, self.stop_token_ids, self.matcher, self.budget)

    def is_before(self, other: SampleTask) -> bool:
        """Whether other is after() of this one, or of one like it."""
        is_same = other.params is self.params and other.prompt_token_ids is self.prompt_token_ids
        return is_same and other.seq_id == self.seq_id and len(other.output_token_ids) > len(self.output_token_ids)

    @property
    def early_ends(self) -> set[int]:
        """The ids that must not come now, if anything else can."""
        params = self.params
        ends = set(self.stop_token_ids) if len(self.output_token_ids) < params.min_tokens else set()
        if params.ignore_eos and self.matcher is not None:
            ends.update(self.matcher.eos_token_ids)
        return ends

    def token_mask(self, num_tokens: int) -> bytes | None:
        """What the grammar allows next, as TokenMatcher.allowed(); None without a grammar.

        Raises: InvalidParams naming the sequence when the grammar gives up.
        """
        if self.matcher is None:
            return None
        try:
            mask = self.matcher.allowed(self.output_token_ids)
        except InvalidParams as error:
            raise InvalidParams(f"sequence {self.seq_id}: {error}") from None
        if len(mask) * 8 < num_tokens:
            raise InvariantError(f"sequence {self.seq_id}: a mask of {len(mask)} bytes for {num_tokens} tokens")
        return mask

    def forced_token(self, num_tokens: int) -> int | None:
        """The token that ends its thinking now; None: any may come. A grammar has the last word: what it does not allow
        is not forced. Raises: as token_mask()."""
        forced = None if self.budget is None else self.budget.forced(self.output_token_ids)
        mask = None if forced is None else self.token_mask(num_tokens)
        if forced is None or mask is None or allows(mask, forced):
            return forced
        return None

    @property
    def bad_word_ends(self) -> list[int]:
        """The last id of each bad word whose other ids are the end of the output (the prompt does not count)."""
        output = self.output_token_ids
        return [
            last
            for *start, last in self.params.bad_words_token_ids
            if len(start) <= len(output) and list(output[len(output) - len(start) :]) == start
        ]


@dataclass(slots=True)
class PoolingTask:
    """Make an embedding of a prompt's hidden states, or go on with it.

    Fields:
        num_rows: of the last so many tokens of the work the hidden states are wanted, of the first ones where
            pooling_type is cls; at least 1.
        num_earlier, sums: of so many tokens before them the hidden states were summed already; no sums: of none, or
            each token keeps its own.
        is_last: the work ends the prompt.
    """

    params: PoolingParams
    num_rows: int
    num_earlier: int
    sums: Floats
    is_last: bool


def snapshot_rows(slot: int, at: int, start: int, num_tokens: int) -> int:
    """Of num_tokens from position start on, how many are before a snapshot ordered at a position; 0: it is not due."""
    return at - start if slot >= 0 and start < at <= start + num_tokens else 0


@dataclass(slots=True)
class SequenceWork:
    """Tokens of one sequence to compute in this step.

    Fields:
        token_ids: [n] the tokens, in order; n >= 1.
        num_computed_tokens: position of the first of them; all before it are in the KV cache,
            or are written in this very step by another sequence that shares the blocks.
        block_tables: one list of block ids per block group, covering num_computed_tokens + n positions; the null block
            where no token of this group looks any more. Borrowed, not to be changed.
        samples: tasks on the last row that is no draft's; empty when the prompt goes on in a later step.
        prompt_logprobs: when set, log-probabilities are wanted for the tokens that follow each of the
            computed rows: targets[i] is the prompt token after token_ids[i] (fewer at the prompt's end).
        pooling: what is to be made of hidden states, if anything; then there are no samples.
        num_drafts: the last so many tokens are drafts: guesses of what the one task of samples draws, and then of what
            it draws after that. While a draft is what was drawn, the task draws again, from the draft's row, with the
            draft among its output.
        type_start: position from which on tokens are of the second of two texts; -1: there is one.
        images: those of its prompt, wherever they are in it. Borrowed, not to be changed.
        prefix: so many first tokens of its sequence see each other; where there are images, these say so themselves.
        adapter_slot: where its adapter is; -1: it has none.
        state_slot: where what its recurrent layers keep is; -1: there are no such layers.
        snapshot_slot, snapshot_at: what they keep behind its first snapshot_at tokens is to be in this slot, too; -1:
            in none. An order for when it gets there: it may be past that, or not come so far in this step.
    """

    seq_id: int
    token_ids: Sequence[int]
    num_computed_tokens: int
    block_tables: tuple[Sequence[int], ...]
    samples: tuple[SampleTask, ...] = ()
    prompt_logprobs: int | None = None
    prompt_targets: Sequence[int] = ()
    pooling: PoolingTask | None = None
    num_drafts: int = 0
    type_start: int = -1
    images: tuple[ImageInput, ...] = ()
    prefix: int = 0
    adapter_slot: int = -1
    state_slot: int = -1
    snapshot_slot: int = -1
    snapshot_at: int = 0

    @property
    def snapshot_rows(self) -> int:
        """How many of this step's tokens a snapshot is taken behind; 0: none is taken."""
        return snapshot_rows(self.snapshot_slot, self.snapshot_at, self.num_computed_tokens, len(self.token_ids))

    @property
    def draft_token_ids(self) -> Sequence[int]:
        """The drafts, in order."""
        return self.token_ids[len(self.token_ids) - self.num_drafts :]


@dataclass(slots=True)
class StepPlan:
    """What one step will do.

    Fields:
        num_tokens: of all work; num_drafts: of those the ones that are drafts.
        waits: the step after this is not to be begun before this one is reported: it may have drafts.
    Moves of blocks, each as (source, target) and all of them made before any computing, in this order:
        swap_outs: blocks of the device to blocks of host memory; block_copies: within the device, one after another;
        swap_ins: blocks of host memory to blocks of the device. Of swap_outs and swap_ins no two have one target.
    fills: (block, its content), written where swap_ins are: what was kept of it outside the KV cache. state_fills: the
        same of slots, behind state_copies.
    adapters: which one each slot is to hold, of those that work runs in; borrowed, not to be changed. Empty where no
        work has one.
    state_copies: (source, target) slots of what recurrent layers keep, copied one after another with the moves of
        blocks.
    """

    step_idx: int
    work: list[SequenceWork]
    num_tokens: int
    block_copies: list[tuple[int, int]] = field(default_factory=list)
    swap_outs: list[tuple[int, int]] = field(default_factory=list)
    swap_ins: list[tuple[int, int]] = field(default_factory=list)
    fills: list[tuple[int, bytes]] = field(default_factory=list)
    state_fills: list[tuple[int, bytes]] = field(default_factory=list)
    num_drafts: int = 0
    waits: bool = False
    adapters: Sequence[int | None] = ()
    state_copies: list[tuple[int, int]] = field(default_factory=list)

    def part(self, work: list[SequenceWork], *, has_moves: bool = False) -> StepPlan:
        """The same step with this work only. has_moves: blocks are moved for all of it as well."""
        part = StepPlan(self.step_idx, work, sum(len(each.token_ids) for each in work))
        part.num_drafts = sum(each.num_drafts for each in work) if self.num_drafts else 0
        part.adapters = self.adapters
        if has_moves:
            part.block_copies, part.swap_outs, part.swap_ins = self.block_copies, self.swap_outs, self.swap_ins
            part.state_copies = self.state_copies
            part.fills, part.state_fills = self.fills, self.state_fills
        return part


@dataclass(slots=True)
class TokenLogprobs:
    """Log-probabilities at one place: the chosen token first, then the best ones by rank.

    ranks count from 1 over the whole vocabulary; values are of the raw distribution (before any
    penalty, bias, temperature or truncation).
    """

    token_ids: list[int]
    logprobs: list[float]
    ranks: list[int]


@dataclass(slots=True)
class SampledToken:
    """One drawn token; logprobs when the task asked for them."""

    seq_id: int
    token_id: int
    logprobs: TokenLogprobs | None = None


@dataclass(slots=True)
class StepResult:
    """What one step did.

    Fields:
        tokens: one entry a SampleTask of the plan, in the plan's order; of a work with drafts one more for each draft
            that is what was drawn before it.
        prompt_logprobs: seq_id -> one TokenLogprobs a prompt target of that work.
        pooled: seq_id -> for each work with a PoolingTask the sums so far; at the prompt's end the embedding;
            where each token keeps its own, values of the tokens of this step, one behind the other.
    """

    tokens: list[SampledToken]
    prompt_logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    pooled: dict[int, Floats] = field(default_factory=dict)
