"""qk_norm_rope_kv_write: a token's queries, keys and values from one linear to where attention finds them.

qkv: [T, (H + 2K) * D] float32: H query, K key and K value heads of D channels, D even, 2 to 256; bias: as long as a
row. Bias is added; queries and keys are normed head by head where q_norm, k_norm [D] are given, and rotated by the
row's position: rope_table [positions, 2, D / 2] float32, cosines then sines. Queries go to q: [T, H * D], rounded to
its type; keys and values to the KV cache at slots [T], rounded to its type or as codes with a scale a head. Everything
before is float32. positions, slots: [T] int32. A program takes some heads of one token; a padding row has slot 0 and
writes the null block, which several may do at once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.heads import (
    head_tile,
    load_heads,
    normalize,
    rotate,
    store_cached,
    store_heads,
)
from albireo.backends.cuda.kv import LayerKV


@triton.jit
def qk_norm_rope_kv_write_kernel(
    qkv,
    bias,
    q_norm,
    k_norm,
    rope_table,
    positions,
    slots,
    q,
    k,
    v,
    k_scale,
    v_scale,
    qkv_stride,
    q_stride,
    block_size,
    eps,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    NORMS_V: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    query_groups: tl.constexpr = (NUM_HEADS + HEADS - 1) // HEADS
    key_groups: tl.constexpr = (NUM_KV_HEADS + HEADS - 1) // HEADS
    heads = qkv + row * qkv_stride
    position, slot = tl.load(positions + row), tl.load(slots + row)
    if group < query_groups:
        first = group * HEADS
        a, b = _biased(heads, bias, 0, first, NUM_HEADS, HEAD_DIM, HEADS, HALF)
        if q_norm is not None:
            a, b = normalize(a, b, q_norm, eps, HEAD_DIM, HALF)
        a, b = rotate(a, b, rope_table, position, HEAD_DIM, HALF)
        store_heads(q + row * q_stride, first, NUM_HEADS, a, b, HEAD_DIM, HEADS, HALF)
    elif group < query_groups + key_groups:
        first = (group - query_groups) * HEADS
        a, b = _biased(heads, bias, NUM_HEADS, first, NUM_KV_HEADS, HEAD_DIM, HEADS, HALF)
        if k_norm is not None:
            a, b = normalize(a, b, k_norm, eps, HEAD_DIM, HALF)
        a, b = rotate(a, b, rope_table, position, HEAD_DIM, HALF)
        store_cached(k, k_scale, slot, block_size, first, a, b, NUM_KV_HEADS, HEAD_DIM, PADDED_DIM, HEADS, HALF)
    else:
        first = (group - query_groups - key_groups) * HEADS
        a, b = _biased(heads, bias, NUM_HEADS + NUM_KV_HEADS, first, NUM_KV_HEADS, HEAD_DIM, HEADS, HALF)
        if NORMS_V:
            a, b = normalize(a, b, None, eps, HEAD_DIM, HALF)
        store_cached(v, v_scale, slot, block_size, first, a, b, NUM_KV_HEADS, HEAD_DIM, PADDED_DIM, HEADS, HALF)


@triton.jit
def _biased(
    heads,
    bias,
    skipped: tl.constexpr,
    first,
    COUNT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    """Heads first .. first + HEADS of the COUNT that begin behind skipped ones, and their bias."""
    a, b = load_heads(heads + skipped * HEAD_DIM, first, COUNT, HEAD_DIM, HEADS, HALF)
    if bias is not None:
        bias_a, bias_b = load_heads(bias + skipped * HEAD_DIM, first, COUNT, HEAD_DIM, HEADS, HALF)
        a, b = a + bias_a, b + bias_b
    return a, b


def qk_norm_rope_kv_write(
    qkv: torch.Tensor,
    bias: torch.Tensor | None,
    q_norm: torch.Tensor | None,
    k_norm: torch.Tensor | None,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    q: torch.Tensor,
    kv: LayerKV,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    eps: float,
    norms_v: bool = False,
) -> None:
    """eps: of the norms. norms_v: heads of values are normed, too, by no weight.

    Keys and values of a layer are contiguous.
    """
    heads, half = head_tile(head_dim, num_heads)
    groups = triton.cdiv(num_heads, heads) + 2 * triton.cdiv(num_kv_heads, heads)
    qk_norm_rope_kv_write_kernel[(q.shape[0], groups)](
        qkv,
        bias,
        q_norm,
        k_norm,
        rope_table,
        positions,
        slots,
        q,
        kv.k,
        kv.v,
        kv.k_scale,
        kv.v_scale,
        qkv.stride(0),
        q.stride(0),
        kv.k.shape[2],
        eps,
        NUM_HEADS=num_heads,
        NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        PADDED_DIM=kv.k.shape[3],
        HEADS=heads,
        HALF=half,
        NORMS_V=norms_v,
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    signature = {
        "qkv": "*fp32",
        "rope_table": "*fp32",
        "positions": "*i32",
        "slots": "*i32",
        "q": "*bf16",
        "qkv_stride": "i32",
        "q_stride": "i32",
        "block_size": "i32",
        "eps": "fp32",
    }
    norms, bias = {"q_norm": "*fp32", "k_norm": "*fp32"}, {"bias": "*fp32"}

    def case(
        name: str, kv: str, head_dim: int, more: dict[str, str], architectures: tuple[int, ...], norms_v: bool = False
    ) -> AotCase:
        types = {**signature, "k": kv, "v": kv, **more}
        heads, half = head_tile(head_dim, 32)
        constants = {"NUM_HEADS": 32, "NUM_KV_HEADS": 8, "HEAD_DIM": head_dim, "PADDED_DIM": head_dim}
        missing = {role: None for role in ("bias", "q_norm", "k_norm", "k_scale", "v_scale") if role not in more}
        return AotCase(
            f"qk_norm_rope_kv_write.{name}",
            qk_norm_rope_kv_write_kernel,
            types,
            {**constants, "HEADS": heads, "HALF": half, "NORMS_V": norms_v, **missing},
            num_warps=1,
            aligned=tuple(role for role in types if role not in ("positions", "slots", "eps")),
            max_registers=80,
            max_shared=4 << 10,
            words={architecture: ("LDG.E.128",) for architecture in architectures},
            architectures=architectures,
        )

    scales = {"k_scale": "*fp32", "v_scale": "*fp32"}
    return [
        case("bfloat16.d128", "*bf16", 128, norms, (80, 90, 100)),
        case("bfloat16.d80", "*bf16", 80, bias, (90,)),
        case("int8.d128", "*i8", 128, {**bias, **scales}, (80,)),
        case("fp8.d128", "*fp8e4nv", 128, {**norms, **scales}, (90, 100)),
        case("bfloat16.d256", "*bf16", 256, norms, (90,)),
        case("bfloat16.d256.values", "*bf16", 256, norms, (90,), True),
    ]
