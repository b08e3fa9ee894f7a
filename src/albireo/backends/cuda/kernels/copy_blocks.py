"""copy_blocks: whole blocks of the KV cache to other blocks, in every layer; for copy on write. copy_slots: the same of
rows of one array, for states that two sequences go on from.

kv: a DeviceKV; pairs: (source, target) as if copied one after another. Pairs of which none reads or writes what another
one writes are copied side by side; where they do, a launch ends and the next begins, which hardly ever happens: a
target is a block that was free. Not part of a recorded step: pairs are host numbers, and go to the device here.

The kernel copies 32-bit words from one array of blocks [layers, blocks, words] to another, and serves swap_blocks too.
It assumes nothing of what a block holds; a program moves 8 KB, so one block of 2 * 32 arrays of 32 KB is 256 of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kv import DeviceKV
from albireo.backends.cuda.page_locked import page_locked

_BLOCK = 2048


@triton.jit
def copy_blocks_kernel(
    source,
    target,
    pairs,
    num_words,
    source_layer,
    source_block,
    target_layer,
    target_block,
    BLOCK: tl.constexpr,
):
    pair, layer = tl.program_id(0), tl.program_id(1).to(tl.int64)
    at = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    from_block = tl.load(pairs + pair * 2).to(tl.int64)
    to_block = tl.load(pairs + pair * 2 + 1).to(tl.int64)
    words = tl.load(source + layer * source_layer + from_block * source_block + at, mask=at < num_words)
    tl.store(target + layer * target_layer + to_block * target_block + at, words, mask=at < num_words)


def launch_copy(source: torch.Tensor, target: torch.Tensor, pairs: torch.Tensor) -> None:
    """source, target: int32 [layers, blocks, words], words contiguous; pairs: int32 [n, 2], no two with one target."""
    layers, _, words = source.shape
    copy_blocks_kernel[(len(pairs), layers, triton.cdiv(words, _BLOCK))](
        source,
        target,
        pairs,
        words,
        source.stride(0),
        source.stride(1),
        target.stride(0),
        target.stride(1),
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def words_of(kv: DeviceKV) -> tuple[torch.Tensor, ...]:
    """The cache's arrays as int32 [2 L, N, words of a block]: elements, and scales where there are any."""
    return tuple(array.view(torch.int32).flatten(3).flatten(0, 1) for array in (*kv.numbers, *kv.scales))


def independent(pairs: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Cuts pairs where one reads or writes what one before it wrote, or writes what one before it reads."""
    found: list[tuple[int, int]] = []
    read: set[int] = set()
    written: set[int] = set()
    for source, target in pairs:
        if source in written or target in written or target in read:
            yield found
            found, read, written = [], set(), set()
        found.append((source, target))
        read.add(source)
        written.add(target)
    if found:
        yield found


def pairs_on(device: torch.device, pairs: Sequence[tuple[int, int]]) -> torch.Tensor:
    """[n, 2] int32, from page-locked memory, which torch keeps until it is read: the host does not wait for the steps
    under way."""
    given = torch.tensor(pairs, dtype=torch.int32)
    return (
        page_locked(tuple(given.shape), torch.int32, is_locked=device.type == "cuda")
        .copy_(given)
        .to(device, non_blocking=True)
    )


def copy_blocks(kv: DeviceKV, pairs: Sequence[tuple[int, int]]) -> None:
    _copy(words_of(kv), pairs)


def copy_slots(numbers: torch.Tensor, pairs: Sequence[tuple[int, int]]) -> None:
    """numbers: [slots, any] float32, rows a multiple of 4 long."""
    _copy((numbers.view(torch.int32)[None],), pairs)


def _copy(arrays: Sequence[torch.Tensor], pairs: Sequence[tuple[int, int]]) -> None:
    for some in independent(pairs):
        on_device = pairs_on(arrays[0].device, some)
        for words in arrays:
            launch_copy(words, words, on_device)


def aot_cases() -> list[AotCase]:
    strides = ("source_layer", "source_block", "target_layer", "target_block")
    signature = {"source": "*i32", "target": "*i32", "pairs": "*i32", "num_words": "i32"} | dict.fromkeys(
        strides, "i64"
    )
    return [
        AotCase(
            "copy_blocks",
            copy_blocks_kernel,
            signature,
            {"BLOCK": _BLOCK},
            # of words that are no multiple of 16 another is made, whose loads are narrow
            aligned=("source", "target", "num_words", *strides),
            max_registers=64,
            max_shared=0,
            words={90: ("LDG.E.128", "STG.E.128")},
        )
    ]
