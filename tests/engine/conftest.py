"""A toy model behind the executor's contract, and a bench to drive the engine with it.

The toy's next token is a checksum of the whole history as it reads it back, slot by slot, from a simulated paged KV
store. So a wrong, missing, stale or overwritten block changes the tokens, and a sequence's tokens can be computed
without any engine (alone()).
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from albireo.api.requests.beam_search import sampling_of
from albireo.beam_search_params import BeamSearchParams
from albireo.engine.beam_limits import longest_beams
from albireo.engine.block_tables import blocks_needed
from albireo.engine.engine import Engine
from albireo.engine.request import SequenceUpdate
from albireo.engine.settings import EngineSettings
from albireo.params import PoolingParams, SamplingParams
from albireo.speculative.proposer import Method
from albireo.step import SampledToken, SampleTask, SequenceWork, StepPlan, StepResult, TokenLogprobs, snapshot_rows

VOCAB_SIZE = 40
EOS = 0


def checksum(tokens: Sequence[int], seed: int = 0) -> int:
    return zlib.crc32(bytes(tokens), seed & 0xFFFFFFFF)


def prefix_checksums(tokens: Sequence[int]) -> list[int]:
    values = [0]
    for token in tokens:
        values.append(zlib.crc32(bytes((token,)), values[-1]))
    return values[1:]


def next_token(history: Sequence[int], seed: int, masked: Collection[int] = ()) -> int:
    token = checksum(history, seed) % VOCAB_SIZE
    while token in masked:
        token = (token + 1) % VOCAB_SIZE
    return token


def likeliest(history: Sequence[int]) -> list[tuple[int, float]]:
    """Tokens and log-probabilities of what may come next, the best first."""
    values = [(token, -(1 + checksum(history, 100 + token) % 1000) / 128) for token in range(VOCAB_SIZE)]
    return sorted(values, key=lambda pair: -pair[1])


def search_alone(
    prompt: Sequence[int], asked: BeamSearchParams, longest: int, stops: Collection[int]
) -> list[tuple[list[int], str]]:
    """Outputs and finish reasons of a beam search, worked out without an engine, to the end of its length."""
    ends = set() if asked.ignore_eos else set(stops)
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[tuple[float, list[int], str]] = []

    def score(total: float, num: int) -> float:
        return total / (len(prompt) + num) ** asked.length_penalty

    for _ in range(longest - len(prompt)):
        grown = []
        for total, output in beams:
            for token, value in likeliest([*prompt, *output])[
                : max(2 * asked.beam_width, asked.beam_width + len(ends))
            ]:
                if token in ends:
                    done.append((score(total + value, len(output)), [*output, token], "stop"))
                else:
                    grown.append((total + value, [*output, token]))
        beams = sorted(grown, key=lambda beam: -beam[0])[: asked.beam_width]
    done += [(score(total, len(output)), output, "length") for total, output in beams]
    done.sort(key=lambda each: -each[0])
    return [(output, reason) for _, output, reason in done[: asked.beam_width]]


def toy_hidden(history: Sequence[int]) -> float:
    """The hidden state of the last token: it depends on all before. A small whole number, so that sums are exact."""
    return float(checksum(history, 5) % 1000)


def toy_embedding(prompt: Sequence[int], params: PoolingParams) -> list[float]:
    """Worked out without an engine."""
    states = [toy_hidden(prompt[: end + 1]) for end in range(len(prompt))]
    return [states[-1] if params.pooling_type != "mean" else sum(states) / len(states)]


class StepFailed(Exception):
    pass


class ToyExecutor:
    """Executes plans on a simulated KV store; checks each plan against the contract of step.py.

    It has two layers, as little as shows what a real model shows: the first stores tokens, the second, once all of the
    first is written, a checksum of the history up to each position. So a block holds more than its own tokens.
    """

    def __init__(self, settings: EngineSettings) -> None:
        size = settings.block_size
        self.settings = settings
        self.layers = [[[-1] * size for _ in range(settings.num_blocks)] for _ in range(2)]
        self.hosts = [[[-1] * size] * settings.num_host_blocks for _ in range(2)]
        self.fail_next: str | None = None
        self.num_computed_tokens = 0
        self.plans: list[dict[int, tuple[int, int, int]]] = []
        self.copies: list[list[tuple[int, int]]] = []
        self.num_swapped_in = self.num_filled = 0
        self.num_drafts = 0
        self._may_be_begun = False
        self._last_idx = -1
        #: what each slot of a recurrent layer keeps: how many tokens it has seen, and the checksum of them
        self.states: list[tuple[int, int] | None] = [None] * settings.num_state_slots
        #: whose, and behind how many tokens; and of each sequence that a device may have begun to compute one more
        #: token of: which position, and the order for a snapshot
        self.snapshots: list[tuple[int, int]] = []
        self._begun: dict[int, tuple[int, int, int]] = {}
        #: a dict a step: sequence -> the adapter in its slot
        self.adapters: list[dict[int, int | None]] = []

    def __call__(self, plan: StepPlan) -> StepResult:
        self._check(plan)
        if self.fail_next is not None:
            self._fail(plan)
        self._move(plan)
        for work in plan.work:
            self._recur(work)
        for work in plan.work:
            self._write(0, work, work.token_ids)
        histories = [self._read(0, work) for work in plan.work]
        for work, history in zip(plan.work, histories, strict=True):
            self._write(1, work, prefix_checksums(history)[work.num_computed_tokens :])
        self.num_computed_tokens += plan.num_tokens
        self.plans.append({w.seq_id: (w.num_computed_tokens, len(w.token_ids), len(w.samples)) for w in plan.work})
        self.copies.append(list(plan.block_copies))
        self.adapters.append(
            {w.seq_id: plan.adapters[w.adapter_slot] if w.adapter_slot >= 0 else None for w in plan.work}
        )
        result = StepResult([])
        for work, history in zip(plan.work, histories, strict=True):
            assert self._read(1, work) == prefix_checksums(history), "a block of another history was read"
            if self.states:
                assert self.states[work.state_slot] == (len(history), checksum(history)), "a state of another history"
            self._answer(work, history, result)
        return result

    def _move(self, plan: StepPlan) -> None:
        for layer, host in zip(self.layers, self.hosts, strict=True):
            for source, target in plan.swap_outs:
                host[target] = list(layer[source])
            for source, target in plan.block_copies:
                layer[target] = list(layer[source])
            for source, target in plan.swap_ins:
                layer[target] = list(host[source])
        for block, content in plan.fills:
            first, second = json.loads(content)
            self.layers[0][block], self.layers[1][block] = first, second
        self.num_swapped_in += len(plan.swap_ins)
        self.num_filled += len(plan.fills)
        for source, target in plan.state_copies:
            self.states[target] = self.states[source]
        for slot, content in plan.state_fills:
            seen, of_them = json.loads(content)
            self.states[slot] = (seen, of_them)

    def _recur(self, work: SequenceWork) -> None:
        """A third layer, which keeps no history, but what it has seen of it: computed twice, it would be another's."""
        if not self.states:
            assert work.state_slot == -1
            return
        if work.num_computed_tokens == 0:
            self.states[work.state_slot] = (0, 0)
        seen = self.states[work.state_slot]
        assert seen is not None and seen[0] == work.num_computed_tokens, "a state of other tokens is gone on from"
        if rows := work.snapshot_rows:
            self.states[work.snapshot_slot] = (seen[0] + rows, checksum(work.token_ids[:rows], seen[1]))
            self.snapshots.append((work.seq_id, seen[0] + rows))
        self.states[work.state_slot] = (seen[0] + len(work.token_ids), checksum(work.token_ids, seen[1]))

    def _check_states(self, plan: StepPlan) -> None:
        slots = [work.state_slot for work in plan.work]
        slots += [work.snapshot_slot for work in plan.work if work.snapshot_rows]
        assert len(set(slots)) == len(slots), "two in one slot"
        for work in plan.work:
            position, slot, at = self._begun.get(work.seq_id, (-1, -1, 0))
            if (work.num_computed_tokens, len(work.token_ids)) == (position, 1):
                begun = snapshot_rows(slot, at, position, 1)
                assert work.snapshot_rows == begun, "the device has begun this step without the snapshot"
                assert not begun or work.snapshot_slot == slot
        works = plan.work if self.settings.lookahead and not plan.waits else []
        self._begun = {
            work.seq_id: (work.num_computed_tokens + len(work.token_ids), work.snapshot_slot, work.snapshot_at)
            for work in works
            if len(work.samples) == 1 and work.samples[0].params.beam_search is None
        }

    def _check(self, plan: StepPlan) -> None:
        assert plan.work
        assert plan.step_idx > self._last_idx, "two steps of one number"
        self._last_idx = plan.step_idx
        assert plan.num_tokens == sum(len(work.token_ids) for work in plan.work)
        assert plan.num_tokens <= self.settings.max_num_batched_tokens
        self._check_drafts(plan)
        assert len({work.seq_id for work in plan.work}) == len(plan.work) <= self.settings.max_num_seqs
        if self.states:
            self._check_states(plan)
        for moves in (plan.swap_outs, [*plan.swap_ins, *((content, block) for block, content in plan.fills)]):
            assert len({target for _, target in moves}) == len(moves), "a block is written twice"
        writers: dict[int, tuple[int, int]] = {}
        size, limit = self.settings.block_size, self.settings.max_num_batched_tokens
        for work in plan.work:
            assert len(work.token_ids) >= 1
            assert len(work.block_tables) == len(self.settings.windows)
            for group, table in enumerate(work.block_tables):
                first = self._seen(group, work.num_computed_tokens).start // self.settings.block_size
                assert 0 not in table[first:], "the null block is looked into"
                # blocks are let go when others are needed; a place looked ahead to is one more
                most = blocks_needed(len(table) * size, size, (self.settings.windows[group],), limit) + 1
                assert len(table) - table.count(0) <= most, "blocks are held that nobody looks into"
                for position in self._positions(work):
                    block, writer = table[position // self.settings.block_size], (work.seq_id, group)
                    assert writers.setdefault(block, writer) == writer, "two sequences or groups write one block"
        for work in plan.work:
            for group, table in enumerate(work.block_tables):
                own = table[work.num_computed_tokens // self.settings.block_size :]
                assert all(writers.get(block, (work.seq_id, group)) == (work.seq_id, group) for block in own), "no hit"

    def _check_drafts(self, plan: StepPlan) -> None:
        assert plan.num_drafts == sum(work.num_drafts for work in plan.work) <= self.settings.max_draft_rows
        self.num_drafts += plan.num_drafts
        # else a device that runs ahead has begun it without them
        assert not (plan.num_drafts and self._may_be_begun)
        self._may_be_begun = self.settings.lookahead > 0 and not plan.waits
        assert not plan.waits or self.settings.lookahead
        for work in plan.work:
            assert len(work.draft_token_ids) == work.num_drafts < len(work.token_ids)
            if work.num_drafts:
                (task,) = work.samples
                num_known = len(task.prompt_token_ids) + len(task.output_token_ids)
                assert work.num_computed_tokens + len(work.token_ids) - work.num_drafts == num_known
                assert work.prompt_logprobs is None and work.pooling is None

    def _positions(self, work: SequenceWork) -> range:
        return range(work.num_computed_tokens, work.num_computed_tokens + len(work.token_ids))

    def _seen(self, group: int, position: int) -> range:
        """Positions before this one that the token at it looks at."""
        window = self.settings.windows[group]
        return range(0 if window is None else max(0, position - window + 1), position)

    def _slots(self, layer: int, work: SequenceWork, group: int, positions: range) -> list[tuple[list[int], int]]:
        """(block, offset) of each position."""
        size, table = self.settings.block_size, work.block_tables[group]
        return [(self.layers[layer][table[position // size]], position % size) for position in positions]

    def _write(self, layer: int, work: SequenceWork, values: Sequence[int]) -> None:
        for group in range(len(work.block_tables)):
            slots = self._slots(layer, work, group, self._positions(work))
            for (block, offset), value in zip(slots, values, strict=True):
                block[offset] = value

    def _read(self, layer: int, work: SequenceWork) -> list[int]:
        """The whole history, by the first group, which has no window; others must agree in what they see of it."""
        end = work.num_computed_tokens + len(work.token_ids)
        whole: list[int] = []
        for group in range(len(work.block_tables)):
            seen = range(self._seen(group, work.num_computed_tokens).start, end)
            found = [block[offset] for block, offset in self._slots(layer, work, group, seen)]
            whole = whole or found
            assert found == whole[seen.start :], "the groups disagree"
        assert all(value >= 0 for value in whole), f"garbage or nothing read: {whole}"
        return whole

    def _fail(self, plan: StepPlan) -> None:
        """Die before or within the writing; then leaving garbage in every slot the plan may write."""
        how, self.fail_next = self.fail_next, None
        if how != "before":
            for layer, blocks in enumerate(self.layers):
                for target in (*(target for _, target in (*plan.block_copies, *plan.swap_ins)), *dict(plan.fills)):
                    blocks[target] = [-2] * self.settings.block_size
                for _, target in plan.swap_outs:
                    self.hosts[layer][target] = [-2] * self.settings.block_size
                for work in plan.work:
                    self._write(layer, work, [-2] * len(work.token_ids))
            written = [slot for work in plan.work for slot in (work.state_slot, work.snapshot_slot) if slot >= 0]
            for slot in (*written, *(target for _, target in plan.state_copies), *dict(plan.state_fills)):
                self.states[slot] = None
            self._begun.clear()
        raise StepFailed(how)

    def _answer(self, work: SequenceWork, history: list[int], result: StepResult) -> None:
        if work.prompt_logprobs is not None:
            ends = range(work.num_computed_tokens + 1, work.num_computed_tokens + 1 + len(work.prompt_targets))
            result.prompt_logprobs[work.seq_id] = [
                TokenLogprobs([target], [-float(checksum(history[:end]))], [1])
                for end, target in zip(ends, work.prompt_targets, strict=True)
            ]
        if work.pooling is not None:
            result.pooled[work.seq_id] = self._pool(work, history)
        known = history[: len(history) - work.num_drafts]
        for task in work.samples:
            assert known == [*task.prompt_token_ids, *task.output_token_ids], "the history read back is another's"
            result.tokens.append(self._sample(task, known))
        for num, draft in enumerate(work.draft_token_ids, 1):
            if result.tokens[-1].token_id != draft:
                break
            task = work.samples[0].after([*work.samples[0].output_token_ids, *work.draft_token_ids[:num]])
            result.tokens.append(self._sample(task, history[: len(known) + num]))

    def _pool(self, work: SequenceWork, history: list[int]) -> list[float]:
        task = work.pooling
        assert task is not None and not work.samples and 1 <= task.num_rows <= len(work.token_ids)
        first = len(history) - task.num_rows
        states = [toy_hidden(history[: end + 1]) for end in range(first, len(history))]
        if task.params.pooling_type == "last":
            assert task.is_last and task.num_rows == 1
            return states
        assert task.num_earlier == first, "a token is left out, or counted twice"
        total = sum(task.sums) + sum(states)
        return [total / len(history) if task.is_last else total]

    def _sample(self, task: SampleTask, history: list[int]) -> SampledToken:
        if task.params.beam_search is not None:
            assert task.params.logprobs is not None
            best = likeliest(history)[: VOCAB_SIZE if task.params.logprobs < 0 else task.params.logprobs]
            ids, values = [token for token, _ in best], [value for _, value in best]
            return SampledToken(task.seq_id, ids[0], TokenLogprobs(ids, values, list(range(1, 1 + len(ids)))))
        masked = task.stop_token_ids if len(task.output_token_ids) < task.params.min_tokens else ()
        token = next_token(history, task.seed, masked)
        wanted = task.params.logprobs is not None
        return SampledToken(task.seq_id, token, TokenLogprobs([token], [-1.0], [1]) if wanted else None)


class ToyFiles:
    """Blocks kept outside the toy's KV store, of which any may be lost.

    Attributes: content_of: what is kept, by key; it outlives the engine.
    """

    def __init__(self, content_of: dict[bytes, bytes], toy: ToyExecutor) -> None:
        self.content_of, self._toy = content_of, toy
        self.num_read = 0

    def has(self, key: bytes) -> bool:
        return key in self.content_of

    def read(self, keys: Sequence[bytes]) -> list[bytes]:
        found = list(itertools.takewhile(bool, map(self.content_of.get, keys)))
        self.num_read += len(found)
        return [content for content in found if content]

    def keep(self, blocks: Sequence[tuple[bytes, int]]) -> None:
        for key, block in blocks:
            layers = [layer[block] for layer in self._toy.layers]
            assert min(map(min, layers)) >= 0, "a block is kept that was not written"
            kept = json.dumps(layers).encode()
            assert self.content_of.setdefault(key, kept) == kept, "two contents go by one key"

    def has_state(self, key: bytes) -> bool:
        return self.has(key + b"state")

    def read_state(self, key: bytes) -> bytes | None:
        return self.content_of.get(key + b"state")

    def keep_state(self, key: bytes, slot: int) -> None:
        state = json.dumps(self._toy.states[slot]).encode()
        assert self.content_of.setdefault(key + b"state", state) == state, "two states go by one key"

    def remove(self) -> None:
        self.content_of.clear()

    def close(self) -> None: ...


def alone(
    prompt: Sequence[int], params: SamplingParams, seed: int, longest: int
) -> tuple[list[int], str, int | str | None]:
    """Tokens, finish reason and stop reason of one sequence, worked out without an engine."""
    eos = set() if params.ignore_eos else {EOS}
    stops = eos | set(params.stop_token_ids or ())
    tokens: list[int] = []
    while True:
        tokens.append(next_token([*prompt, *tokens], seed, stops | {EOS} if len(tokens) < params.min_tokens else ()))
        if tokens[-1] in stops:
            return tokens, "stop", None if tokens[-1] in eos else tokens[-1]
        if len(tokens) == params.max_tokens or len(prompt) + len(tokens) >= longest:
            return tokens, "length", None


@dataclass
class Bench:
    """An engine on the toy, a clock that counts, and all that was reported, checked as it comes.

    kept: of blocks outside the KV store, by key; None: none are.
    """

    settings: EngineSettings
    method: Method | None = None
    kept: dict[bytes, bytes] | None = None
    files: ToyFiles | None = field(init=False)
    engine: Engine = field(init=False)
    toy: ToyExecutor = field(init=False)
    now: float = 0.0
    tokens: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    ends: dict[tuple[str, int], tuple[Any, Any]] = field(default_factory=dict)
    last: dict[str, SequenceUpdate] = field(default_factory=dict)
    added: dict[str, tuple[list[int], SamplingParams]] = field(default_factory=dict)
    pooling: dict[str, PoolingParams] = field(default_factory=dict)
    embeddings: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.toy = ToyExecutor(self.settings)
        self.files = None if self.kept is None else ToyFiles(self.kept, self.toy)
        self.engine = Engine(self.settings, self.toy, self._clock, self.method, self.files)

    def _clock(self) -> float:
        self.now += 1.0
        return self.now

    def add(self, prompt: Sequence[int], request_id: str | None = None, **kwargs: Any) -> str:
        request_id = str(len(self.added)) if request_id is None else request_id
        names = ("priority", "cache_salt", "arrival_s", "earlier", "pooling", "adapter", "images", "constraint")
        own = {name: kwargs.pop(name) for name in names if name in kwargs}
        beams = kwargs.pop("beam_search", None)
        params = SamplingParams(**{"ignore_eos": True, "seed": 7, **kwargs})
        if beams is not None:
            params = sampling_of(beams, **kwargs)
        self.engine.add_request(request_id, prompt, params, **own)
        self.added[request_id] = (list(prompt), params)
        if own.get("pooling") is not None:
            self.pooling[request_id] = own["pooling"]
        self.engine.check_invariants()
        return request_id

    def step(self, fail: str | None = None) -> list[SequenceUpdate]:
        self.toy.fail_next = fail
        updates = self.engine.step()
        self.record(updates)
        return updates

    def record(self, updates: list[SequenceUpdate]) -> None:
        self.engine.check_invariants()
        for update in updates:
            key = (update.request_id, update.index)
            assert key not in self.ends, "reported after its end"
            assert update.request_id not in self.last, "reported after its request's end"
            self.tokens.setdefault(key, []).extend(update.token_ids)
            if update.embedding is not None:
                assert update.is_request_finished and not update.token_ids
                self.embeddings[update.request_id] = update.embedding
            if update.finish_reason is not None:
                self.ends[key] = (update.finish_reason, update.stop_reason)
            if update.is_request_finished:
                self.last[update.request_id] = update

    def abort(self, request_id: str) -> list[SequenceUpdate]:
        updates = self.engine.abort(request_id)
        self.record(updates)
        return updates

    def finish(self, request_id: str, index: int) -> SequenceUpdate | None:
        updates = self.engine.finish(request_id, index, "stop", "END")
        self.record(updates)
        return updates[0] if updates else None

    def run(self, max_steps: int = 3000) -> int:
        """Step until nothing is left. Returns: how many steps it took; fails when that is too many."""
        for count in range(max_steps):
            if not self.engine.has_work():
                return count
            self.step()
        raise AssertionError(f"still at work after {max_steps} steps: {self.engine.stats()}")

    def check_all_ended(self) -> None:
        """Nothing is held, every continuation ended once, and each has the tokens it gets alone."""
        stats = self.engine.stats()
        assert (stats.kv_cache_usage, stats.num_requests_running, stats.num_requests_waiting) == (0.0, 0, 0)
        assert set(self.last) == set(self.added)
        assert sum(stats.finished.values()) == len(self.ends)
        for request_id, (prompt, params) in self.added.items():
            for index in range(params.n):
                self._check_end(request_id, index, prompt, params)

    def _check_end(self, request_id: str, index: int, prompt: list[int], params: SamplingParams) -> None:
        reason, stop_reason = self.ends[request_id, index]
        if request_id in self.pooling:
            wanted = toy_embedding(prompt, self.pooling[request_id])
            is_done = (reason, stop_reason) == ("stop", None)
            assert self.embeddings.get(request_id) == (wanted if is_done else None)
            return
        got = self.tokens[request_id, index]
        if params.beam_search is not None:
            most = len(prompt) + (params.max_tokens or self.settings.max_model_len)
            longest = longest_beams(len(prompt), min(most, self.settings.max_model_len), params, self.settings)
            found = search_alone(prompt, params.beam_search, longest, self.settings.eos_token_ids)[index]
            assert (got, reason) == (([], reason) if reason == "abort" or stop_reason == "END" else found)
            return
        assert params.seed is not None
        longest = self.settings.max_model_len
        if params.max_tokens is None:
            longest = min(longest, self.settings.capacity_tokens + 1)
        expected = alone(prompt, params, params.seed + index, longest)
        if reason == "abort" or stop_reason == "END":
            assert got == expected[0][: len(got)]
        else:
            assert (got, reason, stop_reason) == expected


def make_bench(method: Method | None = None, kept: dict[bytes, bytes] | None = None, **kwargs: Any) -> Bench:
    """A bench with one group of 63 usable blocks of 8, unless told otherwise. Args: see Bench; method: of drafts."""
    defaults = {
        "num_blocks": 64,
        "block_size": 8,
        "max_model_len": 200,
        "vocab_size": VOCAB_SIZE,
        "embedding_size": 1,
    }
    return Bench(EngineSettings(**{**defaults, "eos_token_ids": frozenset({EOS}), **kwargs}), method, kept)


@pytest.fixture(scope="session")
def bench() -> Any:
    """make_bench(**settings) -> Bench."""
    return make_bench


@pytest.fixture(scope="session")
def step_failed() -> type[Exception]:
    """What the toy raises when told to fail."""
    return StepFailed
