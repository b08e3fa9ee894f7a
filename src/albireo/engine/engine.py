"""The engine: add requests, step until there is no work. One step is plan, execute, commit, report.

Called by front doors (api), from one thread, between steps. Does not know text: a stop string is found above and told
by finish(). Does not know devices: it is given execute(plan) -> result. Does not know wall clocks: it is given one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Seq

from albireo.engine.answer import check_answer
from albireo.engine.beams import Beams, Branch
from albireo.engine.kept_prefixes import BlockFiles
from albireo.engine.pooling import pooling_of
from albireo.engine.prefix_cache import root_key
from albireo.engine.request import (
    Earlier,
    MakeBudget,
    Request,
    RequestProgress,
    Sequence,
    SequenceUpdate,
    Status,
    build_request,
    check_earlier,
    check_request,
)
from albireo.engine.scheduler import Scheduler
from albireo.engine.settings import EngineSettings
from albireo.engine.stats import Counters, EngineStats, snapshot
from albireo.errors import InvalidParams, InvariantError
from albireo.image_input import ImageInput
from albireo.outputs import FinishReason, RequestMetrics
from albireo.params import PoolingParams, SamplingParams
from albireo.repetition_params import REASON, RepetitionDetectionParams
from albireo.speculative.proposer import Method
from albireo.step import Floats, SampledToken, SequenceWork, StepPlan, StepResult, TokenConstraint, TokenLogprobs


class Engine:
    """Invariants:
    1. every request ends exactly once, and so does every sequence: in one update of step(), abort() or finish();
    2. when execute() raises, no sequence has advanced, and step() can be called again;
    3. a finished sequence holds no block.
    """

    def __init__(
        self,
        settings: EngineSettings,
        execute: Callable[[StepPlan], StepResult],
        clock: Callable[[], float],
        method: Method | None = None,
        files: BlockFiles | None = None,
    ) -> None:
        """Args: method: how drafts are made; None: as settings.speculative says. files: where blocks of sequences that
        are over are kept; None: nowhere."""
        self._settings = settings
        self._execute = execute
        self._clock = clock
        self._counters = Counters()
        self._scheduler = Scheduler(settings, self._counters, method, files)
        self._requests: dict[str, Request] = {}
        #: Unfinished requests, by adapter: each step asks which there are.
        self._num_with_adapter: Counter[int] = Counter()
        self._num_requests = 0
        self._num_sequences = 0

    # -- requests ------------------------------------------------------------------------------------------------------

    def add_request(
        self,
        request_id: str,
        prompt_token_ids: Iterable[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        cache_salt: str | None = None,
        arrival_s: float | None = None,
        constraint: TokenConstraint | None = None,
        earlier: Earlier | None = None,
        pooling: PoolingParams | None = None,
        budget: MakeBudget | None = None,
        adapter: int | None = None,
        images: Seq[ImageInput] = (),
    ) -> range:
        """Let a request wait for its turn.

        Args:
            pooling: the prompt's embedding is wanted, and nothing else: params are those of one sequence, and unread.
            earlier: output that its continuations have from another engine, which they go on from as if they had it
                from this one: it counts as output, and the next tokens are those that would have come. The request
                must name its seed; log-probabilities of the prompt are not given again.
            priority: lower runs earlier; needs scheduling_policy "priority".
            cache_salt: prefix-cache blocks are shared only among requests of the same salt.
            arrival_s: when it came in, on the engine's clock; None: now.
            constraint: params.structured_outputs, compiled.
            budget: makes what watches params.thinking_token_budget, once a continuation.
            adapter: the number of what is added to the model's weights; what it stands for never changes.
            images: of the prompt, in the order of their places in it.
        Returns: ids of its sequences, as plans name them.
        Raises: InvalidParams, PromptTooLong, UnsupportedFeature: it is refused, nothing else has changed.
        """
        if request_id in self._requests:
            raise InvalidParams(f"request id {request_id!r} is in use; give each request its own")
        prompt = list(prompt_token_ids)
        max_len = check_request(prompt, params, priority, self._settings, pooling, images)
        if earlier is not None:
            check_earlier(earlier, len(prompt), max_len, params)
        metrics = RequestMetrics(self._clock() if arrival_s is None else arrival_s)
        progress = RequestProgress(metrics, prompt_logprobs=None if params.prompt_logprobs is None else [])
        wanted = None if pooling is None else pooling_of(pooling, self._settings)
        if adapter is not None and not self._settings.num_adapter_slots:
            raise InvariantError("a request has an adapter, and there are no slots for any")
        root = root_key(cache_salt, adapter)
        request = Request(
            request_id, prompt, params, priority, root, progress, constraint, budget, wanted, adapter, tuple(images)
        )
        build_request(
            request,
            max_len=max_len,
            arrival_idx=self._num_requests,
            first_seq_id=self._num_sequences,
            settings=self._settings,
            earlier=earlier,
        )
        self._num_requests += 1
        self._num_sequences += params.n
        self._requests[request_id] = request
        if adapter is not None:
            self._num_with_adapter[adapter] += 1
        # Before the prompt is computed one goes for all.
        ready = request.unfinished()
        for seq in ready if request.is_prompt_done else ready[:1]:
            self._scheduler.places.add(seq)
        return range(request.sequences[0].seq_id, self._num_sequences)

    def abort(self, request_id: str) -> list[SequenceUpdate]:
        """End a request on its caller's wish; safe at any time between steps, also for one that is unknown or over.

        Returns: the last update of each continuation that was not finished; the last of them ends the request.
        """
        request = self._requests.get(request_id)
        if request is None:
            return []
        # Backwards, so that nobody takes the place of the first, which may be computing the prompt for all.
        return [self._end_from_outside(seq, "abort", None) for seq in reversed(request.unfinished())]

    def finish(
        self, request_id: str, index: int, reason: FinishReason, stop_reason: int | str | None = None
    ) -> list[SequenceUpdate]:
        """End one continuation, as when its text holds a stop string, or all of a beam search, which is none without
        one of its beams; safe as abort() is.

        Returns: their last updates; none if it was finished already.
        """
        request = self._requests.get(request_id)
        if request is None or request.sequences[index].status is Status.FINISHED:
            return []
        ending = [request.sequences[index]] if request.beams is None else reversed(request.unfinished())
        return [self._end_from_outside(seq, reason, stop_reason) for seq in ending]

    def owner(self, seq_id: int) -> tuple[str, int] | None:
        """Whose sequence this is, of those not finished: (request_id, index). Cost: O(sequences); for error reports."""
        for request in self._requests.values():
            for seq in request.unfinished():
                if seq.seq_id == seq_id:
                    return request.request_id, seq.index
        return None

    def continuations(self) -> list[tuple[str, int]]:
        """All that are not finished, as owner() names them."""
        return [(request.request_id, seq.index) for request in self._requests.values() for seq in request.unfinished()]

    def adapters(self) -> tuple[set[int], set[int]]:
        """Numbers of the adapters of sequences that run, and of requests that are not finished."""
        if not self._settings.num_adapter_slots:
            return set(), set()  # every step asks
        running = {seq.request.adapter for seq in self._scheduler.places.running}
        return {n for n in running if n is not None}, set(self._num_with_adapter)

    def reset_prefix_cache(self, *, with_files: bool = False) -> None:
        """Between steps: no prompt finds anything of what was computed until now. What runs goes on as it is, and when
        it ends it is kept as ever.

        Args: with_files: what is kept in files is removed, too.
        """
        self._scheduler.places.cache.reset()
        if with_files and self._scheduler.places.kept is not None:
            self._scheduler.places.kept.remove()

    def has_work(self) -> bool:
        """Whether step() would do anything."""
        return bool(self._requests)

    def stats(self) -> EngineStats:
        """A snapshot; cheap enough for every step."""
        host = self._scheduler.places.host
        return snapshot(
            self._counters,
            num_running=len(self._scheduler.places.running),
            num_waiting=len(self._scheduler.places.waiting) - host.num_sequences,
            num_swapped=host.num_sequences,
            kv_cache_usage=self._scheduler.places.tables.usage_frac,
            cpu_cache_usage=host.usage_frac,
        )

    def blocks(self) -> tuple[list[Sequence], list[int]]:
        """Who holds blocks, to be looked at between steps only; and the blocks of the first group that nobody holds but
        a prefix may find, those evicted first before."""
        return list(self._scheduler.places.running), self._scheduler.places.tables.pool.cached()

    def state_slots(self) -> tuple[int, int, int] | None:
        """Slots of states: held by sequences that run, those with snapshots, all. None where layers keep no states."""
        states = self._scheduler.places.states
        return states.usage if states.is_used else None

    # -- the step ------------------------------------------------------------------------------------------------------

    def step(self) -> list[SequenceUpdate]:
        """Advance every sequence that fits the budget.

        Returns: one update a sequence that got a token, in the plan's order; empty when prompts go on or without work.
        Raises: whatever execute() raised. Then nothing has advanced; abort what is to blame and step again.
        """
        if not self._requests:
            return []
        started_s = self._clock()
        plan = self._plan()
        result = self._run(plan)
        now = self._clock()
        self._commit(plan, result, started_s, now)
        return self._report(plan, result, now)

    def leave_out_last(self) -> tuple[str, int] | None:
        """A step was too much for the device: the next goes without the last sequence of it, unless that was alone.

        It stays where it was, with its blocks, and is in the step after the next again.
        Returns: whose it is, as owner() names it; None when the last step did not fail.
        """
        seq = self._scheduler.leave_out_last()
        return None if seq is None else (seq.request.request_id, seq.index)

    def _plan(self) -> StepPlan:
        try:
            return self._scheduler.plan()
        except BaseException:  # somebody interrupts, while a draft model guesses
            self._scheduler.roll_back()
            raise

    def _run(self, plan: StepPlan) -> StepResult:
        try:
            result = self._execute(plan)
            check_answer(plan, result)
        except BaseException:
            self._counters.num_failed_steps += 1
            self._scheduler.roll_back()
            raise
        return result

    def _commit(self, plan: StepPlan, result: StepResult, started_s: float, now: float) -> None:
        """Advance the progress counters."""
        self._scheduler.commit(started_s)
        self._scheduler.executed(plan.num_tokens, now - started_s)
        self._counters.num_steps += 1
        self._counters.num_computed_tokens += plan.num_tokens
        self._counters.generation_tokens += len(result.tokens)
        for seq, work in zip(self._scheduler.scheduled, plan.work, strict=True):
            seq.num_computed_tokens += len(work.token_ids)
            if work.pooling is not None and not work.pooling.is_last:
                assert seq.request.pooling is not None, "asked for"
                seq.request.pooling.take(work.pooling, result.pooled[seq.seq_id])
            if not seq.request.is_prompt_done:
                seq.request.progress.metrics.num_prefill_chunks += 1
            if work.prompt_logprobs is not None:
                collected = seq.request.progress.prompt_logprobs
                assert collected is not None, "asked for"
                # After a preemption the first rows come a second time.
                collected += result.prompt_logprobs[seq.seq_id][len(collected) - work.num_computed_tokens :]

    def _report(self, plan: StepPlan, result: StepResult, now: float) -> list[SequenceUpdate]:
        """Give the drawn tokens to their sequences, and end those that are done."""
        updates: list[SequenceUpdate] = []
        tokens = iter(result.tokens)
        has_drafts = plan.num_drafts > 0
        for seq, work in zip(self._scheduler.scheduled, plan.work, strict=True):
            if work.pooling is not None and work.pooling.is_last:
                assert seq.request.pooling is not None, "asked for"
                updates.append(self._end_embedding(seq, seq.request.pooling.ended(result.pooled[seq.seq_id]), now))
            if not work.samples:
                continue
            if seq.request.beams is not None:
                updates += self._offer(seq, seq.request.beams, next(tokens), now)
            elif not seq.request.is_prompt_done:
                self._end_prompt(seq.request, now)
                for sibling in self._scheduler.places.fork(seq):  # each draws a token from its last row
                    updates.append(self._append(sibling, next(tokens), now))
            elif has_drafts and work.num_drafts:
                updates.append(self._append_drafted(seq, work, tokens, now))
            else:
                updates.append(self._append(seq, next(tokens), now))
        if self._scheduler.places.drafting is not None:
            self._scheduler.places.drafting.settle()
        return updates

    def _end_prompt(self, request: Request, now: float) -> None:
        """The prompt is computed."""
        request.is_prompt_done = True
        request.progress.metrics.first_token_s = now
        self._counters.prompt_tokens += len(request.prompt_token_ids)

    def _offer(self, seq: Sequence, beams: Beams, sampled: SampledToken, now: float) -> list[SequenceUpdate]:
        """What may follow a beam is known; once it is of all, a round of the search is over, and perhaps the last."""
        request = seq.request
        if not request.is_prompt_done:
            self._end_prompt(request, now)
        request.progress.metrics.last_token_s = now
        seq.quiet_until = 0
        if not beams.offer(seq.index, sampled.logprobs):
            return []
        branches = beams.next_round()
        if not branches:
            return self._end_search(request, beams, now)
        self._branch(request.sequences, branches)
        return [self._update(request.sequences[0])]

    def _branch(self, sequences: list[Sequence], branches: list[Branch]) -> None:
        """Let the sequences of a beam search be the beams of its next round."""
        for index in set(range(len(sequences))).difference(branch.index for branch in branches):
            self._scheduler.places.park(sequences[index])
        for branch in branches:
            seq, parent = sequences[branch.index], sequences[branch.parent]
            if seq is not parent:
                seq.output_token_ids[:] = parent.output_token_ids
                seq.num_tokens = parent.num_tokens
                self._scheduler.places.branch(parent, seq)
        for branch in branches:
            sequences[branch.index].append(branch.token_id)
            self._scheduler.places.go_on(sequences[branch.index])

    def _end_search(self, request: Request, beams: Beams, now: float) -> list[SequenceUpdate]:
        """Each continuation is one of the results, the best the first."""
        updates = []
        for seq, ended in zip(request.sequences, beams.results(), strict=True):
            update = self._update(seq, *ended.output())
            stop = None if ended.stop_token in self._settings.eos_token_ids else ended.stop_token
            self._end(seq, update, ended.reason, stop, now)
            updates.append(update)
        return updates

    def _end_embedding(self, seq: Sequence, embedding: Floats, now: float) -> SequenceUpdate:
        """The prompt is computed, and that was all."""
        request, progress = seq.request, seq.request.progress
        request.is_prompt_done = True
        progress.metrics.first_token_s = progress.metrics.last_token_s = now
        self._counters.prompt_tokens += len(request.prompt_token_ids)
        update = SequenceUpdate(request.request_id, seq.index, [], None, None, None, False, progress, embedding)
        self._end(seq, update, "stop", None, now)
        return update

    def _append_drafted(
        self, seq: Sequence, work: SequenceWork, tokens: Iterator[SampledToken], now: float
    ) -> SequenceUpdate:
        """The token of a sequence that had drafts, and one more for each that came true, up to its end."""
        # Counted as computed with the others; those that come true are again, one by one.
        num_known = seq.num_computed_tokens = seq.num_computed_tokens - work.num_drafts
        sampled = next(tokens)
        update = self._append(seq, sampled, now)
        num_accepted = 0
        for draft in work.draft_token_ids:
            if sampled.token_id != draft:
                break
            num_accepted += 1
            sampled = next(tokens)
            if update.finish_reason is None:
                self._scheduler.advance(seq)
                update.go_on(self._append(seq, sampled, now))
            else:
                self._counters.generation_tokens -= 1
        if num_accepted < work.num_drafts and update.finish_reason is None:
            self._scheduler.take_back(seq, num_known)
        assert self._scheduler.places.drafting is not None, "it made them"
        self._scheduler.places.drafting.judged(work.num_drafts, num_accepted)
        return update

    def _append(self, seq: Sequence, sampled: SampledToken, now: float) -> SequenceUpdate:
        token = sampled.token_id
        seq.append(token)
        seq.request.progress.metrics.last_token_s = now
        update = self._update(seq, [token], None if sampled.logprobs is None else [sampled.logprobs])
        if token in seq.stop_ids or seq.num_tokens >= seq.max_len:
            self._finish_if_done(seq, update, now)
        repeats = seq.request.params.repetition_detection
        if repeats is not None and update.finish_reason is None and self._repeats_itself(seq, repeats):
            self._end(seq, update, "repetition", REASON, now)
        return update

    def _repeats_itself(self, seq: Sequence, repeats: RepetitionDetectionParams) -> bool:
        output = seq.output_token_ids
        return len(output) >= seq.request.params.min_tokens and repeats.ends(output)

    def _finish_if_done(self, seq: Sequence, update: SequenceUpdate, now: float) -> None:
        token = update.token_ids[-1]
        params = seq.request.params
        is_constrained = seq.request.constraint is not None
        is_eos = (is_constrained or not params.ignore_eos) and token in self._settings.eos_token_ids
        # Where a grammar leaves nothing but EOS, it ends the sequence however short.
        is_end = len(seq.output_token_ids) >= params.min_tokens or (is_constrained and is_eos)
        if token in seq.stop_ids and is_end:
            self._end(seq, update, "stop", None if is_eos else token, now)
        elif seq.num_tokens >= seq.max_len:
            self._end(seq, update, "length", None, now)

    def _update(
        self, seq: Sequence, token_ids: list[int] | None = None, logprobs: list[TokenLogprobs] | None = None
    ) -> SequenceUpdate:
        """What a sequence has more; it goes on."""
        request = seq.request
        return SequenceUpdate(
            request.request_id, seq.index, token_ids or [], logprobs, None, None, False, request.progress
        )

    # -- the end -------------------------------------------------------------------------------------------------------

    def _end_from_outside(self, seq: Sequence, reason: FinishReason, stop_reason: int | str | None) -> SequenceUpdate:
        update = self._update(seq)
        self._end(seq, update, reason, stop_reason, self._clock())
        return update

    def _end(
        self, seq: Sequence, update: SequenceUpdate, reason: FinishReason, stop_reason: int | str | None, now: float
    ) -> None:
        request = seq.request
        was_forked = seq.status is not Status.UNFORKED
        self._scheduler.places.remove(seq)
        self._counters.finished[reason] += 1
        update.finish_reason, update.stop_reason = reason, stop_reason
        request.num_unfinished -= 1
        if request.num_unfinished == 0:
            update.is_request_finished = True
            request.progress.metrics.finished_s = now
            del self._requests[request.request_id]
            if request.adapter is not None:
                self._num_with_adapter[request.adapter] -= 1
                if not self._num_with_adapter[request.adapter]:
                    del self._num_with_adapter[request.adapter]
        elif was_forked and not request.is_prompt_done:
            # It was computing the prompt for all; the next one takes over (and finds its blocks in the prefix cache).
            self._scheduler.places.add(request.unfinished()[0])

    def check_invariants(self) -> None:
        """Raises: InvariantError when the books do not balance. Cost: O(everything); for tests."""
        self._scheduler.places.check_invariants(list(self._requests.values()))
        for request in self._requests.values():
            if request.num_unfinished != len(request.unfinished()) or request.num_unfinished == 0:
                raise InvariantError(f"request {request.request_id!r} miscounts: {request.num_unfinished} unfinished")
