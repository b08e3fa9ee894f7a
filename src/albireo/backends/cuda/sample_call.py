"""SampleCall: what kernels/sample_*.py are told of a step, by the names that they have for it.

Made by kernels/sample.py. An argument has one name and one type in all of them: arrays are called as in sampling.py,
beside logits and out; what follows from a row's width is here. Does not know what a kernel does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import triton

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.waiting import programs_of
from albireo.backends.cuda.kernels.parts.weights import weight_bits
from albireo.backends.cuda.sampling import SampleWorkspace, SamplingTensors

_MOST_TILE = 4096
#: Stretches of a tile whose best is noted.
CRESTS = 64
#: Of every argument that is no constexpr.
_TYPES = {
    **dict.fromkeys(("logits", "work", "repetition", "frequency", "presence"), "*fp32"),
    **dict.fromkeys(("temperature", "top_p", "min_p"), "*fp64"),
    **dict.fromkeys(("seed", "position", "best", "keys", "partial", "strict", "state"), "*i64"),
    **dict.fromkeys(("rows", "flags", "top_k", "words", "mask_start", "first_edit", "num_edits"), "*i32"),
    **dict.fromkeys(("alive", "crests", "stretches", "num_found", "inside", "ties", "draws", "arrived"), "*i32"),
    "out": "*i32",
    **dict.fromkeys(("stride", "vocab", "tiles", "num_tasks"), "i32"),
}
#: Of cases compiled ahead of time: Llama 3's vocabulary.
_VOCAB, _TASKS = 128_256, 256
#: What lies at whole 16 bytes there.
ALIGNED = ("logits", "work", "stride", "vocab")


def tile_of(vocab: int) -> int:
    """Entries of a row that one program of a sample_* kernel sees."""
    return min(_MOST_TILE, max(128, int(triton.next_power_of_2(vocab))))


def tiles_of(vocab: int) -> int:
    """Of a row."""
    return -(-vocab // tile_of(vocab))


def _sizes(vocab: int, room: int) -> dict[str, int]:
    """constexprs of rows of vocab logits, and of room for so many tasks."""
    tasks, tiles, tile = triton.next_power_of_2(room), triton.next_power_of_2(tiles_of(vocab)), tile_of(vocab)
    sizes = {"BITS": weight_bits(vocab), "TASKS": int(tasks), "TILES": int(tiles), "TILE": tile}
    return sizes | {"CRESTS": CRESTS, "WIDTH": tile // CRESTS}


@dataclass(frozen=True, slots=True)
class SampleCall:
    """Fields: values: of arguments, by name. num_tasks: that there are. tiles: of a row."""

    values: Mapping[str, Any]
    num_tasks: int
    tiles: int

    @classmethod
    def of(cls, logits: torch.Tensor, tasks: SamplingTensors, space: SampleWorkspace, out: torch.Tensor) -> SampleCall:
        """Args: those of kernels/sample.py."""
        vocab = logits.shape[1]
        arrays = {field.name: getattr(some, field.name) for some in (tasks, space) for field in fields(some)}
        tiles = tiles_of(vocab)
        row = {"logits": logits, "out": out, "stride": logits.stride(0), "vocab": vocab, "tiles": tiles}
        return cls(arrays | row | _sizes(vocab, len(space.draws)), space.num_tasks, tiles)

    @property
    def programs(self) -> tuple[int]:
        """The grid of a launch over tiles of tasks that wait."""
        return programs_of(self.num_tasks, self.tiles)

    def arguments(self, kernel: Any) -> dict[str, Any]:
        """All that a kernel names, but for constexprs that are its own."""
        return {name: self.values[name] for name in kernel.arg_names if name in self.values}


def sample_case(
    name: str,
    kernel: Any,
    max_registers: int,
    max_shared: int,
    words: tuple[str, ...] = (),
    aligned: tuple[str, ...] = ALIGNED,
    num_warps: int = 8,
    **constants: int,
) -> AotCase:
    """Args: words: sought on Hopper. constants: constexprs that are the kernel's own."""
    sizes = _sizes(_VOCAB, _TASKS) | constants
    return AotCase(
        name,
        kernel,
        {name: _TYPES[name] for name in kernel.arg_names if name in _TYPES},
        {name: sizes[name] for name in kernel.arg_names if name in sizes},
        num_warps=num_warps,
        aligned=aligned,
        max_registers=max_registers,
        max_shared=max_shared,
        words={90: words} if words else {},
    )
