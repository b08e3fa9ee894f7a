"""Which steps are padded, to what, and which are computed at their own size."""

from __future__ import annotations

import pytest

from albireo.backends.cuda.buckets import DRAWS, Bucket, Buckets, Ending


def sizes(tokens: int, logits: int, top: int, sequences: int, tasks: int = 0, reports: int = 0) -> dict[str, int]:
    return {"T": tokens, "B": sequences, "R": logits, "G": top, "S": logits + top, "D": tasks, "L": reports}


@pytest.mark.parametrize("most", [1, 3, 37, 64, 100, 256, 1000])
def test_the_largest_step_has_a_bucket_of_its_own(most: int) -> None:
    buckets = Buckets(most)
    assert buckets.sizes[-1] == most and list(buckets.sizes) == sorted(set(buckets.sizes))
    for count in range(1, most + 1):
        found = buckets.of(sizes(count, 0, count, count))
        assert found is not None and count <= found.size <= max(count + 31, 2 * count - 1, 1)
        assert found.size == min(size for size in buckets.sizes if size >= count)


def test_padding_is_small() -> None:
    buckets = Buckets(512)
    waste = [buckets.sizes[next(i for i, s in enumerate(buckets.sizes) if s >= n)] / n for n in range(9, 513)]
    assert max(waste) <= 16 / 9 and sum(waste) / len(waste) < 1.08


def test_only_steps_of_one_token_a_sequence_are_padded() -> None:
    buckets = Buckets(64)
    assert buckets.of(sizes(5, 0, 5, 5)) == Bucket(8, True)
    assert buckets.of(sizes(5, 5, 0, 5)) == Bucket(8, False)
    assert buckets.of(sizes(6, 0, 5, 5)) is None, "a prompt among them"
    assert buckets.of(sizes(5, 0, 4, 5)) is None, "a sequence that wants nothing"
    assert buckets.of(sizes(5, 2, 3, 5)) is None, "both kinds of wishes"
    assert buckets.of(sizes(65, 0, 65, 65)) is None, "larger than the largest"


def test_an_ending_is_part_of_a_bucket_where_each_sequence_has_one_task() -> None:
    buckets = Buckets(64)
    reports = Ending(draws=True, reports=True)
    assert buckets.of(sizes(5, 5, 0, 5, tasks=5), DRAWS) == Bucket(8, False, DRAWS)
    assert buckets.of(sizes(5, 5, 0, 5, tasks=7), DRAWS) is None, "continuations of a prompt of one token"
    assert buckets.of(sizes(5, 5, 0, 5, tasks=5, reports=5), reports) == Bucket(8, False, reports)
    assert buckets.of(sizes(5, 5, 0, 5, tasks=5, reports=6), reports) is None, "tokens of a prompt are reported"


def test_a_bucket_has_rows_of_one_kind() -> None:
    none = {"D": 0, "L": 0}
    assert Bucket(8, True).sizes == {"T": 8, "B": 8, "R": 0, "G": 8, "S": 8, **none}
    assert Bucket(8, False).sizes == {"T": 8, "B": 8, "R": 8, "G": 0, "S": 8, **none}
    assert Bucket(8, False, DRAWS).sizes["D"] == 8
    assert Bucket(8, False, Ending(draws=True, reports=True)).sizes["L"] == 8
