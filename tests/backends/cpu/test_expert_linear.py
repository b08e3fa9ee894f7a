"""expert_linear at every level and weight type: each pair has the bits of a linear with its expert's matrix alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu.machine import isa_levels
from albireo.dtypes import TOKEN
from albireo.encodings import ENCODINGS
from albireo.quantization.rounding import round_weights
from backends.cpu import encoded_linears
from backends.cpu.harness import (
    assert_same_bits,
    encode,
    interleave,
    level_of,
    normal,
    panels,
    pool,
    rows_step,
    variants,
)

Array = NDArray[Any]
Ids = NDArray[np.int32]
ACTS = {"none": 0, "silu_mul": 1, "clamped_swiglu": 6}
#: num_experts, top_k, tokens, n, k: rows of an expert are one, a tall tile, more than a chunk, more than a slab of 192.
SHAPES = [(5, 2, 1, 70, 36), (11, 3, 7, 33, 50), (3, 1, 66, 100, 34), (4, 2, 420, 64, 18)]
#: Whole groups, and a rest of one behind which a sum may read what its thread left there before.
INNER = (256, 40)
ENCODED = [
    (name, level)
    for name in (
        "int8",
        "int8.g32",
        "int4.g64",
        "int4.g32.affine",
        "int4p.g64",
        "fp4.g16",
        "fp4.g32",
        "fp8",
        "fp8.g128",
    )
    for level in isa_levels()
    if level == level_of("expert_linear", level, "fp8" if ENCODINGS[name].kind == "float" else "integers")
]


def choose(num_experts: int, top_k: int, tokens: int, seed: int = 0) -> Ids:
    """[T, k] distinct experts of each token, the first more often than others."""
    rng = np.random.default_rng(seed)
    liked = np.where(np.arange(num_experts) == 0, 3.0, 1.0)
    keys = rng.random((tokens, num_experts)) ** (1 / liked)
    return np.ascontiguousarray(np.argsort(-keys, axis=1)[:, :top_k], np.int32)


def run_experts(
    x: Array, weight: Array, ids: Ids, threads: int = 1, biases: list[Array] | None = None, **args: Any
) -> Array:
    """[P, n] what a call gives. Args: weight: the panels of all experts. biases: of each expert's panels."""
    n, stored = args["n"], np.uint16 if args.get("out_dtype") == "bfloat16" else np.float32
    out = np.full((ids.size, n), 0xFF, np.uint8).repeat(np.dtype(stored).itemsize, axis=1).view(stored)
    level, dtype = args.pop("level"), args["w_dtype"]
    args |= {"x": x.ctypes.data, "weight": weight.ctypes.data, "out": out.ctypes.data, "ids": ids.ctypes.data}
    args |= {"top_k": ids.shape[1], "most_pairs": ids.size + 5, "rows": "P"}
    of_all = None if biases is None else np.concatenate(biases)
    args |= {} if of_all is None else {"bias": of_all.ctypes.data}
    program = _native.Program(pool(threads), 4)
    program.add("expert_linear", level, dtype, args)
    step = rows_step(len(ids))
    program.run(*step.arrays, np.zeros((4, _native.TOP_MOST), np.int32), np.zeros((4, _native.TOP_MOST), np.float32))
    return out


def run_linear(x: Array, weight: Array, bias: Array | None = None, **args: Any) -> Array:
    """The same of a linear with one expert's panels."""
    stored = np.uint16 if args.get("out_dtype") == "bfloat16" else np.float32
    out = np.full((len(x), args["n"]), 0xFF, np.uint8).repeat(np.dtype(stored).itemsize, axis=1).view(stored)
    level, dtype = args.pop("level"), args["w_dtype"]
    for name in ("num_experts", "of_pairs"):
        args.pop(name, None)
    args |= {"x": x.ctypes.data, "weight": weight.ctypes.data, "out": out.ctypes.data, "rows": "T"}
    args |= {} if bias is None else {"bias": bias.ctypes.data}
    program = _native.Program(pool(1), 4)
    program.add("linear", level, dtype, args)
    step = rows_step(len(x))
    program.run(*step.arrays, np.zeros((4, _native.TOP_MOST), np.int32), np.zeros((4, _native.TOP_MOST), np.float32))
    return out


def expected(x: Array, one: list[Array], ids: Ids, biases: list[Array] | None = None, **args: Any) -> Array:
    """Pair by pair from linears of all the rows that an expert has."""
    rows = x if args["of_pairs"] else np.repeat(x, ids.shape[1], axis=0)
    found: list[Any] = [None] * ids.size
    for expert, weight in enumerate(one):
        pairs = np.flatnonzero(ids.reshape(-1) == expert)
        if len(pairs):
            bias = None if biases is None else biases[expert]
            result = run_linear(np.ascontiguousarray(rows[pairs]), weight, bias, **args)
            for pair, row in zip(pairs, result, strict=True):
                found[pair] = row
    return np.stack(found)


@pytest.mark.parametrize(("dtype", "level"), variants("expert_linear"))
@pytest.mark.parametrize("act", ACTS)
def test_numbers(dtype: str, level: str, act: str) -> None:
    for num_experts, top_k, tokens, n, k in SHAPES[: 2 if level == "scalar" else None]:
        weights = [normal(n, k, seed=e, dtype=dtype) for e in range(2 * num_experts)]
        if act == "none":
            one = [panels(w, dtype).stored.reshape(-1) for w in weights[:num_experts]]
        else:
            pairs = zip(weights[::2], weights[1::2], strict=True)
            one = [panels(interleave(gate, up), dtype).stored.reshape(-1) for gate, up in pairs]
        every, ids = np.concatenate([*one, np.zeros(4096, one[0].dtype)]), choose(num_experts, top_k, tokens)
        for of_pairs in (0, 1):
            x = encode(normal(tokens * (top_k if of_pairs else 1), k, seed=9, dtype=dtype), dtype)
            args = {"n": n, "k": k, "w_dtype": dtype, "x_dtype": dtype, "act": ACTS[act], "num_experts": num_experts}
            args |= {"of_pairs": of_pairs, "level": level, "x_stride": x.shape[1]}
            args |= {"out_dtype": "bfloat16"} if act != "none" and dtype == "bfloat16" else {}
            height = -(-n // 64) * 64 if act == "none" else -(-n // 32) * 64
            vectors = [normal(1, height, seed=50 + e)[0] for e in range(num_experts)]
            for biases in (None, vectors) if act != "silu_mul" else (None,):
                wanted = expected(x, one, ids, biases, **args)
                for threads in (1, 2, 4):
                    got = run_experts(x, every, ids, threads, biases, **args)
                    assert_same_bits(got, wanted, f"{num_experts} experts, {tokens} tokens, {threads} threads")


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize(("name", "level"), ENCODED)
def test_few_bits(name: str, level: str, inner: int) -> None:
    e = ENCODINGS[name]
    num_experts, top_k, n = 6, 2, 65
    for tokens in (1, 20, 130) if level != "scalar" else (1, 5):
        if e.kind == "float":
            of = [round_weights(normal(n, inner, seed=i), e) for i in range(num_experts)]
            x = encode(normal(tokens, inner, seed=7, dtype="bfloat16"), "bfloat16")
            args: dict[str, Any] = {"x_dtype": "bfloat16"}
        else:
            of = [encoded_linears.random_encoded(e, n, inner, seed=i) for i in range(num_experts)]
            x = encoded_linears.tokens(normal(tokens, inner, seed=7), "scalar")
            args = {"x_dtype": TOKEN}
        size = -(-n // 64) * _native.panel_bytes(name, inner)
        one = [encoded_linears.panels(each) for each in of]
        every = np.concatenate([*(each[:size] for each in one), one[0][size:]])
        ids = choose(num_experts, top_k, tokens)
        args |= {"n": n, "k": inner, "w_dtype": name, "num_experts": num_experts, "of_pairs": 0}
        args |= {"level": level, "x_stride": x.shape[1]}
        wanted = expected(x, one, ids, **args)
        for threads in (1, 3):
            assert_same_bits(run_experts(x, every, ids, threads, **args), wanted, f"{tokens} tokens, {threads} threads")


@pytest.mark.parametrize("level", [level for dtype, level in variants("expert_linear") if dtype == "bfloat16"])
def test_a_row_does_not_depend_on_what_else_there_is(level: str) -> None:
    """Alone, in chunks, or in another order, whoever else has the same expert."""
    num_experts, top_k, tokens, n, k = 7, 3, 90, 48, 40
    weights = [normal(n, k, seed=e, dtype="bfloat16") for e in range(num_experts)]
    every = np.concatenate([panels(w, "bfloat16").stored.reshape(-1) for w in weights])
    every = np.concatenate([every, np.zeros(4096, every.dtype)])
    x, ids = encode(normal(tokens, k, seed=3, dtype="bfloat16"), "bfloat16"), choose(num_experts, top_k, tokens)
    args = {"n": n, "k": k, "w_dtype": "bfloat16", "x_dtype": "bfloat16", "num_experts": num_experts, "level": level}
    whole = run_experts(x, every, ids, **args).reshape(tokens, top_k, n)
    order = np.random.default_rng(1).permutation(tokens)
    mixed = run_experts(np.ascontiguousarray(x[order]), every, np.ascontiguousarray(ids[order]), 2, **args)
    assert_same_bits(mixed.reshape(tokens, top_k, n), whole[order], "in another order")
    for start, stop in ((0, 1), (1, 12), (12, 60), (60, 90)):
        part = run_experts(x[start:stop].copy(), every, ids[start:stop].copy(), 2, **args)
        assert_same_bits(part.reshape(-1, top_k, n), whole[start:stop], f"rows {start} to {stop}")


def test_each_choice_of_all_tokens_may_be_one_expert() -> None:
    """One expert has every row, the others none."""
    level = next(level for dtype, level in variants("expert_linear") if dtype == "float32")
    weights = [normal(64, 16, seed=e) for e in range(9)]
    every = np.concatenate([*(panels(w, "float32").stored.reshape(-1) for w in weights), np.zeros(4096, np.float32)])
    x, ids = normal(250, 16, seed=5), np.full((250, 1), 8, np.int32)
    args = {"n": 64, "k": 16, "w_dtype": "float32", "x_dtype": "float32", "num_experts": 9, "level": level}
    wanted = run_linear(x, panels(weights[8], "float32").stored.reshape(-1), **args)
    assert_same_bits(run_experts(x, every, ids, 4, **args), wanted)


@pytest.mark.parametrize(("dtype", "level"), variants("expert_linear"))
@pytest.mark.parametrize("act", ["none", "silu_mul"])
def test_experts_without_a_matrix_give_zeros(dtype: str, level: str, act: str) -> None:
    """Ids of num_experts and above, of one number and of several; others' bits are what they are without them."""
    num_experts, top_k, n, k = 4, 3, 70, 36
    height = n if act == "none" else 2 * -(-n // 32) * 32
    one = [panels(normal(height, k, seed=e, dtype=dtype), dtype).stored.reshape(-1) for e in range(num_experts)]
    every = np.concatenate([*one, np.zeros(4096, one[0].dtype)])
    args = {"n": n, "k": k, "w_dtype": dtype, "x_dtype": dtype, "act": ACTS[act], "num_experts": num_experts}
    args |= {"of_pairs": 0, "level": level}
    vectors = [normal(1, len(one[0]) // k, seed=50 + e)[0] for e in range(num_experts)]
    for tokens in (1, 30, 400) if level != "scalar" else (1, 30):
        x, ids = encode(normal(tokens, k, seed=9, dtype=dtype), dtype), choose(num_experts + 3, top_k, tokens)
        ids[: tokens // 2 + 1, 0] = num_experts + 2
        has_matrix = ids.reshape(-1) < num_experts
        if tokens == 30:
            ids[:] = np.where(ids < num_experts, num_experts + 1, ids)
            has_matrix[:] = False
        args["x_stride"] = x.shape[1]
        for biases in (None, vectors) if act == "none" else (None,):
            known = np.minimum(ids, num_experts - 1)
            wanted = expected(x, one, known, biases, **args)
            wanted[~has_matrix] = 0
            for threads in (1, 3):
                got = run_experts(x, every, ids, threads, biases, **args)
                assert_same_bits(got, wanted, f"{tokens} tokens, {threads} threads")
