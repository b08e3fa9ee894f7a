"""Linears of the native core with weights in few bits, on arrays: packed, and run at a level of instructions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu.machine import thread_pool
from albireo.backends.cpu.pack_encoded import _addresses
from albireo.backends.step_inputs import StepInputs
from albireo.dtypes import TOKEN, natural_stride
from albireo.encodings import Encoding
from albireo.quantization.encoded import Encoded, storable_scale

F32 = NDArray[np.float32]


def random_gammas(e: Encoding, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Of kind microscaled: e8m0 from 2^-7 to 2^8, or every finite e4m3 number of both signs."""
    if e.group == 32:
        return rng.integers(120, 136, shape, np.uint8)
    return rng.choice(np.delete(np.arange(256, dtype=np.uint8), [127, 255]), shape)


def half_numbers(shape: tuple[int, int], rng: np.random.Generator) -> F32:
    """Float16 numbers, small ones that are not normal among them."""
    numbers = rng.normal(size=shape) * np.where(rng.random(shape) < 0.1, 2.0**-16, 1.0)
    return numbers.astype(np.float16).astype(np.float32)


def random_encoded(e: Encoding, n: int, k: int, seed: int, *, has_zeros: bool = True) -> Encoded:
    """Codes and zero points over the whole range, scales of both signs; with zeros a row of them."""
    rng = np.random.default_rng(seed)
    groups = e.num_groups(k)
    codes = rng.integers(0, 1 << e.bits, (n, k), np.uint8)
    scale = rng.normal(size=(n, groups)).astype(np.float32)
    zero = gamma = offset = None
    if e.kind == "float":
        codes = np.where(codes & 0x7F == 0x7F, 0, codes).astype(np.uint8)  # no NaN
    elif e.kind == "integer":
        zero = rng.integers(0, 1 << e.bits, (n, groups), np.uint8)
        if e.group is None:
            codes, zero = np.maximum(codes, 1), np.full((n, 1), 128, np.uint8)
        else:
            scale = storable_scale(scale)
    elif e.kind == "affine":
        offset = rng.normal(size=(n, groups)).astype(np.float32)
    elif e.is_nested:
        scale = half_numbers((n, e.num_nests(k)), rng)
        gamma = rng.integers(0, 256, (n, groups), np.uint8)
        if e.kind == "nested affine":
            zero, offset = rng.integers(0, 256, (n, groups), np.uint8), half_numbers(scale.shape, rng)
    elif e.kind == "microscaled":
        scale, gamma = scale[:, :1].copy(), random_gammas(e, (n, groups), rng)
    else:
        scale = scale[:, :1].copy()
        zero, gamma = rng.integers(0, 16, (n, groups), np.uint8), rng.integers(1, 9, (n, groups), np.uint8)
    if has_zeros:
        scale[n // 2] = 0
    return Encoded(e, codes, scale, zero, gamma, offset)


def panels(encoded: Encoded) -> NDArray[np.uint8]:
    n, k = encoded.shape
    padded = -(-n // 64) * 64
    name = encoded.encoding.name
    out = np.full(padded // 64 * _native.panel_bytes(name, k) + 4096, 0xCD, np.uint8)
    rows = {}
    for part in ("codes", "scale", "zero", "gamma", "offset"):
        array = getattr(encoded, part)
        rows[part] = np.zeros(padded, np.uint64)
        if array is not None:
            rows[part][:n] = _addresses(array)
    _native.pack_encoded(thread_pool(1), *rows.values(), k, name, out.ctypes.data)
    return out


def tokens(x: F32, level: str, dtype: str = "float32") -> NDArray[np.uint8]:
    """Rows of 8-bit codes, made by the native core."""
    m, k = x.shape
    out = np.full((m, natural_stride(TOKEN, k)), 0xCD, np.uint8)
    source = np.pad(x, ((0, 0), (0, 16)))
    args: dict[str, Any] = {"x": source.ctypes.data, "x_stride": k + 16, "out": out.ctypes.data, "k": k, "act": 0}
    run("elementwise", level, TOKEN, args | {"out_dtype": TOKEN, "out_stride": out.shape[1], "x_dtype": dtype}, m)
    return out


def run(family: str, level: str, dtype: str, args: dict[str, Any], m: int, threads: int = 1) -> None:
    program = _native.Program(thread_pool(threads), 4)
    program.add(family, level, dtype, args | {"rows": "T"})
    inputs = step(m)
    program.run(*inputs.arrays, np.zeros((4, 65), np.int32), np.zeros((4, 65), np.float32))


def step(m: int) -> StepInputs:
    zeros = np.zeros(m, np.int32)
    none = np.zeros(0, np.int32)
    return StepInputs(
        token_ids=zeros,
        positions=np.arange(m, dtype=np.int32),
        slots=np.arange(m, dtype=np.int32),
        query_start=np.array([0, m], np.int32),
        context_len=np.array([m], np.int32),
        block_table=np.zeros((1, 1), np.int32),
        logit_rows=none,
        top_rows=none,
        top_counts=none,
    )


def linear(x: NDArray[np.uint8], encoded: Encoded, packed: NDArray[np.uint8], level: str, threads: int = 1) -> F32:
    n, k = encoded.shape
    out = np.full((len(x), n), np.nan, np.float32)
    args = {"x": x.ctypes.data, "x_stride": x.shape[1], "x_dtype": TOKEN, "weight": packed.ctypes.data}
    args |= {"w_dtype": encoded.encoding.name, "out": out.ctypes.data, "out_stride": n, "n": n, "k": k}
    run("linear", level, encoded.encoding.name, args, len(x), threads)
    return out
