"""kv_write: keys and values of a step's tokens to the KV cache, rounded to its type or as codes with a scale a head.

k, v: [T, K * D] float32, D even, rows any distance apart, each its own; v None: of a cache of keys alone. slots: [T]
int32. The same bits as inside qk_norm_rope_kv_write. A program takes some heads of one token; a padding row has slot 0
and writes the null block.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.heads import head_tile, load_heads, store_cached
from albireo.backends.cuda.kv import LayerKV


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
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * HEADS
    slot = tl.load(slots + row)
    a, b = load_heads(k + row * k_stride, first, NUM_KV_HEADS, HEAD_DIM, HEADS, HALF)
    store_cached(cached_k, k_scale, slot, block_size, first, a, b, NUM_KV_HEADS, HEAD_DIM, PADDED_DIM, HEADS, HALF)
    if v is not None:
        a, b = load_heads(v + row * v_stride, first, NUM_KV_HEADS, HEAD_DIM, HEADS, HALF)
        store_cached(cached_v, v_scale, slot, block_size, first, a, b, NUM_KV_HEADS, HEAD_DIM, PADDED_DIM, HEADS, HALF)


def kv_write(
    k: torch.Tensor, v: torch.Tensor | None, slots: torch.Tensor, kv: LayerKV, num_kv_heads: int, head_dim: int
) -> None:
    """Keys and values of a layer are contiguous."""
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
        kv.k.shape[2],
        NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        PADDED_DIM=kv.k.shape[3],
        HEADS=heads,
        HALF=half,
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    signature = {"k": "*fp32", "v": "*fp32", "slots": "*i32", "k_stride": "i32", "v_stride": "i32", "block_size": "i32"}
    heads, half = head_tile(128, 8)
    shape = {"NUM_KV_HEADS": 8, "HEAD_DIM": 128, "PADDED_DIM": 128, "HEADS": heads, "HALF": half}

    def case(name: str, types: dict[str, str], missing: dict[str, None], architecture: int) -> AotCase:
        return AotCase(
            f"kv_write.{name}",
            kv_write_kernel,
            {**signature, **types},
            {**shape, **missing},
            num_warps=1,
            aligned=("k", "v", "cached_k", "cached_v", "k_stride", "v_stride", "block_size"),
            max_registers=96,
            max_shared=4 << 10,
            words={architecture: ("LDG.E.128",)},
            architectures=(architecture,),
        )

    scales = {"k_scale": "*fp32", "v_scale": "*fp32"}
    return [
        case("bfloat16", {"cached_k": "*bf16", "cached_v": "*bf16"}, {"k_scale": None, "v_scale": None}, 90),
        case("int8", {"cached_k": "*i8", "cached_v": "*i8", **scales}, {}, 100),
    ]
