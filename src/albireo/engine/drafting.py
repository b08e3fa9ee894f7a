"""Drafts in a plan: tokens guessed behind the last known one, computed with what the step has left.

Called by scheduler.py last in plan(), and by engine.py with what came true. Does not know how a guess is made, or what
it is worth (speculative/).

A draft changes no token. It is judged by equality with the token drawn at its place, which is a function of the tokens
before it and the seed alone; what was computed behind a draft that is wrong is written again. It waits for nobody and
nobody for it: drafts are computed in steps in which everyone computes one token, in rows and blocks that are free, and
the blocks of those that were wrong are free again after the step.

Where the device begins the next step before this one is reported, a step has drafts only if the plan before it said
that it waits (StepPlan.waits). It does when the guesses of now, seen as those of then, are worth that; and behind a
step with drafts, whose tokens nobody can foresee. A model's guesses are made in steps that were not begun alone, when
the device has nothing else; in others it is said how many would be worth it.

Where layers keep states, these have seen all drafts of a step. A sequence goes on from them if all came true, else from
a snapshot that was taken before the first, and drafts that did come true are computed once more, in the next step.
"""

from __future__ import annotations

import logging
from math import ceil

from albireo.engine.block_tables import BlockTables
from albireo.engine.model_drafts import ModelDrafts
from albireo.engine.model_guesses import ModelGuesses
from albireo.engine.prefix_cache import PrefixCache
from albireo.engine.request import Sequence
from albireo.engine.settings import EngineSettings
from albireo.engine.state_slots import StateSlots
from albireo.engine.stats import Counters
from albireo.speculative.acceptance import Acceptance, Experience
from albireo.speculative.pacing import Pacing
from albireo.speculative.proposer import Method, Proposer, method_of
from albireo.speculative_config import SpeculativeConfig
from albireo.step import SequenceWork, StepPlan

_LOG = logging.getLogger(__name__)

#: What guessing takes beside a model that has filled the caches: once a step, and for each sequence; and the part of a
#: step that it may take while no guess is worth a row. Beside steps of less than a millisecond it has to wait its turn.
#: And what it takes to ask a grammar.
STEP_S, GUESS_S, GUESSES_FRAC, GRAMMAR_S = 1e-5, 5e-6, 0.02, 3e-5


class Guesses:
    """Of one sequence: who makes them, and how often they come true."""

    def __init__(self, proposer: Proposer, acceptance: Acceptance) -> None:
        self.proposer = proposer
        self.acceptance = acceptance


class Drafting:
    """Of one engine. Invariant: between steps no sequence holds a block for drafts.

    Args: method: how drafts are made; None: as config says.
    """

    def __init__(
        self,
        config: SpeculativeConfig,
        settings: EngineSettings,
        tables: BlockTables,
        cache: PrefixCache,
        states: StateSlots,
        counters: Counters,
        method: Method | None = None,
    ) -> None:
        self._states = states
        self._num_most = config.num_speculative_tokens
        self._settings = settings
        self._tables = tables
        self._counters = counters
        self._method = method or method_of(config)
        #: None where each sequence has a proposer.
        self._model = _model_drafts(self._method, config, settings, cache)
        #: The last kind is of what a grammar leaves no choice of.
        self._experience = Experience(self._method.num_kinds + 1)
        self._pacing = Pacing()
        self._guesses: dict[int, Guesses] = {}
        self._drafted: list[Sequence] = []
        #: Sequences with drafts in the step before this, which have kept their blocks since.
        self._had_drafts: set[int] = set()
        #: Sequences with drafts in the last step, or the next: their guesses pay for themselves.
        self._believed: set[int] = set()
        self._num_plans = 0
        counters.num_accepted_tokens_per_pos = [0] * self._num_most
        #: The step is one whose time says what a row costs.
        self._is_decode = False
        #: The device may have begun the step that is planned next; and the one that was planned last.
        self._is_begun = self._was_begun = False

    def plan(self, scheduled: list[Sequence], plan: StepPlan, *, has_failed: bool, has_more: bool = False) -> None:
        """Extend works of a plan that is complete otherwise.

        Args: scheduled: whose they are. has_failed: the step before did; this one asks no more than it must.
            has_more: prompts, or parts of them, are left for the next step.
        Cost: a few microseconds a sequence; next to nothing where no draft can be worth its row.
        """
        self._is_decode = False
        had_drafts, self._had_drafts = self._had_drafts, set()
        runs_ahead = self._settings.lookahead > 0
        self._was_begun, self._is_begun = self._is_begun, runs_ahead
        works = plan.work
        num_rows = len(works)
        if has_failed:
            return
        if plan.num_tokens != num_rows and not all(map(self._only_decodes, scheduled, works)):
            # who had drafts before a prompt came has some behind it
            plan.waits = runs_ahead and not has_more and any(seq.seq_id in self._believed for seq in scheduled)
            self._is_begun = runs_ahead and not plan.waits
            return
        asked = self._asked(scheduled) if self._model is None else range(num_rows)
        if not asked or not all(map(self._only_decodes, scheduled, works)):
            return
        self._is_decode = True
        num_spare = min(self._settings.max_num_batched_tokens - plan.num_tokens, self._settings.max_draft_rows)
        worth = self._pacing.begin(num_rows)
        if self._model is not None:
            barred = self._unread(scheduled, plan, had_drafts) if self._method.reads else set()
            barred |= {seq.seq_id for seq in scheduled if seq.request.beams is not None}
            self._plan_made(self._model, scheduled, plan, max(0, num_spare), worth, barred)
            return
        if num_spare <= 0 or worth >= 1.0:
            return
        chosen = self._choose(scheduled, asked, num_spare, worth)
        # The step with drafts waits and the one behind it too; one that has waited has paid its own gap.
        if runs_ahead and not self._pacing.pays(2 if self._was_begun else 1):
            chosen = {}
        self._believed = {scheduled[place].seq_id for place in chosen}
        if self._was_begun:
            plan.waits = bool(chosen)
        else:
            places = self._with_room(scheduled, plan, {place: len(drafts) for place, drafts in chosen.items()})
            self._put(plan, {place: chosen[place] for place in places})
            plan.waits = runs_ahead and plan.num_drafts > 0
        self._is_begun = runs_ahead and not plan.waits

    def _choose(
        self, scheduled: list[Sequence], asked: list[int] | range, num_spare: int, worth: float
    ) -> dict[int, list[int]]:
        """Drafts that are worth their rows, by place: the likeliest of all first, each after those before it.

        Of a step that is begun already: for the one behind it, if the token in between comes true too.
        """
        guesses: dict[int, list[int]] = {}
        offers: list[tuple[float, int, int]] = []
        for place in asked:
            guesses[place], rate = self._guess(scheduled[place])
            probability = rate if self._was_begun else 1.0
            for num in range(1, 1 + len(guesses[place])):
                probability *= rate
                if probability <= worth:
                    break
                offers.append((-probability, num, place))
        offers.sort()
        nums: dict[int, int] = {}
        for less, num, place in offers[:num_spare]:
            if not self._pacing.take(-less):
                break
            nums[place] = num
        return {place: guesses[place][:num] for place, num in nums.items()}

    def _unread(self, scheduled: list[Sequence], plan: StepPlan, had_drafts: set[int]) -> set[int]:
        """Sequences of which a head cannot read what the model leaves, since guesses are made before the step: its
        blocks are moved with it, or tokens before the last one are computed in it. Drafts that came true were, in the
        step before."""
        moved = {target for _, target in (*plan.block_copies, *plan.swap_ins)}
        return {
            seq.seq_id
            for seq, work in zip(scheduled, plan.work, strict=True)
            if (len(work.token_ids) > 1 and seq.seq_id not in had_drafts)
            or (moved and any(map(moved.intersection, seq.block_tables)))
        }

    def _plan_made(
        self,
        model: ModelDrafts,
        scheduled: list[Sequence],
        plan: StepPlan,
        num_spare: int,
        worth: float,
        barred: set[int],
    ) -> None:
        """Drafts of a model: made when it is known that there are rows and places for them. A step that is begun
        already is computed beside nothing: there it is only seen whether the one behind it is to have some."""
        runs_ahead, begun = self._settings.lookahead > 0, self._was_begun
        nums = model.nums(scheduled, num_spare, worth, self._pacing, barred, of_next=begun)
        self._is_decode = model.is_usual
        if runs_ahead and not (model.is_trial or self._pacing.pays(2 if begun else 1)):
            nums = {}
        if begun:
            plan.waits = bool(nums)
        else:
            places = self._with_room(scheduled, plan, nums)
            made = model.make([(scheduled[place], nums[place]) for place in places])
            self._put(plan, {place: drafts for place, drafts in zip(places, made, strict=True) if drafts})
            # who is looked at without drafts has some again in the next step, as has who catches up
            goes_on = bool(places) or (model.is_pause and bool(self._believed))
            plan.waits = runs_ahead and goes_on
        if not model.is_pause:
            self._believed = {scheduled[place].seq_id for place in nums}
        self._is_begun = runs_ahead and not plan.waits

    def _put(self, plan: StepPlan, chosen: dict[int, list[int]]) -> None:
        """Drafts into the plan, for which there is room."""
        for place, drafts in chosen.items():
            plan.work[place] = _with_drafts(plan.work[place], drafts)
            plan.num_tokens += len(drafts)
            plan.num_drafts += len(drafts)
            self._had_drafts.add(plan.work[place].seq_id)

    def _only_decodes(self, seq: Sequence, work: SequenceWork) -> bool:
        """Whether it computes its last token alone, or with drafts that came true and a state has not seen."""
        if work is seq.work:
            return True
        is_output = self._states.is_used and seq.request.is_prompt_done and bool(work.samples)
        return is_output and len(work.token_ids) <= 1 + self._num_most

    def _asked(self, scheduled: list[Sequence]) -> list[int] | range:
        """Whose guess is asked for, by place: everybody's, where that takes no time worth naming beside the step."""
        num = len(scheduled)
        self._num_plans += 1
        num_grammars = sum(seq.task.matcher is not None for seq in scheduled)
        takes = STEP_S + num * GUESS_S + num_grammars * GRAMMAR_S
        every = ceil(takes / (GUESSES_FRAC * self._pacing.expected(num)))
        if self._num_plans % every == 0:
            return range(num)
        believed = self._believed
        return [place for place, seq in enumerate(scheduled) if seq.seq_id in believed] if believed else []

    def _guess(self, seq: Sequence) -> tuple[list[int], float]:
        """What may follow its last token, and how likely the first of it is."""
        if seq.request.beams is not None:  # who goes on, and by what, is known after the step
            return [], 0.0
        output = seq.output_token_ids
        guesses = self._guesses.get(seq.seq_id)
        if guesses is None:
            assert self._method.proposer is not None, "no model guesses"
            proposer = self._method.proposer(seq.request.prompt_token_ids)
            guesses = self._guesses[seq.seq_id] = Guesses(proposer, Acceptance(self._experience))
        guesses.acceptance.judge(output)
        # One token comes anyway, at the last place there is no room for more.
        num_most = min(self._num_most, seq.max_len - seq.num_tokens - 1)
        if num_most < 1:
            return [], 0.0
        guess, kind = guesses.proposer.propose(output, num_most)
        forced = self._forced(seq, num_most)
        if forced and (len(forced) > len(guess) or guess[: len(forced)] != forced):
            guess, kind = forced, self._method.num_kinds
        # Nothing follows an end; that it comes is seen in the row before it. And of an id that the tokenizer alone has
        # there is no embedding.
        for place, token_id in enumerate(guess):
            if token_id in seq.stop_ids or token_id >= self._settings.vocab_size:
                del guess[place:]
                break
        if guess:
            guesses.acceptance.note(guess, kind, len(output))
        return guess, guesses.acceptance.rate(kind) if guess else 0.0

    def _forced(self, seq: Sequence, num_most: int) -> list[int]:
        """What its grammar says must come."""
        if seq.task.matcher is None:
            return []
        try:
            return list(seq.task.matcher.forced(seq.output_token_ids)[:num_most])
        except Exception as error:  # only a guess, and the plan is everybody's
            _LOG.warning("the grammar of sequence %d gives no guess: %s", seq.seq_id, error)
            return []

    def _with_room(self, scheduled: list[Sequence], plan: StepPlan, nums: dict[int, int]) -> list[int]:
        """Of places, and how many drafts are wanted there, those for which there is room."""
        return [place for place, num in nums.items() if self._reserve(scheduled[place], plan.work[place], num)]

    def _reserve(self, seq: Sequence, work: SequenceWork, num_drafts: int) -> bool:
        """Find what drafts take beside rows, a slot to go back to and blocks; they are free again after the step."""
        if not self._states.guard(seq, work):
            return False
        self._drafted.append(seq)
        # Beginning where the blocks it has end: the last known token has a place that is its own.
        covered = len(seq.block_tables[0]) * self._tables.block_size
        end = seq.num_tokens + num_drafts
        return end <= covered or self._tables.grow(seq.block_tables, covered, end) is not None

    # -- after the step ------------------------------------------------------------------------------------------------

    def executed(self, num_rows: int, seconds: float) -> None:
        """The planned step took so long, guesses included."""
        if self._is_decode:
            has_waited = self._settings.lookahead > 0 and not self._was_begun
            self._pacing.observe(num_rows, seconds, has_waited=has_waited)

    def judged(self, num_drafts: int, num_accepted: int) -> None:
        """Count what became of a sequence's drafts."""
        counters = self._counters
        counters.num_drafts += 1
        counters.num_draft_tokens += num_drafts
        counters.num_accepted_tokens += num_accepted
        per_pos = counters.num_accepted_tokens_per_pos
        for place in range(num_accepted):
            per_pos[place] += 1

    def settle(self) -> None:
        """The step is over, or has failed: blocks of drafts that did not come true are free again."""
        for seq in self._drafted:
            if any(seq.block_tables):
                self._tables.trim(seq.block_tables, seq.num_tokens)
        self._drafted.clear()

    def forget(self, seq: Sequence) -> None:
        """It is finished."""
        self._guesses.pop(seq.seq_id, None)
        self._had_drafts.discard(seq.seq_id)
        if self._model is not None:
            self._model.forget(seq)

    def left(self, seq: Sequence) -> None:
        """It gives its blocks up."""
        self._had_drafts.discard(seq.seq_id)
        if self._model is not None:
            self._model.left(seq)


def _model_drafts(
    method: Method, config: SpeculativeConfig, settings: EngineSettings, cache: PrefixCache
) -> ModelDrafts | None:
    if method.execute is None:
        return None
    guesses = ModelGuesses(
        method.execute,
        cache,
        settings.block_size,
        settings.windows.index(None),
        settings.max_num_batched_tokens,
        settings.vocab_size,
        method.vocab_size,
        reads=method.reads,
    )
    return ModelDrafts(guesses, config.num_speculative_tokens, method.max_positions, bool(method.reads))


def _with_drafts(work: SequenceWork, drafts: list[int]) -> SequenceWork:
    return SequenceWork(
        work.seq_id,
        [*work.token_ids, *drafts],
        work.num_computed_tokens,
        work.block_tables,
        work.samples,
        num_drafts=len(drafts),
        images=work.images,
        adapter_slot=work.adapter_slot,
        state_slot=work.state_slot,
        snapshot_slot=work.snapshot_slot,
        snapshot_at=work.snapshot_at,
    )
