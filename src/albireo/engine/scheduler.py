"""Who gets how many tokens in this step, and which blocks they go to.

Called by engine.py: plan() before a step, commit() or roll_back() after it; in between sequences come, fork and go by
its places. Does not know token values beyond passing them on, nor how or how fast a step is executed.

There is one number to look at: a sequence has num_tokens - num_computed_tokens tokens to compute. Running sequences
come first, in order, each with at least one token if the budget allows; then waiting ones, in order, until budget,
seats (max_num_seqs) or blocks run out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from albireo.engine.kept_prefixes import BlockFiles, Kept
from albireo.engine.places import Places
from albireo.engine.preemption import choose_method, choose_victim
from albireo.engine.prefix_cache import Hit
from albireo.engine.prompt_shares import LOOKED_AT, Passing, is_open, rest, shares
from albireo.engine.request import Sequence, Status
from albireo.engine.settings import EngineSettings
from albireo.engine.stats import Counters
from albireo.engine.step_pace import StepPace
from albireo.engine.step_room import StepRoom
from albireo.errors import InvariantError
from albireo.speculative.proposer import Method
from albireo.step import StepPlan


@dataclass(slots=True)
class _Step:
    """What plan() did, as far as commit() and roll_back() must know it.

    Fields:
        scheduled: in the plan's order. admitted: began to run in this step, with the cached tokens they found.
        copied: had a shared block replaced by a copy that exists only once the step was executed.
        room: what else it has room for. limit: most tokens; num_of_prompts: those of sequences that have several.
        is_prompt_open: known tokens of a scheduled sequence are left for a later step. shares: of the sequences that
            were open before, tokens each. passing: who may begin beside one that is left open.
        end_order: nobody of this order or behind it is scheduled.
    """

    room: StepRoom
    end_order: tuple[int, int, int] | None = None
    limit: int = 0
    shares: dict[int, int] = field(default_factory=dict)
    passing: list[Sequence] = field(default_factory=list)

    scheduled: list[Sequence] = field(default_factory=list)
    admitted: list[tuple[Sequence, int]] = field(default_factory=list)
    copied: list[Sequence] = field(default_factory=list)
    is_prompt_open: bool = False
    num_of_prompts: int = 0


class Scheduler:
    """Invariants, checked by tests after each step:
    1. waiting and running are disjoint, and hold exactly the sequences of that status;
    2. len(running) <= max_num_seqs, and a plan has at most max_num_batched_tokens tokens;
    3. the plan is made in running order, and victims are taken from its end: nothing planned is ever taken back;
    4. whenever a sequence waits or runs, the plan is not empty;
    5. after a sequence that leaves known tokens for a later step only those are admitted that are short beside it, or
       go before it (prompt_shares.py), and begin otherwise. So whoever shares its prefix comes when it is computed, and
       finds it.
    """

    def __init__(
        self,
        settings: EngineSettings,
        counters: Counters,
        method: Method | None = None,
        files: BlockFiles | None = None,
    ) -> None:
        """Args: files: where blocks of sequences that are over are kept; None: nowhere."""
        self.places = places = Places(settings, counters, method, files)
        self._passing = Passing(places.cache, places.tables, settings.max_num_batched_tokens)
        self._settings = settings
        self._counters = counters
        self._pace = StepPace(
            settings.target_step_s if settings.can_cut_anywhere else 0.0, settings.max_num_batched_tokens
        )
        self._step = _Step(StepRoom(settings))
        #: Whether a sequence that runs may have known tokens left by the last step.
        self._was_open = False
        self._step_idx = 0
        #: Since the last step that was executed.
        self._preempted: list[Sequence] = []
        #: Scheduled by the last step, if it failed; and where the next plan ends, see leave_out_last().
        self._failed: list[Sequence] = []
        self._end_order: tuple[int, int, int] | None = None

    @property
    def scheduled(self) -> list[Sequence]:
        """The sequences of the last plan, one an entry of plan.work."""
        return self._step.scheduled

    # -- plan ----------------------------------------------------------------------------------------------------------

    def plan(self) -> StepPlan:
        """Decide one step. To be followed by commit() or roll_back().

        Returns: the plan; its lists and work are borrowed and change with the next plan.
        Cost: O(running) with a small constant; new blocks, hashes and admissions come on top.
        """
        self._begin_step()
        plan = StepPlan(self._step_idx, [], 0)
        self._step_idx += 1
        if self._settings.scheduling_policy == "priority":
            self._make_room_for_priority(plan)
        self._plan_lines(plan)
        if not plan.work and self._step.end_order is not None:
            # Those before it wait for blocks that it holds: they shared some, and gave them up as the step failed.
            self._step.end_order = None
            self._plan_lines(plan)
        if not plan.work and self.places.waiting:
            # Beams are held until others of their search are as far, and these find no room beside them.
            for seq in [seq for seq in self.places.running if seq.is_held]:
                self.places.park(seq)
            self._plan_waiting(plan)
        if not plan.work and (self.places.running or self.places.waiting):
            raise InvariantError(
                f"nothing planned with {len(self.places.running)} running, {len(self.places.waiting)} waiting"
            )
        self._was_open = self._step.is_prompt_open or self._step.end_order is not None
        plan.state_copies = self.places.states.take_copies()
        if self.places.adapters.num_running:
            plan.adapters = self.places.adapters.held
        if self.places.drafting is not None:
            has_more = self._step.is_prompt_open or bool(self.places.waiting)
            self.places.drafting.plan(self._step.scheduled, plan, has_failed=bool(self._failed), has_more=has_more)
        return plan

    def _begin_step(self) -> None:
        """How many tokens the step has, and who shares them, as far as open prompts are there."""
        self._step = step = _Step(StepRoom(self._settings), self._end_order)
        self._end_order = None
        open_prompts = [seq for seq in self.places.running if is_open(seq)] if self._was_open else []
        num_others = len(self.places.running) - len(open_prompts)
        step.limit = self._pace.limit(num_others)
        if open_prompts and self._settings.can_cut_anywhere:
            for_prompts = max(1, step.limit - num_others)
            # Of those that have few left of a prompt, and so many others have a token.
            num_few = sum(map(rest, self.places.running)) - sum(map(rest, open_prompts)) - num_others
            num_passing = max(0, num_few)
            for seq, num_new in self._who_may_pass(open_prompts[0], for_prompts):
                step.passing.append(seq)
                num_passing += num_new
            if num_passing or len(open_prompts) > 1:
                step.shares = shares(open_prompts, for_prompts, num_passing)

    def _who_may_pass(self, first: Sequence, for_prompts: int) -> Iterator[tuple[Sequence, int]]:
        """Of the first that wait those that may begin beside an open prompt, and how many tokens they are.

        Whom they pass finds a seat as it would have without them, and a slot: an adapter in use is no longer so for it.
        """
        num_seats = self._settings.max_num_seqs - len(self.places.running)
        waits_for_slot = False
        for seq in self.places.waiting.members[:LOOKED_AT]:
            if num_seats <= 0:
                return
            num_seats -= 1  # its own, or that which is kept for it
            adapter = seq.request.adapter
            num_new = self._passing.tokens(seq, first, for_prompts, self.places.running.members)
            if num_new and self.places.slot(seq) is not None and not (waits_for_slot and adapter is not None):
                yield seq, num_new
            elif adapter is not None and all(other.request.adapter != adapter for other in self.places.running):
                waits_for_slot = True

    def _plan_lines(self, plan: StepPlan) -> None:
        self._plan_running(plan)
        self._plan_waiting(plan)
        self._plan_passing(plan)

    def _plan_running(self, plan: StepPlan) -> None:
        running = self.places.running.members
        scheduled, work, end_order = self._step.scheduled, plan.work, self._step.end_order
        budget, shares = self._step.limit, self._step.shares
        for seq in running:  # preemption shortens its end, which iteration allows
            if budget == 0 or (end_order is not None and seq.order >= end_order):
                break
            if seq.num_tokens <= seq.quiet_until:
                scheduled.append(seq)
                work.append(seq.work)
                budget -= 1
                continue
            if seq.is_held:
                continue
            # A long prompt leaves one token to each of those after it: decoding goes on beside prefill.
            num_after = len(running) - len(scheduled) - 1
            num_new = min(seq.num_tokens - seq.num_computed_tokens, max(1, budget - num_after))
            if shares:
                num_new = min(num_new, shares.get(seq.seq_id, num_new))
            num_new = self._step.room.fitting(seq, num_new)
            if num_new == 0:
                self._step.is_prompt_open = True
                continue
            if not self._reserve(seq, seq.num_computed_tokens + num_new, plan):
                break
            self._schedule(seq, num_new, plan)
            budget -= num_new
        plan.num_tokens = self._step.limit - budget

    def _plan_waiting(self, plan: StepPlan) -> None:
        line = self.places.waiting
        while line and self._has_seat(plan) and not self._step.is_prompt_open:
            seq = line.members[0]
            if self._step.end_order is not None and seq.order >= self._step.end_order:
                break
            slot = self.places.slot(seq)
            if slot is None:
                # Who waits for a slot is passed by those that need none, and by no other adapter: its turn comes when
                # the sequences that run now are through.
                line = self.places.plain
                continue
            if not self._admit_if_room(seq, slot, plan):
                break

    def _plan_passing(self, plan: StepPlan) -> None:
        """Those that may begin beside a prompt that is left open, if nothing planned before is in their way."""
        if not self._step.is_prompt_open or self._step.end_order is not None:
            return
        for seq in self._step.passing:
            slot = self.places.slot(seq)
            if seq.status is not Status.WAITING or slot is None or not self._has_seat(plan):
                continue
            if self._passing.is_apart(seq, self.places.running.members):
                self._admit_if_room(seq, slot, plan)

    def _has_seat(self, plan: StepPlan) -> bool:
        return plan.num_tokens < self._step.limit and len(self.places.running) < self._settings.max_num_seqs

    def _admit_if_room(self, seq: Sequence, slot: int, plan: StepPlan) -> bool:
        """Let a sequence that waits begin, if blocks and the step have room."""
        room, num_left = self._step.room, self._step.limit - plan.num_tokens
        if not self._settings.is_causal and seq.num_tokens > num_left:
            return False  # it has to be in one step
        hit = self.places.cache.match(seq)
        if not self.places.has_room(seq, hit) or room.with_rows(seq, 1) == 0:
            return False
        kept = Kept(hit.num_tokens) if self.places.kept is None else self.places.kept.read(seq, hit)
        start = max(kept.num_tokens, seq.num_swapped_tokens)
        if room.uncut(seq, min(seq.num_tokens - start, num_left), start) == 0:
            return False  # it begins with an image, or is a prompt, that this step has no room for
        self._admit(seq, hit, kept, slot, plan)
        return True

    def _admit(self, seq: Sequence, hit: Hit, kept: Kept, slot: int, plan: StepPlan) -> None:
        places = self.places
        places.enter(seq, hit, kept, slot)
        # At once: whatever interrupts a plan from here on, roll_back() takes it out again.
        self._step.admitted.append((seq, kept.num_tokens))
        places.share(seq, hit, kept)
        start = seq.num_computed_tokens
        num_new = min(seq.num_tokens - start, self._step.limit - plan.num_tokens)
        num_new = self._step.room.fitting(seq, num_new, start)
        end = start + num_new
        if places.tables.grow(seq.block_tables, hit.num_tokens, end) is None:
            raise InvariantError(f"sequence {seq.seq_id} was admitted without room for {end} tokens")
        places.host.swap_in(seq, hit.num_tokens, plan)
        if places.kept is not None:
            places.kept.fill(seq, kept, plan)
        places.cache.publish(seq, hit.num_tokens, start)
        self._schedule(seq, num_new, plan)
        plan.num_tokens += num_new

    def _schedule(self, seq: Sequence, num_new: int, plan: StepPlan) -> None:
        start = seq.num_computed_tokens
        end = start + num_new
        self._step.scheduled.append(seq)
        work = seq.work_for(num_new)
        plan.work.append(work)
        self._step.room.take(seq, start, end, len(work.prompt_targets))
        if num_new > 1:
            self._step.num_of_prompts += num_new
        self.places.cache.publish(seq, start, end)
        self.places.states.order(seq, work)
        if end == seq.num_tokens:
            if self._settings.lookahead:
                self._look_ahead(seq, end)
            # The next token needs a block if this one fills one; the one that fills a block publishes it.
            block_size = self._settings.block_size
            seq.quiet_until = end + (-end % block_size) - 1
        else:
            self._step.is_prompt_open = True

    def _look_ahead(self, seq: Sequence, end: int) -> None:
        """Blocks for the positions that follow, if they are free: nobody is preempted for a guess."""
        last = min(end + self._settings.lookahead, seq.max_len - 1)
        if last > end:
            # Beginning where the blocks it has end, so that a shared one is not copied for a guess.
            self.places.tables.grow(seq.block_tables, len(seq.block_tables[0]) * self.places.tables.block_size, last)

    def _reserve(self, seq: Sequence, end: int, plan: StepPlan) -> bool:
        """Find blocks up to position end, preempting the last in order. False: seq itself had to go."""
        self.places.let_go(seq)
        while (copies := self.places.tables.grow(seq.block_tables, seq.num_computed_tokens, end)) is None:
            victim = self._preempt(plan)
            if victim is seq:
                if not self.places.running:
                    raise InvariantError(f"sequence {seq.seq_id} alone does not fit with {end} tokens")
                return False
        if copies:
            plan.block_copies += copies
            self._step.copied.append(seq)
        return True

    def _make_room_for_priority(self, plan: StepPlan) -> None:
        """Let the first that waits take blocks (never a seat) from running ones of strictly worse priority."""
        while self.places.waiting and self.places.running and len(self.places.running) < self._settings.max_num_seqs:
            seq = self.places.waiting.members[0]
            if (
                choose_victim(self.places.running.members).request.priority <= seq.request.priority
                or self.places.slot(seq) is None
            ):
                return
            hit = self.places.cache.match(seq)
            if self.places.has_room(seq, hit):
                return
            self._preempt(plan)

    def _preempt(self, plan: StepPlan) -> Sequence:
        victim = choose_victim(self.places.running.members)
        num_tokens, is_held = victim.num_computed_tokens, victim.is_held
        self.places.let_go(victim)
        can_find = self.places.cache.is_enabled and victim.request.can_read_cache
        method = choose_method(
            num_alone=num_tokens - (self.places.tables.num_shared(victim.block_tables, num_tokens) if can_find else 0),
            num_blocks=self.places.tables.num_held(victim.block_tables, num_tokens),
            num_free=self.places.host.num_free,
            block_cost=self._settings.swap_cost_tokens,
        )
        if method == "swap" and not is_held:
            self.places.host.swap_out(victim, plan)
            self._counters.num_swap_outs += 1
        self.places.give_up(victim)
        if not is_held:
            self._preempted.append(victim)
        victim.request.progress.metrics.num_preemptions += 1
        self._counters.num_preemptions += 1
        return victim

    # -- after the step ------------------------------------------------------------------------------------------------

    def commit(self, started_s: float) -> None:
        """The step was executed: keep what it published, note who ran for the first time, and who was preempted."""
        self.places.cache.commit()
        self.places.host.commit()
        self._failed = []
        for seq in self._preempted:
            seq.preempted_at_s = started_s
        self._preempted.clear()
        for seq, num_cached in self._step.admitted:
            request = seq.request
            if seq.preempted_at_s is not None:
                seq.preempted_s += started_s - seq.preempted_at_s
                seq.preempted_at_s = None
                request.progress.metrics.preempted_s = max(request.progress.metrics.preempted_s, seq.preempted_s)
            if self.places.cache.is_enabled and request.can_read_cache:
                self._counters.prefix_cache_queries += seq.num_tokens
                self._counters.prefix_cache_hits += num_cached
            if request.progress.metrics.first_scheduled_s is None:
                request.progress.metrics.first_scheduled_s = started_s
                request.progress.num_cached_tokens = num_cached

    def executed(self, num_tokens: int, seconds: float) -> None:
        """After commit(): the step had so many tokens, and took so long."""
        if not self._step.room.has_tiles:
            self._pace.observe(num_tokens, self._step.num_of_prompts, seconds)
        if self.places.drafting is not None:
            self.places.drafting.executed(num_tokens, seconds)

    def advance(self, seq: Sequence) -> None:
        """After commit(): the last known token of a sequence was a draft of the step, so it is computed already."""
        start = seq.num_computed_tokens
        seq.num_computed_tokens = start + 1
        self.places.cache.publish(seq, start, start + 1)
        self.places.cache.commit()

    def take_back(self, seq: Sequence, num_computed_tokens: int) -> None:
        """After commit(): not all drafts of the step came true, and a state has seen them all."""
        if self.places.states.is_used:
            self.places.states.take_back(seq)
            seq.num_computed_tokens = num_computed_tokens
            seq.quiet_until = 0

    def roll_back(self) -> None:
        """The step failed: nothing it was to write may be used, by anyone.

        Those admitted in it go back to the waiting line (their hits may be on blocks never written), and so do those
        whose shared block was replaced by a copy not made. The others keep their blocks and their progress; but where
        sequences keep a state, which the step may have changed or not, all of them begin anew, from a snapshot.
        """
        self.places.cache.roll_back()
        self.places.host.roll_back()
        if self.places.drafting is not None:
            self.places.drafting.settle()
        self._failed = self._step.scheduled
        for seq in self._step.scheduled:
            seq.quiet_until = 0
        lost = [*self._step.copied, *(seq for seq, _ in self._step.admitted)]
        for seq in list(self.places.running) if self.places.states.is_used else lost:
            self.places.give_up(seq)
        self._was_open = True
        self._step = _Step(StepRoom(self._settings))

    def leave_out_last(self) -> Sequence | None:
        """After roll_back(): the next plan ends before the last in order of the one that failed.

        Unless that was alone, or would be: nobody before it finds the blocks to go on.

        Returns: which that is; None when the last step did not fail.
        """
        if not self._failed:
            return None
        last = max(self._failed, key=lambda seq: seq.order)
        if len(self._failed) > 1:
            self._end_order = last.order
        return last
