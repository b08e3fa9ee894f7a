"""Block tables over one pool: what grows, is shared and is let go in each group of layers, with a window or without."""

from __future__ import annotations

import pytest

from albireo.engine.block_tables import BlockTables, blocks_needed, capacity_tokens
from albireo.errors import InvariantError
from albireo.step import NULL_BLOCK


def key(number: int) -> bytes:
    return number.to_bytes(32, "little")


def test_grow_covers_positions_in_all_groups_or_none() -> None:
    tables = BlockTables(8, 8, (None, 20))
    own: tuple[list[int], ...] = ([], [])
    assert tables.grow(own, 0, 9) == []
    assert [len(table) for table in own] == [2, 2]
    assert tables.grow(own, 9, 16) == []
    assert [len(table) for table in own] == [2, 2]
    assert tables.grow(own, 16, 33) is None
    assert [len(table) for table in own] == [2, 2]
    assert tables.pool.num_available == 3
    assert len({*own[0], *own[1]}) == 4
    tables.check_invariants([own])


def test_a_shared_block_is_copied_before_it_is_written_and_the_last_holder_writes_in_place() -> None:
    tables = BlockTables(12, 8, (None, None))
    first: tuple[list[int], ...] = ([], [])
    second: tuple[list[int], ...] = ([], [])
    tables.grow(first, 0, 12)
    tables.share(first, second, 12)
    assert first == second
    shared = [table[1] for table in first]
    assert tables.grow(first, 12, 13) == [(shared[0], first[0][1]), (shared[1], first[1][1])]
    assert first[0][1] != shared[0] and first[0][0] == second[0][0]
    assert tables.grow(second, 12, 13) == []
    assert second[0][1] == shared[0]
    tables.check_invariants([first, second])


def test_share_leaves_out_blocks_beyond_the_tokens() -> None:
    tables = BlockTables(8, 8)
    first: tuple[list[int], ...] = ([],)
    second: tuple[list[int], ...] = ([],)
    tables.grow(first, 0, 30)
    tables.share(first, second, 16)
    assert second[0] == first[0][:2]


def test_of_what_others_hold_too_full_blocks_count_from_the_first_on() -> None:
    tables = BlockTables(12, 8)
    first: tuple[list[int], ...] = ([],)
    second: tuple[list[int], ...] = ([],)
    tables.grow(first, 0, 20)
    assert tables.num_shared(first, 20) == 0
    tables.share(first, second, 20)
    assert [tables.num_shared(first, num) for num in (7, 8, 20, 24)] == [0, 8, 16, 24]
    tables.pool.free([second[0].pop(1)])
    assert tables.num_shared(first, 24) == 8


def test_release_lets_the_tail_be_evicted_before_the_head() -> None:
    tables = BlockTables(4, 8)
    own: tuple[list[int], ...] = ([],)
    tables.grow(own, 0, 24)
    blocks = list(own[0])
    for number, block in enumerate(blocks):
        tables.pool.publish(block, key(number))
    tables.release(own)
    assert own == ([],)
    assert tables.pool.allocate(3) == blocks[::-1]


def test_room_counts_idle_hits_as_taken() -> None:
    tables = BlockTables(5, 8)
    own: tuple[list[int], ...] = ([],)
    tables.grow(own, 0, 16)
    hits = [list(own[0])]
    for number, block in enumerate(hits[0]):
        tables.pool.publish(block, key(number))
    assert tables.has_room(hits, 32, 99) and not tables.has_room(hits, 33, 99)
    tables.release(own)
    assert tables.has_room(hits, 32, 99) and not tables.has_room(hits, 33, 99)
    assert tables.has_room([[]], 32, 99) and not tables.has_room([[]], 33, 99)


@pytest.mark.parametrize(
    ("window", "position", "num_empty"), [(8, 7, 0), (8, 14, 0), (8, 15, 1), (1, 8, 1), (17, 33, 2)]
)
def test_what_no_token_looks_into_is_let_go(window: int, position: int, num_empty: int) -> None:
    tables = BlockTables(12, 8, (None, window))
    own: tuple[list[int], ...] = ([], [])
    tables.grow(own, 0, 40)
    held = [list(table) for table in own]
    tables.let_go(own, position)
    assert own[0] == held[0]
    assert own[1] == [NULL_BLOCK] * num_empty + held[1][num_empty:]
    assert tables.pool.num_available == 1 + num_empty
    tables.let_go(own, position)
    tables.check_invariants([own])
    # the token at this position looks into the first block that is left, unless it is its own
    assert position - window + 1 < 8 * (num_empty + 1)


@pytest.mark.parametrize(("position", "num_empty"), [(19, 0), (20, 2), (39, 2), (40, 5)])
def test_chunks_are_let_go_as_a_whole(position: int, num_empty: int) -> None:
    """A chunk of 20 positions ends within a block, which the next one begins in."""
    tables = BlockTables(13, 8, (None, 20), (1,))
    own: tuple[list[int], ...] = ([], [])
    tables.grow(own, 0, 48)
    held = list(own[1])
    tables.let_go(own, position)
    assert own[1] == [NULL_BLOCK] * num_empty + held[num_empty:] and NULL_BLOCK not in own[0]
    assert tables.first_seen(0, position) == 0 and tables.first_seen(1, position) == num_empty
    tables.check_invariants([own])


def test_places_that_nobody_looks_into_are_left_empty() -> None:
    tables = BlockTables(12, 8, (None, 10))
    own: tuple[list[int], ...] = ([], [])
    tables.let_go(own, 33)
    assert own == ([], [NULL_BLOCK] * 3)
    tables.grow(own, 0, 34)
    assert own[1][:3] == [NULL_BLOCK] * 3 and tables.pool.num_available == 11 - 5 - 2
    assert tables.num_held(own, 34) == 7 and tables.num_held(own, 25) == 5
    tables.check_invariants([own])
    other: tuple[list[int], ...] = ([], [])
    tables.share(own, other, 34)
    tables.trim(other, 32)
    tables.release(own)
    tables.check_invariants([own, other])
    tables.release(other)
    assert tables.usage_frac == 0.0


@pytest.mark.parametrize("max_new", [1, 3, 8, 40])
@pytest.mark.parametrize("window", [1, 2, 8, 9, 25])
def test_no_more_is_held_than_was_said(window: int, max_new: int) -> None:
    """A sequence that grows by as much as it may holds what blocks_needed() says, at most and sometimes."""
    tables = BlockTables(100, 8, (None, window))
    own: tuple[list[int], ...] = ([], [])
    most = 0
    for start in (*range(0, 120, max_new), *range(120, 160)):
        end = min(start + max_new, 120) if start < 120 else start + 1
        tables.let_go(own, start)
        assert tables.grow(own, start, end) == []
        needed = blocks_needed(end, 8, (None, window), max_new)
        assert tables.pool.num_used <= needed
        most = max(most, tables.pool.num_used - needed)
    assert most == 0
    assert capacity_tokens(needed, 8, (None, window), max_new) == 160
    assert capacity_tokens(needed - 1, 8, (None, window), max_new) < 160


def test_of_several_sequences_only_one_computes_all_the_new_tokens_of_a_step() -> None:
    windows = (None, 17)
    # 5 + 3 blocks each while decoding, and those of 40 new tokens of one of them
    assert [blocks_needed(40, 8, windows, 1, num_sequences=num) for num in (1, 2, 3)] == [8, 16, 24]
    assert [blocks_needed(40, 8, windows, 40, num_sequences=num) for num in (1, 2, 3)] == [10, 18, 26]
    assert blocks_needed(40, 8, (None,), 40, num_sequences=3) == 15


def test_usage_is_that_of_all_groups() -> None:
    tables = BlockTables(5, 8, (None, 3))
    assert tables.usage_frac == 0.0
    tables.grow(([], []), 0, 8)
    assert tables.usage_frac == 0.5


def test_a_null_block_behind_others_is_noticed() -> None:
    tables = BlockTables(5, 8, (None, 3))
    own: tuple[list[int], ...] = ([], [])
    tables.grow(own, 0, 16)
    tables.pool.free([own[1][1]])
    own[1][1] = NULL_BLOCK
    with pytest.raises(InvariantError, match="null blocks where none may be"):
        tables.check_invariants([own])
