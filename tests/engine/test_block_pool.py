"""Blocks: allocate, share, cache, evict, copy on write."""

from __future__ import annotations

import pytest

from albireo.engine.block_pool import BlockPool
from albireo.errors import InvariantError
from albireo.step import NULL_BLOCK


def key(number: int) -> bytes:
    return bytes([number]) * 32


def allocate(pool: BlockPool, count: int) -> list[int]:
    blocks = pool.allocate(count)
    assert blocks is not None
    return blocks


def test_hands_out_every_block_but_the_null_block_once() -> None:
    pool = BlockPool(6)
    assert sorted(allocate(pool, 5)) == [1, 2, 3, 4, 5]
    assert (pool.num_available, pool.num_used) == (0, 5)
    assert pool.allocate(1) is None


def test_allocate_takes_nothing_when_there_is_too_little() -> None:
    pool = BlockPool(4)
    held = allocate(pool, 2)
    assert pool.allocate(2) is None
    assert pool.num_available == 1
    pool.check_invariants([held])


def test_a_block_is_free_when_the_last_holder_lets_go() -> None:
    pool = BlockPool(3)
    (block,) = allocate(pool, 1)
    pool.share(block)
    pool.free([block])
    assert (pool.num_refs(block), pool.num_used) == (1, 1)
    pool.free([block])
    assert (pool.num_refs(block), pool.num_used) == (0, 0)


def test_free_blocks_go_before_cached_ones_and_cached_ones_oldest_freed_first() -> None:
    pool = BlockPool(5)
    a, b, c, d = allocate(pool, 4)
    for block, number in ((a, 1), (b, 2), (c, 3)):
        pool.publish(block, key(number))
    pool.free([b])
    pool.free([a])
    pool.free([d])
    pool.free([c])
    assert allocate(pool, 1) == [d]
    assert allocate(pool, 2) == [b, a]
    assert [pool.find(key(number)) for number in (1, 2, 3)] == [None, None, c]


def test_a_hit_takes_a_cached_block_from_the_middle_of_the_line() -> None:
    pool = BlockPool(4)
    blocks = allocate(pool, 3)
    for number, block in enumerate(blocks):
        pool.publish(block, key(number))
    pool.free(blocks)
    pool.share(blocks[1])
    pool.check_invariants([[blocks[1]]])
    assert allocate(pool, 2) == [blocks[0], blocks[2]]
    assert pool.find(key(1)) == blocks[1]
    # Freed again it is the one freed last.
    pool.free([blocks[0]])
    pool.free([blocks[1]])
    assert allocate(pool, 2) == [blocks[0], blocks[1]]


def test_the_first_block_of_a_content_keeps_the_name() -> None:
    pool = BlockPool(3)
    first, second = allocate(pool, 2)
    assert pool.publish(first, key(1))
    assert not pool.publish(second, key(1))
    assert pool.find(key(1)) == first
    pool.free([second])
    pool.check_invariants([[first]])


def test_withdraw_makes_a_block_unknown_whether_held_or_not() -> None:
    pool = BlockPool(3)
    held, let_go = allocate(pool, 2)
    pool.publish(held, key(1))
    pool.publish(let_go, key(2))
    pool.free([let_go])
    pool.withdraw(held)
    pool.withdraw(let_go)
    assert pool.find(key(1)) is None and pool.find(key(2)) is None
    pool.check_invariants([[held]])
    assert allocate(pool, 1) == [let_go]


@pytest.mark.parametrize("block", [NULL_BLOCK, 1])
def test_freeing_what_nobody_holds_is_our_bug(block: int) -> None:
    with pytest.raises(InvariantError, match="nobody holds"):
        BlockPool(3).free([block])


def test_sharing_or_naming_an_empty_block_is_our_bug() -> None:
    pool = BlockPool(3)
    with pytest.raises(InvariantError, match="holds nothing"):
        pool.share(1)
    with pytest.raises(InvariantError, match="cannot be published"):
        pool.publish(1, key(1))
    with pytest.raises(InvariantError, match="do not name each other"):
        pool.withdraw(1)


def test_check_invariants_sees_a_leak() -> None:
    pool = BlockPool(3)
    allocate(pool, 1)
    with pytest.raises(InvariantError, match="reference counts"):
        pool.check_invariants([])
