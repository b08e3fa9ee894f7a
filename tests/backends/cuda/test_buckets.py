"""Which steps are padded, to what, and which are computed at their own size."""

from __future__ import annotations

import pytest

from albireo.backends.cuda.buckets import DRAWS, Bucket, Buckets, Ending


def sizes(tokens: int, logits: int, top: int, sequences: int, tasks: int = 0, reports: int = 0) -> dict[str, int]:
    return {"T": tokens, "B": sequences, "R": logits, "G": top, "S": logits + top, "D": tasks, "L": reports}


@pytest.mark.parametrize("most", [1, 3, 37, 64, 100, 256, 1000])
def test_the_largest_step_has_a_bucket_of_its_own(most: int) -> None:
    buckets = Buckets(most, 8192)
    assert buckets.sizes[-1] == most and list(buckets.sizes) == sorted(set(buckets.sizes))
    for count in range(1, most + 1):
        found = buckets.of(sizes(count, 0, count, count))
        assert found is not None and count <= found.size <= max(count + 31, 2 * count - 1, 1)
        assert found.size == min(size for size in buckets.sizes if size >= count)


def test_padding_is_small() -> None:
    buckets = Buckets(512, 8192)
    waste = [buckets.sizes[next(i for i, s in enumerate(buckets.sizes) if s >= n)] / n for n in range(9, 513)]
    assert max(waste) <= 16 / 9 and sum(waste) / len(waste) < 1.08


def test_steps_of_one_token_a_sequence_and_small_ones_with_prompts_are_padded() -> None:
    buckets = Buckets(64, 8192)
    assert buckets.of(sizes(5, 0, 5, 5)) == Bucket(8, True)
    assert buckets.of(sizes(5, 5, 0, 5)) == Bucket(8, False)
    assert buckets.of(sizes(6, 0, 5, 5)) == Bucket(16, True, tokens=16), "a prompt among them"
    assert buckets.of(sizes(97, 20, 0, 17)) == Bucket(64, False, tokens=128), "a sequence of which two rows are wanted"
    assert buckets.of(sizes(5, 0, 4, 5)) == Bucket(16, True, tokens=16), "a sequence that wants nothing"
    assert buckets.of(sizes(1024, 0, 64, 64)) == Bucket(64, True, tokens=1024)
    assert buckets.of(sizes(1025, 0, 64, 64)) is None, "more than the host's launches take"
    assert buckets.of(sizes(6, 0, 0, 1)) is None, "the middle of a prompt"
    assert buckets.of(sizes(5, 2, 3, 5)) is None, "both kinds of wishes"
    assert buckets.of(sizes(65, 0, 65, 65)) is None, "larger than the largest"
    small = Buckets(3, 40)
    assert (small.tokens, small.sequences) == ((16, 32, 40), (3,))
    assert small.of(sizes(33, 0, 3, 3)) == Bucket(3, True, tokens=40)


def test_steps_with_drafts_are_padded_as_steps_of_so_many_decoding_sequences() -> None:
    """Whatever sequences have the rows; there are buckets for 64 rows more than sequences."""
    buckets = Buckets(100, 8192, 164)
    assert buckets.sizes[-4:] == (112, 128, 144, 160, 164)[-4:] and 100 in buckets.sizes and buckets.largest == 100
    for tokens, sequences, size in ((6, 1, 8), (2, 1, 2), (18, 3, 24), (130, 100, 144), (164, 100, 164)):
        top, drawn = (
            buckets.of(sizes(tokens, *rows, sequences, tasks=tokens), DRAWS) for rows in ((0, tokens), (tokens, 0))
        )
        assert (top, drawn) == (Bucket(size, True, DRAWS), Bucket(size, False, DRAWS))
        assert drawn.sizes["B"] >= sequences and drawn.sizes["D"] == drawn.sizes["R"] == drawn.sizes["T"] >= tokens
    told = Ending(draws=True, reports=True)
    assert buckets.of(sizes(6, 6, 0, 1, tasks=6, reports=6), told) == Bucket(8, False, told)
    assert buckets.of(sizes(7, 6, 0, 1, tasks=6), DRAWS) == Bucket(16, False, DRAWS, tokens=16), "a prompt among them"
    assert buckets.of(sizes(165, 0, 165, 1, tasks=165), DRAWS) is None, "larger than the largest"
    assert Buckets(100, 8192).sizes[-1] == 100, "none where there are no drafts"


def test_an_ending_is_part_of_a_bucket() -> None:
    buckets = Buckets(64, 8192)
    reports = Ending(draws=True, reports=True)
    assert buckets.of(sizes(5, 5, 0, 5, tasks=5), DRAWS) == Bucket(8, False, DRAWS)
    several = buckets.of(sizes(5, 5, 0, 5, tasks=17), DRAWS)
    assert several == Bucket(64, False, DRAWS, tokens=16), "continuations of a prompt of one token"
    assert several.sizes == {"T": 16, "B": 64, "R": 64, "G": 0, "S": 64, "D": 64, "L": 0}
    assert buckets.of(sizes(5, 5, 0, 5, tasks=5, reports=5), reports) == Bucket(8, False, reports)
    with_prompt = buckets.of(sizes(5, 5, 0, 5, tasks=5, reports=6), reports)
    assert with_prompt == Bucket(16, False, reports, tokens=16), "tokens of a prompt are reported"
    assert buckets.of(sizes(500, 500, 0, 5, tasks=5, reports=500), reports) is None, "more rows than sequences ever"


def test_a_bucket_has_rows_of_one_kind() -> None:
    none = {"D": 0, "L": 0}
    assert Bucket(8, True).sizes == {"T": 8, "B": 8, "R": 0, "G": 8, "S": 8, **none}
    assert Bucket(8, False).sizes == {"T": 8, "B": 8, "R": 8, "G": 0, "S": 8, **none}
    assert Bucket(8, False, DRAWS).sizes["D"] == 8
    assert Bucket(8, False, Ending(draws=True, reports=True)).sizes["L"] == 8
