"""Positions of what comes behind images, and which works have rows of some."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.step_inputs import StepInputs
from albireo.execution.images import (
    ImageRows,
    RopeAxes,
    axis_positions,
    has_image_rows,
    positions_beside,
    shift_behind,
)
from albireo.graph.ops import RopeSpec
from albireo.image_input import ImageInput, Tile
from albireo.step import SequenceWork

#: Two pictures, the second of which is two runs of tokens with the same grid.
IMAGES = (
    ImageInput(b"1", (), ((3, 15),), (3, 4)),
    ImageInput(b"2", (), ((20, 30), (34, 44)), (1, 10)),
)
AXES = RopeAxes(RopeSpec((1.0, 0.1), 1.0), (0, 1))


def no_tower(tile: np.ndarray) -> np.ndarray:
    raise AssertionError("nothing is read")


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("position", [44, 45, 300])
def test_what_comes_behind_is_turned_by_one_number(count: int, position: int) -> None:
    images = IMAGES[:count]
    wanted = axis_positions(images, position, position + 1)
    assert (wanted == position + shift_behind(images)).all()
    assert (shift_behind(images) != 0) == (count > 0)


@pytest.mark.parametrize(("times", "extent"), [((0, 1, 2), 3), ((0, 2, 4), 5), ((0, 0, 1), 3), ((), 3)])
def test_tiles_of_a_video_are_apart_in_time(times: tuple[int, ...], extent: int) -> None:
    """As Qwen2-VL's paper draws it: three tiles of 2 x 3 rows from position 4 on, then text at one more than the
    greatest of all axes. Without times a span is one tile."""
    spans = ((4, 22),) if times else ((4, 10),)
    video = ImageInput(b"1", (), spans, (2, 3), "video", times)
    end = spans[0][1]
    found = axis_positions([video], 0, end + 2)
    tiles = len(times) or 1
    wanted = [
        [*range(4), *(4 + time for time in times or (0,) for _ in range(6))],
        [*range(4), *(4 + line for _ in range(tiles) for line in (0, 0, 0, 1, 1, 1))],
        [*range(4), *(4 + column for _ in range(2 * tiles) for column in (0, 1, 2))],
    ]
    assert found[:, :end].tolist() == wanted
    assert (found[:, end:] == [[4 + extent, 5 + extent]] * 3).all()
    assert end + shift_behind([video]) == 4 + extent
    for cut in range(1, end + 1):
        assert (axis_positions([video], cut, end + 2) == found[:, cut:]).all(), "in pieces"


def test_rows_of_pictures_stand_where_they_are_and_have_places_beside() -> None:
    """Of two pictures of 2 x 2 and 1 x 3, each within two rows that have none."""
    images = [ImageInput(b"1", (), ((1, 7),), (2, 2)), ImageInput(b"2", (), ((8, 13),), (1, 3))]
    found = positions_beside(images, 0, 15)
    assert found[0].tolist() == [*range(15)]
    assert found[1].tolist() == [0, 1, 0, 1, 0, 1, 6, 7, 8, 0, 1, 2, 12, 13, 14]
    assert found[2].tolist() == [0, 1, 0, 0, 1, 1, 6, 7, 8, 0, 0, 0, 12, 13, 14]
    assert found[3].tolist() == [0, 1, 0, 0, 0, 0, 6, 7, 8, 1, 1, 1, 12, 13, 14]
    for cut in range(1, 15):
        assert (positions_beside(images, cut, 15) == found[:, cut:]).all(), "in pieces"
    beside = ImageRows(no_tower, 1.0, RopeAxes(RopeSpec((1.0, 0.1), 1.0), (0, 3)))
    assert beside.next_positions([images], [15]) is None, "what comes behind is turned by where it stands"


@pytest.mark.parametrize("start", [0, 3, 8])
def test_tokens_of_a_prompt_that_sees_itself_see_its_end(start: int) -> None:
    """Whatever of it is computed, and whether there are pictures in that; what is drawn behind it does not."""
    tile = Tile(1, 1, b"abc", 3)
    image = ImageInput(b"1" * 32, (tile,), ((2, 5),), prefix=10, prefix_key=b"2" * 32)
    work, other = sequence(start, 13 - start, (image,)), sequence(4, 2)
    inputs = step(work, other)
    rows = ImageRows(lambda tile: np.ones((3, 4), np.float32), sees_both_ways=True)
    found = rows.give(inputs, [work, other])
    assert found.row_ends is not None
    assert found.row_ends.tolist() == [10] * (10 - start) + [0] * 3 + [0] * 2
    assert (found.given_rows is None) == (start > 4)
    assert has_image_rows(work)
    assert not has_image_rows(sequence(10, 3, (image,)))


def sequence(start: int, count: int, images: tuple[ImageInput, ...] = ()) -> SequenceWork:
    return SequenceWork(1, tuple(range(count)), start, (), (), images=images)


def step(*works: SequenceWork) -> StepInputs:
    counts = [len(work.token_ids) for work in works]
    ints, none = np.arange(sum(counts), dtype=np.int32), np.zeros(0, np.int32)
    edges = np.cumsum([0, *counts], dtype=np.int32)
    return StepInputs(ints, ints, ints, edges, edges[1:], none, none, none)


def test_next_tokens_of_sequences_with_images_and_without() -> None:
    rows = ImageRows(no_tower, axes=AXES)
    found = rows.next_positions([IMAGES, (), IMAGES[:1]], [50, 7, 20])
    assert found is not None and found.dtype == np.int32
    assert found.tolist() == [50 - 8, 7, 20 - 8]
    assert rows.next_positions([(), ()], [3, 4]) is None, "as positions say"
    assert ImageRows(no_tower).next_positions([IMAGES], [50]) is None


@pytest.mark.parametrize(
    ("start", "count", "wanted"), [(0, 3, False), (0, 4, True), (14, 1, True), (15, 5, False), (30, 4, False)]
)
def test_which_works_have_rows_of_images(start: int, count: int, wanted: bool) -> None:
    work = SequenceWork(0, [1] * count, start, ((1, 2),), images=IMAGES)
    assert has_image_rows(work) is wanted


def test_rows_that_go_deeper_are_divided_as_the_residual_stream_is() -> None:
    """And those in place of embeddings by what these are multiplied by."""
    tile = Tile(1, 1, b"abc", 2)
    image = ImageInput(b"1" * 32, (tile,), ((0, 2),))
    rows = ImageRows(lambda tile: np.full((2, 6), 12, np.float32), 4.0, num_deep=2, deep_factor=0.5)
    found = rows.give(step(sequence(0, 2, (image,))), [sequence(0, 2, (image,))])
    assert [each.tolist() for each in found.given] == [[[3.0] * 2] * 2, [[24.0] * 2] * 2, [[24.0] * 2] * 2]
