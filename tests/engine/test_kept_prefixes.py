"""Blocks that are kept outside the KV cache: another engine goes on from them, as if it had computed them."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.engine import kept_prefixes
from albireo.image_input import ImageInput, Tile
from engine.test_properties import STEMS, apply, events, recurrent_setups, setups

PROMPT = STEMS[0][:44]
LEAST = kept_prefixes.LEAST_BLOCKS


def served(bench: Any, prompt: list[int] = PROMPT, **kwargs: Any) -> Any:
    """A bench that has answered one request."""
    kwargs.setdefault("max_tokens", 5)
    bench.add(prompt, ignore_eos=True, **kwargs)
    bench.run()
    bench.check_all_ended()
    return bench


def test_the_next_engine_computes_what_is_not_kept(bench: Any) -> None:
    kept: dict[bytes, bytes] = {}
    first = served(bench(kept=kept))
    assert first.toy.num_filled == 0 and len(kept) == 6, "48 of 49 tokens are in full blocks"
    second = served(bench(kept=kept))
    assert (second.toy.num_filled, second.toy.num_computed_tokens) == (5, 44 - 40 + 4)
    assert second.tokens == first.tokens
    assert second.last["0"].progress.num_cached_tokens == 40 and second.engine.stats().prefix_cache_hits == 40


def test_whoever_comes_in_the_same_step_shares_what_was_read(bench: Any) -> None:
    kept: dict[bytes, bytes] = {}
    served(bench(kept=kept))
    run = bench(kept=kept)
    for _ in range(3):
        run.add(PROMPT, ignore_eos=True, max_tokens=5)
    run.run()
    run.check_all_ended()
    assert run.toy.num_filled == run.files.num_read == 5
    again = run.files.num_read
    served(run)
    assert run.files.num_read == again, "the KV cache has them"


def test_the_next_turn_of_a_chat_goes_on_behind_the_answer(bench: Any) -> None:
    kept: dict[bytes, bytes] = {}
    first = served(bench(kept=kept), max_tokens=30)
    turn = [*PROMPT, *first.tokens["0", 0], 7, 7, 7]
    second = served(bench(kept=kept), turn)
    assert second.toy.num_filled == (44 + 29) // 8


@pytest.mark.parametrize("num_blocks", [LEAST - 1, LEAST])
def test_few_blocks_are_neither_kept_nor_read(bench: Any, num_blocks: int) -> None:
    kept: dict[bytes, bytes] = {}
    prompt = PROMPT[: 8 * num_blocks + 1]
    served(bench(kept=kept), prompt, max_tokens=1)
    assert len(kept) == (num_blocks if num_blocks >= LEAST else 0)
    assert served(bench(kept=kept), prompt).toy.num_filled == len(kept)


def test_a_step_that_fails_reads_again(bench: Any, step_failed: type[Exception]) -> None:
    kept: dict[bytes, bytes] = {}
    expected = served(bench(kept=kept)).tokens
    run = bench(kept=kept)
    run.add(PROMPT, ignore_eos=True, max_tokens=5)
    for how in ("before", "within"):
        with pytest.raises(step_failed):
            run.step(fail=how)
    kept.clear()
    run.run()
    run.check_all_ended()
    assert run.tokens == expected and run.toy.num_filled == 0, "what it was to read is gone meanwhile"


def test_a_salt_sets_apart(bench: Any) -> None:
    kept: dict[bytes, bytes] = {}
    served(bench(kept=kept), cache_salt="a")
    assert served(bench(kept=kept)).toy.num_filled == 0
    assert served(bench(kept=kept), cache_salt="b").toy.num_filled == 0
    assert served(bench(kept=kept), cache_salt="a").toy.num_filled == 5


def test_what_adapters_make_is_left_alone(bench: Any) -> None:
    kept: dict[bytes, bytes] = {}
    served(bench(kept=kept, num_adapter_slots=1), adapter=1)
    assert not kept
    served(bench(kept=kept))
    assert served(bench(kept=kept, num_adapter_slots=1), adapter=1).toy.num_filled == 0


def test_a_picture_is_told_from_another(bench: Any) -> None:
    kept: dict[bytes, bytes] = {}
    one, other = (ImageInput(bytes([n]) * 32, (Tile(1, 1, b"abc", 4),), ((12, 16),)) for n in (1, 2))
    settings = {"kept": kept, "image_problem": "", "max_num_batched_tokens": 64}
    first = served(bench(**settings), images=[one])
    assert served(bench(**settings), images=[other]).toy.num_filled == 0, "the block before it is not worth reading"
    run = bench(**settings)
    run.add(STEMS[1], images=[other], max_tokens=2)
    run.add(PROMPT, images=[one], ignore_eos=True, max_tokens=5)
    run.run()
    run.check_all_ended()
    assert run.toy.num_filled == 5 and run.tokens["1", 0] == first.tokens["0", 0]
    assert len(run.toy.plans[0]) == 2, "its tile is behind it: the step has room for the other's alone"


def test_an_aborted_request_leaves_what_was_computed(bench: Any) -> None:
    kept: dict[bytes, bytes] = {}
    run = bench(kept=kept, max_num_batched_tokens=36)
    run.add(PROMPT)
    run.step()
    run.abort("0")
    assert len(kept) == 4 and served(bench(kept=kept)).toy.num_filled == 4


@given(
    setup=st.one_of(setups, recurrent_setups).filter(lambda setup: not setup["lookahead"]),
    scripts=st.lists(st.lists(events, min_size=6, max_size=20), min_size=2, max_size=3),
    lost=st.lists(st.integers(0, 30), max_size=6),
)
def test_every_request_has_the_tokens_it_gets_alone_whatever_was_kept(
    bench: Any, step_failed: type[Exception], setup: dict[str, Any], scripts: list[Any], lost: list[int]
) -> None:
    kept: dict[bytes, bytes] = {}
    with mock.patch.object(kept_prefixes, "LEAST_BLOCKS", 1):
        for script in scripts:
            run = bench(kept=kept, **setup)
            for event in script:
                apply(run, event, step_failed)
            run.run()
            run.check_all_ended()
            for number in lost:
                if number < len(kept):
                    del kept[list(kept)[number]]


@pytest.mark.parametrize(("windows", "filled"), [((None, 9), 6), ((None, 20, 20), 11)])
def test_of_a_window_what_the_next_token_looks_into_is_read(bench: Any, windows: Any, filled: int) -> None:
    kept: dict[bytes, bytes] = {}
    first = served(bench(kept=kept, windows=windows, max_num_batched_tokens=8), max_tokens=40)
    second = served(bench(kept=kept, windows=windows), max_tokens=40)
    assert (second.toy.num_filled, second.toy.num_computed_tokens) == (filled, 44 - 40 + 39)
    assert second.tokens == first.tokens
    # another goes on elsewhere, where the first one's windows were long ago
    third = served(bench(kept=kept, windows=windows), [*PROMPT[:40], 7, 7, 7])
    assert third.toy.num_filled == filled


@pytest.mark.parametrize(("in_cache", "filled"), [(1, 4), (2, 0)])
def test_files_go_on_where_the_cache_ends(bench: Any, in_cache: int, filled: int) -> None:
    """If there are enough blocks behind it."""
    kept: dict[bytes, bytes] = {}
    served(bench(kept=kept))
    run = served(bench(kept=kept), PROMPT[: 8 * in_cache + 1], max_tokens=1)
    served(run)
    assert run.toy.num_filled == filled
    assert run.last["1"].progress.num_cached_tokens == 8 * (in_cache + filled)


def test_what_is_lost_after_it_was_found_is_not_gone_on_from(bench: Any) -> None:
    kept: dict[bytes, bytes] = {}
    first = served(bench(kept=kept, windows=(None, 9)))
    run = bench(kept=kept, windows=(None, 9))
    read = run.files.read
    # keys of windows are longer
    run.files.read = lambda keys: [] if len(keys[0]) > 32 else read(keys)
    served(run)
    assert run.toy.num_filled == 0 and run.tokens == first.tokens


def test_without_what_a_window_looks_into_less_is_read(bench: Any) -> None:
    kept: dict[bytes, bytes] = {}
    served(bench(kept=kept, windows=(None, 9)))
    of_window = [key for key in kept if len(key) > 32]
    assert len(of_window) == 6
    del kept[of_window[4]]
    run = served(bench(kept=kept, windows=(None, 9)))
    assert run.toy.num_filled == 4 + 1 and run.last["0"].progress.num_cached_tokens == 32


@pytest.mark.parametrize("windows", [(None,), (None, 9)])
def test_where_layers_keep_states_it_goes_on_behind_one(bench: Any, windows: Any) -> None:
    kept: dict[bytes, bytes] = {}
    first = served(bench(kept=kept, windows=windows, num_state_slots=128), max_tokens=30)
    num_states = sum(len(key) > 33 for key in kept)
    assert num_states == 2, "near the prompt's end, and behind the newest block"
    turn = [*PROMPT, *first.tokens["0", 0], 7, 7, 7]
    second = served(bench(kept=kept, windows=windows, num_state_slots=128), turn)
    assert second.last["0"].progress.num_cached_tokens == 72
    # a state near the end of the prompt leaves what a chat template ends prompts with
    again = served(bench(kept=kept, windows=windows, num_state_slots=128), max_tokens=30)
    assert again.last["0"].progress.num_cached_tokens == 32 and again.tokens == first.tokens


def test_without_a_state_nothing_is_read(bench: Any) -> None:
    kept: dict[bytes, bytes] = {}
    served(bench(kept=kept, num_state_slots=128))
    for key in [key for key in kept if len(key) > 33]:
        del kept[key]
    assert served(bench(kept=kept, num_state_slots=128)).toy.num_filled == 0


@pytest.mark.parametrize("with_files", [False, True])
def test_a_reset_leaves_files_unless_told(bench: Any, with_files: bool) -> None:
    kept: dict[bytes, bytes] = {}
    run = served(bench(kept=kept))
    run.engine.reset_prefix_cache(with_files=with_files)
    assert bool(kept) == (not with_files)
    served(run)
    assert run.last["1"].progress.num_cached_tokens == (0 if with_files else 40)
