"""Random arrivals, priorities, cancels, failing steps, shared prefixes and tiny pools: the engine keeps its promises.

After every step the books balance; at the end nothing is held, and every continuation has the tokens it gets alone.
"""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.beam_search_params import BeamSearchParams
from albireo.engine.block_tables import blocks_needed
from albireo.errors import InvalidParams, PromptTooLong
from albireo.params import PoolingParams
from albireo.step import TokenLogprobs
from more_examples import more_examples

STEMS = [[(i * 7 + stem * 3) % 39 + 1 for i in range(48)] for stem in range(3)]

setups = st.fixed_dictionaries(
    {
        "num_blocks": st.one_of(st.integers(5, 9), st.integers(10, 30), st.just(80)),
        "windows": st.sampled_from([(None,), (None,), (None, 9), (None, 1), (None, 20, 20), (None, 4, 17)]),
        "max_model_len": st.sampled_from([24, 33, 64]),
        "max_num_seqs": st.integers(1, 6),
        "max_num_batched_tokens": st.sampled_from([1, 3, 8, 13, 30, 64]),
        # by the clock of the tests a step takes one second
        "target_step_s": st.sampled_from([0.0, 0.0, 0.1, 1.0]),
        "max_prompt_rows": st.sampled_from([1, 4, 64]),
        "enable_prefix_caching": st.sampled_from([True, True, True, False]),
        "scheduling_policy": st.sampled_from(["fcfs", "priority"]),
        "num_host_blocks": st.sampled_from([0, 3, 12]),
        "swap_cost_tokens": st.sampled_from([0.0, 0.0, 5.0]),
        "lookahead": st.sampled_from([0, 1]),
    }
)
#: Where layers keep a state of each sequence.
recurrent_setups = setups.map(
    lambda setup: (
        setup
        | {
            "num_state_slots": setup["max_num_seqs"] + setup["num_host_blocks"],
            "num_host_blocks": 0,
        }
    )
)
requests = st.fixed_dictionaries(
    {
        "stem": st.integers(0, 2),
        "stem_len": st.sampled_from([1, 7, 8, 9, 16, 17, 24, 31, 32, 40]),
        "suffix": st.lists(st.integers(1, 3), max_size=3),
        "n": st.sampled_from([1, 1, 1, 2, 3, 5]),
        "max_tokens": st.sampled_from([1, 2, 5, 9, 17, None]),
        "min_tokens": st.sampled_from([0, 0, 1]),
        "ignore_eos": st.booleans(),
        "stop_token_ids": st.sampled_from([(), (3, 11, 25)]),
        "seed": st.integers(0, 3),
        "priority": st.integers(0, 2),
        "cache_salt": st.sampled_from([None, None, None, "s"]),
        "prompt_logprobs": st.sampled_from([None, None, None, 0]),
        "skip_reading_prefix_cache": st.sampled_from([None, None, True]),
        "logprobs": st.sampled_from([None, 0]),
        "pooling": st.sampled_from([None, None, None, "last", "mean"]),
        # of a beam search as wide as n
        "length_penalty": st.sampled_from([None, None, None, 0.0, 1.0, -0.5]),
    }
)
events = st.one_of(
    st.tuples(st.just("add"), st.lists(requests, min_size=1, max_size=4)),
    st.tuples(st.just("add"), st.lists(requests, min_size=1, max_size=4)),
    st.tuples(st.just("step"), st.integers(1, 5)),
    st.tuples(st.just("step"), st.integers(1, 5)),
    st.tuples(st.just("fail"), st.sampled_from(["before", "within"])),
    st.tuples(st.just("leave out"), st.sampled_from(["before", "within"])),
    st.tuples(st.just("abort"), st.integers(0, 20)),
    st.tuples(st.just("reset"), st.booleans()),
    st.tuples(st.just("finish"), st.tuples(st.integers(0, 20), st.integers(0, 4))),
)


def add(bench: Any, spec: dict[str, Any]) -> None:
    spec = dict(spec)
    prompt = STEMS[spec.pop("stem")][: spec.pop("stem_len")] + spec.pop("suffix")
    if bench.settings.scheduling_policy == "fcfs":
        spec.pop("priority")
    kind, penalty = spec.pop("pooling"), spec.pop("length_penalty")
    if kind is None and penalty is not None:
        beams = BeamSearchParams(spec["n"], spec["max_tokens"], spec["ignore_eos"], length_penalty=penalty)
        kept = ("priority", "cache_salt", "prompt_logprobs", "skip_reading_prefix_cache")
        add_search(bench, prompt, beams, {name: spec[name] for name in kept if name in spec})
        return
    if kind is not None:
        kept = {name: value for name, value in spec.items() if name in ("priority", "cache_salt")}
        spec = {**kept, "max_tokens": None, "pooling": PoolingParams(pooling_type=kind)}
    try:
        bench.add(prompt, **spec)
    except PromptTooLong:
        if kind is not None:
            assert len(prompt) > min(bench.settings.max_model_len, bench.settings.capacity_tokens)
            return
        longest = len(prompt) + (spec["max_tokens"] or 1)
        capacity = bench.settings.capacity_tokens + 1
        assert len(prompt) >= bench.settings.max_model_len or min(longest, bench.settings.max_model_len) > capacity


def add_search(bench: Any, prompt: list[int], beams: BeamSearchParams, kept: dict[str, Any]) -> None:
    limits = bench.settings
    try:
        bench.add(prompt, beam_search=beams, **kept)
    except InvalidParams:
        assert beams.beam_width > limits.max_num_seqs
    except PromptTooLong:
        longest = min(len(prompt) + (beams.max_tokens or 1), limits.max_model_len)
        most = limits.max_num_batched_tokens
        alone = blocks_needed(longest, 8, limits.windows, most, num_sequences=beams.beam_width)
        assert len(prompt) >= limits.max_model_len or alone > limits.num_blocks - 1


def apply(bench: Any, event: tuple[str, Any], step_failed: type[Exception]) -> None:
    kind, what = event
    if kind == "add":
        for spec in what:
            add(bench, spec)
    elif kind == "step":
        for _ in range(what):
            bench.step()
            check_who_begins_beside_an_open_prompt_shares_nothing_of_it(bench)
    elif kind in ("fail", "leave out") and bench.engine.has_work():
        advanced = bench.engine.stats().generation_tokens
        with pytest.raises(step_failed):
            bench.step(fail=what)
        bench.engine.check_invariants()
        assert bench.engine.stats().generation_tokens == advanced
        if kind == "leave out":
            check_the_last_is_left_out(bench)
    elif kind == "abort":
        bench.abort(pick(bench, what))
    elif kind == "reset":
        bench.engine.reset_prefix_cache(with_files=what)
        bench.engine.check_invariants()
    elif kind == "finish" and bench.added:
        request_id, index = pick(bench, what[0]), what[1] % bench.added[pick(bench, what[0])][1].n
        is_over = (request_id, index) in bench.ends
        assert (bench.finish(request_id, index) is None) == is_over


def check_the_last_is_left_out(bench: Any) -> None:
    failed = {seq.seq_id: seq.order for seq in bench.engine._scheduler._failed}
    owner = bench.engine.leave_out_last()
    bench.step()
    planned = set(bench.toy.plans[-1])
    last = max(failed, key=lambda seq_id: failed[seq_id])
    is_before = [seq.order < failed[last] for seq in bench.engine._scheduler.scheduled]
    if len(failed) > 1 and any(is_before):
        assert last not in planned and all(is_before)
    assert bench.engine.leave_out_last() is None and owner is not None


def prompt_logprobs(prompt: list[int]) -> list[TokenLogprobs]:
    """What the toy answers: the checksum of the history each token follows."""
    return [TokenLogprobs([t], [-float(zlib.crc32(bytes(prompt[:end])))], [1]) for end, t in enumerate(prompt) if end]


def check_who_begins_beside_an_open_prompt_shares_nothing_of_it(bench: Any) -> None:
    """Who might share a prompt is admitted before it (another prompt's rest in the same step) or when it is done."""
    scheduler, size = bench.engine._scheduler, bench.settings.block_size
    admitted = {seq.seq_id for seq, _ in scheduler._step.admitted}
    left_open: list[Any] = []
    for seq in scheduler.scheduled:
        start, num_new, num_drawn = bench.toy.plans[-1][seq.seq_id]
        num_known = start + num_new if num_drawn else seq.num_tokens
        # who wants log-probabilities of a prompt could not read the cache before it was done
        reads = seq.request.can_read_cache and seq.request.params.prompt_logprobs is None
        for other in left_open if seq.seq_id in admitted and reads else ():
            common = 0
            pairs = zip(seq.slice(0, num_known - 1), other.slice(0, other.num_tokens), strict=False)
            if seq.request.cache_root == other.request.cache_root:
                common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            # what the other had before is forgotten where the cache was reset
            end = (start // size + 1) * size
            is_to_come = bench.toy.plans[-1][other.seq_id][0] < end <= common
            assert not is_to_come or not bench.settings.enable_prefix_caching
        # who drew tokens was not left open: drafts that came true may be computed once more
        has_drawn = bench.toy.plans[-1][seq.seq_id][2] > 0
        if 0 < seq.num_computed_tokens < seq.num_tokens - 1 and not has_drawn:
            left_open.append(seq)


def pick(bench: Any, number: int) -> str:
    """Mostly one that is not over yet; sometimes one that is, or that never was."""
    alive = [request_id for request_id in bench.added if request_id not in bench.last]
    return alive[number % len(alive)] if alive and number % 5 else str(number % max(len(bench.added), 1))


@more_examples(3)
@given(setup=st.one_of(setups, setups, recurrent_setups), script=st.lists(events, min_size=12, max_size=40))
def test_every_request_ends_once_with_the_tokens_it_gets_alone(
    bench: Any, step_failed: type[Exception], setup: dict[str, Any], script: list[tuple[str, Any]]
) -> None:
    run = bench(**setup)
    for event in script:
        apply(run, event, step_failed)
    run.run()
    run.check_all_ended()
    for request_id, update in run.last.items():
        prompt, params = run.added[request_id]
        if params.prompt_logprobs is not None and run.tokens[request_id, update.index]:
            assert update.progress.prompt_logprobs == prompt_logprobs(prompt)
