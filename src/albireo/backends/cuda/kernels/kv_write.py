"""kv_write: keys and values of a step's tokens to the KV cache, rounded to its type or as codes with a scale a head.

k, v: [T, K * D] float32, D even, rows any distance apart, each its own; v None: of a cache of keys alone. slots: [T]
int32. The same bits as inside qk_norm_rope_kv_write. A program takes some heads of one token; a padding row has slot 0
and writes the null block.

Of a cache whose entries are of several positions each (kv.every) what is written is the row of the last of them;
positions: [T] int32. Blocks of it may be any distance apart.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.heads import head_tile, load_heads, store_cached
from albireo.backends.cuda.kv import LayerKV
from albireo.errors import InvariantError

_STRIDES = ("k_stride", "v_stride", "block_size")


@triton.jit
def kv_write_kernel(
    k,
    v,
    slots,
    cached_k,
    cached_v,
    k_scale,
    v_scale,
    k_stride,
    v_stride,
    block_size,
    positions,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    EVERY: tl.constexpr,
    ENTRIES: tl.constexpr,
    APART: tl.constexpr,
):
    """EVERY: positions of an entry; a block has ENTRIES of them, and is APART numbers from the next; of several."""
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * HEADS
    slot = tl.load(slots + row)
    if EVERY > 1:
        # of a row that ends no entry there are heads behind the last one
        first = tl.where((tl.load(positions + row) + 1) % EVERY == 0, first, NUM_KV_HEADS)
        cached_k += (slot // block_size).to(tl.int64) * APART
        slot = slot % block_size // (block_size // ENTRIES)
        block_size = ENTRIES
    a, b = load_heads(k + row * k_stride, first, NUM_KV_HEADS, HEAD_DIM, HEADS, HALF)
    store_cached(cached_k, k_scale, slot, block_size, first, a, b, NUM_KV_HEADS, HEAD_DIM, PADDED_DIM, HEADS, HALF)
    if v is not None:
        a, b = load_heads(v + row * v_stride, first, NUM_KV_HEADS, HEAD_DIM, HEADS, HALF)
        store_cached(cached_v, v_scale, slot, block_size, first, a, b, NUM_KV_HEADS, HEAD_DIM, PADDED_DIM, HEADS, HALF)


def kv_write(
    k: torch.Tensor,
    v: torch.Tensor | None,
    slots: torch.Tensor,
    kv: LayerKV,
    num_kv_heads: int,
    head_dim: int,
    positions: torch.Tensor | None = None,
) -> None:
    """Keys and values of a layer are contiguous, but for blocks of entries of several positions, which need positions.

    Raises: InvariantError for values of such a layer.
    """
    if kv.every > 1 and (v is not None or positions is None):
        raise InvariantError(f"entries of {kv.every} positions have keys alone, and are written by position")
    heads, half = head_tile(head_dim, num_kv_heads)
    kv_write_kernel[(k.shape[0], triton.cdiv(num_kv_heads, heads))](
        k,
        v,
        slots,
        kv.k,
        kv.v,
        kv.k_scale,
        kv.v_scale,
        k.stride(0),
        0 if v is None else v.stride(0),
        kv.block_size or kv.k.shape[2],
        positions if kv.every > 1 else None,
        NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        PADDED_DIM=kv.k.shape[3],
        HEADS=heads,
        HALF=half,
        EVERY=kv.every,
        ENTRIES=kv.k.shape[2] if kv.every > 1 else 1,
        APART=kv.k.stride(0) if kv.every > 1 else 0,
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    signature = {"k": "*fp32", "slots": "*i32", "k_stride": "i32", "v_stride": "i32", "block_size": "i32"}

    def case(
        name: str,
        types: dict[str, str],
        architectures: tuple[int, ...],
        of_entries: dict[str, int] | None = None,
        heads: tuple[int, int] = (8, 128),
    ) -> AotCase:
        """of_entries: of several positions; these have keys alone."""
        found, half = head_tile(heads[1], heads[0])
        shape = {"NUM_KV_HEADS": heads[0], "HEAD_DIM": heads[1], "PADDED_DIM": heads[1], "HEADS": found, "HALF": half}
        told = signature | types | ({"positions": "*i32"} if of_entries else {"v": "*fp32"})
        missing = ("v", "cached_v", "k_scale", "v_scale", "positions")
        return AotCase(
            f"kv_write.{name}",
            kv_write_kernel,
            told,
            shape
            | (of_entries or {"EVERY": 1, "ENTRIES": 1, "APART": 0})
            | {role: None for role in missing if role not in told},
            num_warps=1,
            aligned=tuple(role for role in ("k", "v", "cached_k", "cached_v", *_STRIDES) if role in told),
            max_registers=96,
            max_shared=4 << 10,
            words=dict.fromkeys(architectures, ("LDG.E.128",)),
            architectures=architectures,
        )

    scales = {"k_scale": "*fp32", "v_scale": "*fp32"}
    entries = {"EVERY": 4, "ENTRIES": 4, "APART": 65536}
    return [
        case("bfloat16", {"cached_k": "*bf16", "cached_v": "*bf16"}, (90,)),
        case("int8", {"cached_k": "*i8", "cached_v": "*i8", **scales}, (100,)),
        case("entries", {"cached_k": "*bf16"}, (80, 90, 100), entries, (1, 512)),
    ]
