"""Prefix cache: what is found, what is not, and who waits for whom."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest

from albireo.engine.prefix_cache import root_key

PROMPT = list(range(1, 33))


def chain(tokens: list[int], root: bytes, size: int = 8) -> list[bytes]:
    keys = [root]
    for start in range(0, len(tokens) // size * size, size):
        keys.append(hashlib.sha256(keys[-1] + struct.pack("<8I", *tokens[start : start + size])).digest())
    return keys[1:]


def computed(run: Any) -> list[dict[int, tuple[int, int]]]:
    """A dict a step: sequence -> (first position, number of tokens)."""
    return [{seq_id: entry[:2] for seq_id, entry in plan.items()} for plan in run.toy.plans]


def test_keys_are_chained_sha256_of_little_endian_tokens(bench: Any) -> None:
    run = bench()
    run.add(PROMPT, max_tokens=1)
    run.add(PROMPT, max_tokens=1, cache_salt="mine")
    run.step()
    pool = run.engine._scheduler.places.tables.pool
    salted = hashlib.sha256(b"mine").digest()
    keys = chain(PROMPT, bytes(32)) + chain(PROMPT, salted)
    assert root_key("mine") == salted
    assert len(keys) == 8 and None not in [pool.find(key) for key in keys]
    assert len({pool.find(key) for key in keys}) == 8


def test_later_request_reuses_full_blocks_but_computes_its_last_token(bench: Any) -> None:
    run = bench()
    run.add(PROMPT, max_tokens=1)
    run.run()
    run.add(PROMPT, max_tokens=1)
    run.add([*PROMPT, 5], max_tokens=1)
    run.add([*PROMPT[:20], 5], max_tokens=1)
    run.run()
    assert computed(run)[1:] == [{1: (24, 8), 2: (32, 1), 3: (16, 5)}]
    assert [run.last[r].progress.num_cached_tokens for r in "0123"] == [0, 24, 32, 16]
    run.check_all_ended()


def test_output_tokens_are_reusable_too(bench: Any) -> None:
    run = bench()
    run.add(PROMPT[:6], max_tokens=20)
    run.run()
    whole = PROMPT[:6] + run.tokens["0", 0]
    run.add([*whole[:25], 9], max_tokens=1)
    run.run()
    assert run.last["1"].progress.num_cached_tokens == 24
    run.check_all_ended()


def test_requests_arriving_together_compute_a_shared_prefix_once_within_one_step(bench: Any) -> None:
    run = bench()
    for tail in range(4):
        run.add([*PROMPT, tail], max_tokens=2)
    run.step()
    assert computed(run) == [{0: (0, 33), 1: (32, 1), 2: (32, 1), 3: (32, 1)}]
    run.run()
    run.check_all_ended()


def test_newcomer_comes_when_the_prefix_it_shares_is_computed(bench: Any) -> None:
    run = bench(max_num_batched_tokens=20)
    run.add([*PROMPT, 1], max_tokens=2)
    run.add([*PROMPT, 2], max_tokens=2)
    run.add([39, 38], max_tokens=2)
    run.step()
    run.step()
    assert computed(run) == [{0: (0, 20)}, {0: (20, 13), 1: (32, 1), 2: (0, 2)}]
    run.run()
    run.check_all_ended()


def test_newcomer_waits_until_all_chunks_of_a_shared_prefix_are_scheduled(bench: Any) -> None:
    run = bench(max_num_batched_tokens=10)
    run.add([30, 31], max_tokens=9)
    run.step()
    run.add(PROMPT, max_tokens=2)
    run.add([*PROMPT, 2], max_tokens=2)
    run.run()
    assert computed(run)[1:6] == [
        {0: (2, 1), 1: (0, 9)},
        {0: (3, 1), 1: (9, 9)},
        {0: (4, 1), 1: (18, 9)},
        {0: (5, 1), 1: (27, 5), 2: (32, 1)},
        {0: (6, 1), 1: (32, 1), 2: (33, 1)},
    ]
    run.check_all_ended()


@pytest.mark.parametrize("how", ["abort", "finish"])
def test_newcomer_goes_on_alone_when_the_owner_of_the_prefix_ends(bench: Any, how: str) -> None:
    run = bench(max_num_batched_tokens=10)
    run.add([*PROMPT, 1], max_tokens=2)
    run.add([*PROMPT, 2], max_tokens=2)
    run.step()
    run.step()
    run.abort("0") if how == "abort" else run.finish("0", 0)
    run.run()
    # What was computed before is of use: 20 positions were, 16 of them in full blocks.
    assert computed(run)[2] == {1: (16, 10)}
    run.check_all_ended()


def test_newcomer_goes_on_alone_when_the_owner_is_preempted(bench: Any) -> None:
    # The first one's decoding takes the blocks of the second, for whose prompt the third waits.
    run = bench(num_blocks=8, max_num_batched_tokens=4, max_model_len=58)
    run.add([20] * 22, max_tokens=30)
    while not run.tokens:
        run.step()
    run.add(PROMPT, max_tokens=2)
    run.add([*PROMPT, 3], max_tokens=2)
    run.run()
    assert run.engine.stats().num_preemptions > 0
    run.check_all_ended()


def test_a_salt_keeps_requests_apart(bench: Any) -> None:
    run = bench()
    for salt in ("a", "b", None, "a"):
        run.add(PROMPT, max_tokens=1, cache_salt=salt)
    run.run()
    assert [run.last[r].progress.num_cached_tokens for r in "0123"] == [0, 0, 0, 24]


@pytest.mark.parametrize("unlike", [{"skip_reading_prefix_cache": True}, {"prompt_logprobs": 0}])
def test_who_must_not_read_the_cache_computes_all_and_still_fills_it(bench: Any, unlike: dict[str, Any]) -> None:
    run = bench()
    run.add(PROMPT, max_tokens=1, **unlike)
    run.run()
    run.add(PROMPT, max_tokens=1, **unlike)
    run.add(PROMPT, max_tokens=1)
    run.run()
    assert [run.last[r].progress.num_cached_tokens for r in "012"] == [0, 0, 24]
    run.check_all_ended()


def test_disabled_cache_finds_nothing(bench: Any) -> None:
    run = bench(enable_prefix_caching=False)
    run.add(PROMPT, max_tokens=1)
    run.add(PROMPT, max_tokens=1)
    run.run()
    assert computed(run) == [{0: (0, 32), 1: (0, 32)}]
    stats = run.engine.stats()
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits) == (0, 0)


def test_a_hit_needs_the_block_in_every_group(bench: Any) -> None:
    run = bench(num_blocks=64, windows=(None, None))
    run.add(PROMPT, max_tokens=1)
    run.run()
    pool = run.engine._scheduler.places.tables.pool
    keys = chain(PROMPT, bytes(32))
    pool.withdraw(pool.find(keys[2] + bytes((1,))))
    run.add(PROMPT, max_tokens=1)
    run.run()
    assert run.last["1"].progress.num_cached_tokens == 16
    run.check_all_ended()


@pytest.mark.parametrize(
    ("lost", "num_cached"),
    # behind 24 tokens the blocks 2 and 1 are looked into, behind 16 the blocks 1 and 0
    [([], 24), ([0], 24), ([1], 8), ([2], 16), ([1, 2], 8), ([0, 2], 0)],
)
def test_a_window_needs_the_blocks_that_it_looks_into(bench: Any, lost: list[int], num_cached: int) -> None:
    run = bench(num_blocks=64, windows=(None, 10))
    run.add(PROMPT[:28], max_tokens=1)
    run.run()
    pool = run.engine._scheduler.places.tables.pool
    for place in lost:
        pool.withdraw(pool.find(chain(PROMPT, bytes(32))[place] + bytes((1,))))
    run.add(PROMPT[:28], max_tokens=3)
    run.run()
    assert run.last["1"].progress.num_cached_tokens == num_cached
    run.check_all_ended()


def test_blocks_of_a_failed_step_are_not_found(bench: Any, step_failed: type[Exception]) -> None:
    run = bench()
    run.add(PROMPT, max_tokens=1)
    run.add([*PROMPT, 2], max_tokens=1)
    with pytest.raises(step_failed):
        run.step(fail="within")
    run.abort("0")
    run.run()
    assert computed(run) == [{1: (0, 33)}]
    run.check_all_ended()


def test_chunk_of_a_failed_step_is_not_found_though_its_owner_runs_on(bench: Any, step_failed: type[Exception]) -> None:
    run = bench(max_num_batched_tokens=24)
    run.add([*PROMPT, 1], max_tokens=2)
    run.step()
    run.add([*PROMPT, 2], max_tokens=2)
    with pytest.raises(step_failed):
        run.step(fail="within")
    run.engine.check_invariants()
    run.abort("0")
    run.run()
    assert computed(run) == [{0: (0, 24)}, {1: (24, 9)}, {1: (33, 1)}]
    run.check_all_ended()


def test_after_a_reset_nothing_is_found_and_who_runs_goes_on(bench: Any) -> None:
    run = bench()
    run.add(PROMPT, max_tokens=1)
    run.run()
    run.add([*PROMPT, 5], max_tokens=30, ignore_eos=True)
    run.step()
    run.engine.reset_prefix_cache()
    run.engine.check_invariants()
    run.add(PROMPT, max_tokens=1)
    run.add(PROMPT, max_tokens=1)
    run.run()
    assert [run.last[r].progress.num_cached_tokens for r in "0123"] == [0, 32, 0, 24]
    # what is computed from then on is known as ever
    run.add([*PROMPT, 5, *run.tokens["1", 0]], max_tokens=1)
    run.run()
    assert run.last["4"].progress.num_cached_tokens == 56
    run.check_all_ended()
