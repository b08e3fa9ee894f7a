"""Pictures of prompts -> rows of a step: what the vision tower gives of them in place of embeddings, and rotations
where positions have three axes.

Called by runner.py and ahead.py. A tower is run when a step first has tokens of a picture; its rows are kept a while,
by what the picture is, so that preempted and repeated prompts do without. Does not know models: it is given what runs a
tower.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from albireo.backends.rope_table import rope_table
from albireo.backends.step_inputs import StepInputs
from albireo.errors import InvariantError
from albireo.graph.ops import RopeSpec
from albireo.image_input import ImageInput, Tile
from albireo.step import SequenceWork

F32 = NDArray[np.float32]
Ints = NDArray[np.int32]

#: Bytes of rows that are kept of pictures: about 100 of 256 rows of 2,560 numbers.
KEPT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class RopeAxes:
    """Rotation of a model whose positions have three axes: time, and row and column within a picture; or four.

    Fields: axes: of each pair of the rotation, which of them it turns by.
    """

    rope: RopeSpec
    axes: tuple[int, ...]

    @property
    def are_beside(self) -> bool:
        """Whether there are four, see positions_beside()."""
        return 3 in self.axes

    def turned(self, inputs: StepInputs, works: Sequence[SequenceWork]) -> StepInputs:
        """A step with what its rows are rotated by: positions, where they are the same on all axes."""
        of_axes = positions_beside if self.are_beside else axis_positions
        places = np.concatenate([of_axes(work.images, *_range(work)) for work in works], axis=1)
        if (places == places[0]).all():
            return replace(inputs, rope_positions=places[0].copy())
        return replace(inputs, rope_rows=self.rows(places))

    def rows(self, places: NDArray[np.int32]) -> F32:
        """[T, D] cosines, then sines. Args: places: [3, T], or [4, T]."""
        tables = np.stack([rope_table(self.rope, axis) for axis in places])
        table = tables[np.array(self.axes), :, np.arange(len(self.axes))]
        return np.ascontiguousarray(np.concatenate([table[..., 0].T, table[..., 1].T], axis=1))


def axis_positions(images: Sequence[ImageInput], start: int, end: int) -> NDArray[np.int32]:
    """[3, end - start] positions of tokens start .. end-1 of a sequence on three axes.

    A picture's tokens all have the time of its first one, and are its grid on the other two; those of a video have the
    times of its tiles, each of which is such a grid. Those of a sound are as text. The text behind goes on at one more
    than the greatest. Source: Qwen2-VL, arXiv:2409.12191, multimodal rotary position embedding.
    """
    found = np.tile(np.arange(start, end, dtype=np.int32), (3, 1))
    shift = 0
    for image in images:
        if image.kind == "sound":
            continue
        if image.grid is None:
            raise InvariantError("an image without a grid, and positions of the model have three axes")
        rows, columns = image.grid
        for first, last in image.spans:
            low, high = max(first, start), min(last, end)
            if low < high:
                tile, place = np.divmod(np.arange(low - first, high - first, dtype=np.int32), rows * columns)
                here = slice(low - start, high - start)
                found[:, here] = first + shift
                found[1, here] += place // columns
                found[2, here] += place % columns
                if image.times:
                    found[0, here] += np.array(image.times, np.int32)[tile]
            shift += _extent(image) - (last - first)
            found[:, max(0, last - start) :] = np.arange(max(last, start), end, dtype=np.int32) + shift
    return found


def positions_beside(images: Sequence[ImageInput], start: int, end: int) -> Ints:
    """[4, end - start] positions of tokens start .. end-1 of a sequence on four axes.

    The first is where a token stands. Of a picture's rows within its grid the others are column, row and the picture's
    number; of those around it, and of text, they are as the first. Source: HunyuanOCR, arXiv:2511.19575.
    """
    found = np.tile(np.arange(start, end, dtype=np.int32), (4, 1))
    for number, image in enumerate(images):
        if image.grid is None:
            raise InvariantError("an image without a grid, and positions of the model have four axes")
        rows, columns = image.grid
        for begin, stop in image.spans:
            around = (stop - begin - rows * columns) // 2
            low, high = max(begin + around, start), min(stop - around, end)
            if low < high:
                place = np.arange(low - begin - around, high - begin - around, dtype=np.int32)
                here = slice(low - start, high - start)
                found[1, here], found[2, here], found[3, here] = place % columns, place // columns, number
    return found


def shift_behind(images: Sequence[ImageInput]) -> int:
    """What the text behind all images is turned by, beside its position: see axis_positions()."""
    return sum(_extent(image) - (end - first) for image in images if image.grid for first, end in image.spans)


def _extent(image: ImageInput) -> int:
    """How far a span of an image reaches, on the axis on which that is farthest."""
    assert image.grid is not None, "asked before"
    return max(*image.grid, 1 + max(image.times, default=0))


def has_image_rows(work: SequenceWork) -> bool:
    """Whether some of a work's tokens are rows of images, or see what is behind them as those do."""
    start, end = _range(work)
    return any(start < image.prefix for image in work.images) or any(
        first < end and start < last for image in work.images for first, last in image.spans
    )


def has_rows_at(images: Sequence[ImageInput], position: int) -> bool:
    """Whether the token at a position behind the prompt has a row, too, which is added to its own."""
    return any(image.is_beside and any(a <= position < b for a, b in image.spans) for image in images)


class ImageRows:
    """Invariant: what a picture's rows are depends on its tiles alone, however often they are computed."""

    def __init__(
        self,
        tower: Callable[[Tile], F32],
        factor: float = 1.0,
        axes: RopeAxes | None = None,
        sees_both_ways: bool = False,
        num_deep: int = 0,
        deep_factor: float = 1.0,
        token: int | None = None,
        ear: Callable[[Tile], F32] | None = None,
        heard: Callable[[Tile], int] | None = None,
        are_embeddings: bool = False,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """Args:
        tower: [rows, E] of a tile. ear: of one of a sound, where another tower hears than sees.
        heard: of a sound with which a sequence begins, how many of its positions are heard; None: all are.
        factor: what the model multiplies embeddings by, which these rows are not.
        axes: None where positions are numbers.
        sees_both_ways: tokens of a picture see all of it, and are in one step.
        num_deep: rows of a tile are [rows, (1 + num_deep) * E]: behind what stands in place of embeddings, what is
            added behind as many layers. deep_factor: what the model keeps the residual stream divided by.
        token: what tokens of pictures are where layers have an embedding of each token; None: none has.
        are_embeddings: a picture is a prompt by itself, and what the tower gives of it is what that is embedded to.
        """
        self._heard, self._are_embeddings = heard, are_embeddings
        self._tower, self._axes, self._sees_both_ways = tower, axes, sees_both_ways
        self._factors = (factor, *(deep_factor,) * num_deep)
        self._num_parts, self._token, self._ear = 1 + num_deep, token, ear
        self._kept: OrderedDict[tuple[bytes, int], F32] = OrderedDict()
        self._kept_bytes, self._num_bytes = kept_bytes, 0

    def give(self, inputs: StepInputs, works: Sequence[SequenceWork]) -> StepInputs:
        """A step with the rows of the pictures that it has tokens of, and the rotations of all tokens."""
        parts, of_token, count = [], np.full(inputs.num_tokens, -1, np.int32), 0
        ends = np.zeros(inputs.num_tokens, np.int32)
        for work, first in zip(works, inputs.query_start.tolist(), strict=False):
            for low, high, rows, is_sound in self._parts(work):
                of_token[first + low : first + high] = np.arange(count, count + high - low, dtype=np.int32)
                # tokens of a sound see what is before them, as text
                ends[first + low : first + high] = 0 if is_sound else work.num_computed_tokens + high
                parts.append(rows)
                count += high - low
            prefix = work.images[0].prefix if work.images else 0
            ends[first : first + max(0, min(len(work.token_ids), prefix - work.num_computed_tokens))] = prefix
        if self._sees_both_ways and ends.any():
            inputs = replace(inputs, row_ends=ends)
        if parts:
            given = np.split(np.concatenate(parts), self._num_parts, axis=1)
            places = tuple(np.ascontiguousarray(each) for each in given)
            inputs = replace(inputs, given=places, given_rows=of_token)
            if self._token is not None:
                ids = np.where(of_token >= 0, np.int32(self._token), inputs.token_ids)
                inputs = replace(inputs, token_ids=ids)
        if self._heard is not None:
            inputs = replace(inputs, row_ends=self._ends_heard(inputs, works))
        return inputs if self._axes is None else self._axes.turned(inputs, works)

    def embedding(self, work: SequenceWork) -> F32 | None:
        """[1, E] of a prompt that is a picture, where that is what the tower gives; None: it is computed."""
        if not self._are_embeddings or not work.images:
            return None
        return np.concatenate([rows for _, _, rows, _ in self._parts(work)])

    def _ends_heard(self, inputs: StepInputs, works: Sequence[SequenceWork]) -> Ints:
        """Of each row how many positions of its sequence's sound are heard."""
        ends = np.zeros(inputs.num_tokens, np.int32)
        for work, first in zip(works, inputs.query_start.tolist(), strict=False):
            for image in work.images[:1]:
                assert self._heard is not None, "asked before"
                ends[first : first + len(work.token_ids)] = self._heard(image.tiles[0])
        return ends

    def next_heard(self, images: Sequence[Sequence[ImageInput]]) -> Ints | None:
        """[B] of sequences' next tokens, how many positions of their sounds are heard; None: all, or there are none.

        Args: images: of each sequence.
        """
        if self._heard is None or not any(images):
            return None
        return np.array([self._heard(some[0].tiles[0]) if some else 0 for some in images], np.int32)

    def next_positions(self, images: Sequence[Sequence[ImageInput]], positions: Sequence[int]) -> Ints | None:
        """[B] by which sequences' next tokens are rotated, all of whose images lie before; None: by positions.

        Args: images, positions: of each sequence.
        """
        if self._axes is None or self._axes.are_beside or not any(images):
            return None
        return np.array([at + shift_behind(some) for at, some in zip(positions, images, strict=True)], np.int32)

    def _parts(self, work: SequenceWork) -> Iterator[tuple[int, int, F32, bool]]:
        """Runs of a work's tokens that are rows of pictures: first and last of them, and the rows; whether they are of
        a sound."""
        start, end = _range(work)
        for image in work.images:
            before = 0
            for first, last in image.spans:
                low, high = max(first, start), min(last, end)
                if low < high:
                    rows = self._rows(image, before + low - first, before + high - first)
                    yield low - start, high - start, rows, image.kind == "sound"
                before += last - first

    def _rows(self, image: ImageInput, low: int, high: int) -> F32:
        """Rows low to high - 1 of a picture, of whichever tiles they are."""
        found, first = [], 0
        for number, tile in enumerate(image.tiles):
            if first < high and low < first + tile.num_rows:
                found.append(self._tile_rows(image, number)[max(0, low - first) : high - first])
            first += tile.num_rows
        return np.concatenate(found)

    def _tile_rows(self, image: ImageInput, number: int) -> F32:
        known = self._kept.get((image.key, number))
        if known is not None:
            self._kept.move_to_end((image.key, number))
            return known
        tile = image.tiles[number]
        if self._ear is not None and image.kind == "sound":
            # nothing of a sound goes deeper
            heard = self._ear(tile)
            rows = np.pad(heard, ((0, 0), (0, (self._num_parts - 1) * heard.shape[1])))
        else:
            rows = self._tower(tile)
        if len(rows) != tile.num_rows:
            raise InvariantError(f"the tower gives {len(rows)} rows of a tile that has {tile.num_rows} tokens")
        factors = np.repeat(np.array(self._factors, np.float32), rows.shape[1] // self._num_parts)
        if (factors != 1.0).any():
            rows = rows / factors
        self._kept[image.key, number] = rows
        self._num_bytes += rows.nbytes
        while self._num_bytes > self._kept_bytes and len(self._kept) > 1:
            self._num_bytes -= self._kept.popitem(last=False)[1].nbytes
        return rows


def _range(work: SequenceWork) -> tuple[int, int]:
    """Positions of a work's tokens."""
    return work.num_computed_tokens, work.num_computed_tokens + len(work.token_ids)
