"""The weights file against the checkpoint: every constant is packed once more, and the bytes are compared.

Called by run.py. Packing only moves and rounds numbers, so what differs is damage, whatever the hashes say. Holds one
constant at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from albireo.artifact.reader import RankFiles
from albireo.backends.cpu.kv_view import widen
from albireo.backends.cpu.machine import thread_pool
from albireo.backends.cpu.stored import pack_image
from albireo.dtypes import itemsize
from albireo.encodings import is_encoding
from albireo.graph.node import ConstantDef
from albireo.graph.program import PANEL, PackedConstant, Program
from albireo.models.checkpoint.weights import Checkpoint

#: Rows of a sub-panel, see graph/program.py and csrc/include/albireo/types.h.
_SUB_PANEL = 16

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Damage:
    """The first element of a constant that is not the checkpoint's.

    Fields:
        constant: its name; readers: origins of the calls that read it.
        at: where the element is from: tensor, row and column of the checkpoint.
        byte: in the weights file; num_bytes: how many bytes of the constant differ.
    """

    constant: str
    readers: tuple[str, ...]
    at: str
    seen: float
    wanted: float
    byte: int
    num_bytes: int

    def __str__(self) -> str:
        return (
            f"{', '.join(self.readers)}: {self.constant} is not the checkpoint's: {self.at} is {self.seen:.6g}, wanted "
            f"{self.wanted:.6g} (byte {self.byte:,} of the weights file; {self.num_bytes:,} of its bytes differ)"
        )


def find_damage(
    program: Program,
    files: RankFiles,
    checkpoint: Checkpoint,
    advance: Callable[[int], None],
    device: Literal["cpu", "cuda"] = "cpu",
) -> Damage | None:
    """Compare every constant of a rank's program. advance is called with the bytes just compared.

    Args: device: whose kernels the constants are for.
    Cost: as much as a build: about 1.5 s a GB.
    """
    pack = _pack_for_gpu if device == "cuda" else _pack
    for name, constant in program.constants.items():
        stored = files.stored[name]
        num_bytes = min(constant.num_bytes, stored.constant.num_bytes)
        wanted = pack(constant, checkpoint)[:num_bytes]
        seen = np.fromfile(files.weights, np.uint8, num_bytes, offset=stored.offset)
        if not np.array_equal(seen, wanted):
            readers = [call.origin for call in program.calls if name in call.args.values()]
            return _damage(constant, tuple(dict.fromkeys(readers)), stored.offset, seen, wanted)
        advance(num_bytes)
    return None


def _pack(constant: PackedConstant, checkpoint: Checkpoint) -> Bytes:
    return pack_image(thread_pool(None), {constant.name: constant}, checkpoint, lambda _: None).memory.view()


def _pack_for_gpu(constant: PackedConstant, checkpoint: Checkpoint) -> Bytes:
    from albireo.backends.cuda.stored import write_constants

    image = np.zeros(constant.num_bytes, np.uint8)
    write_constants({constant.name: constant}, {constant.name: 0}, checkpoint, image, lambda _: None)
    return image


def _damage(constant: PackedConstant, readers: tuple[str, ...], offset: int, seen: Bytes, wanted: Bytes) -> Damage:
    differs = np.flatnonzero(seen != wanted)
    _, _, dtype = constant.packing.partition(".")
    dtype = dtype or "float32"
    first = int(differs[0])
    if is_encoding(dtype):  # a byte may be a code, two, or a part of a scale
        place = f"byte {first} of its codes and scales"
        if constant.packing.startswith("p64"):
            panel = first // (constant.num_bytes // -(-constant.rows // PANEL))
            place = f"a byte of the panel of rows {panel * PANEL} to {panel * PANEL + PANEL - 1}"
        return Damage(constant.name, readers, place, seen[first], wanted[first], offset + first, len(differs))
    size = itemsize(dtype)
    index = first // size
    number, right = (float(widen(data[index * size : (index + 1) * size], dtype)[0]) for data in (seen, wanted))
    place = _place(constant, index, dtype)
    return Damage(constant.name, readers, place, number, right, offset + first, len(differs))


def _place(constant: PackedConstant, index: int, dtype: str) -> str:
    """What element number index of a packed constant is."""
    if constant.definition is None:
        return f"position {index // constant.cols} of the rotation table"
    row, column = divmod(index, constant.cols)
    if constant.packing.startswith("p64"):
        pair = 2 if dtype == "bfloat16" else 1
        depth = -(-constant.cols // pair) * pair
        panel, inside = divmod(index, _SUB_PANEL * depth)
        column, lane = inside // (_SUB_PANEL * pair) * pair + inside % pair, inside // pair % _SUB_PANEL
        row = panel * _SUB_PANEL + lane
    elif constant.rows == 1:
        row, column = column, 0
    source, row = _source(constant.definition, row)
    place = f"row {row}, column {column}"
    return place if source == constant.name else f"{source}, {place}"


def _source(definition: ConstantDef, row: int) -> tuple[str, int]:
    for segment in definition.segments:
        if row < len(segment):
            return segment.source or "padding", segment.start + row
        row -= len(segment)
    return "padding", row
