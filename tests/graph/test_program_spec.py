"""check_program holds every call to its family's contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from albireo.compiler.pipeline import compile_graph
from albireo.errors import InvariantError
from albireo.graph.program import Call, Program
from albireo.graph.program_checks import check_program
from albireo.graph.program_spec import accesses, buffer_bytes, conflict
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, Decoder, FakeCatalog

Damage = Callable[[Program], Program]


def program() -> Program:
    graph = Decoder(layers=2, bias="q").graph()
    return compile_graph(graph, FakeCatalog(), maxima=MAXIMA, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS)


def on(of: str, nth: int = 0, **changes: Any) -> Damage:
    """Change fields of the nth call of a family; args and attrs are merged, a None in them removes."""

    def damage(p: Program) -> Program:
        calls = list(p.calls)
        i = [i for i, c in enumerate(calls) if c.family == of][nth]
        for name, value in changes.items():
            if isinstance(value, dict):
                merged = getattr(calls[i], name) | value
                value = {k: v for k, v in merged.items() if v is not None}
            calls[i] = replace(calls[i], **{name: value})
        return replace(p, calls=tuple(calls))

    return damage


def buffer(name: str, **changes: Any) -> Damage:
    return lambda p: replace(p, buffers=p.buffers | {name: replace(p.buffers[name], **changes)})


def constant(name: str, **changes: Any) -> Damage:
    return lambda p: replace(p, constants=p.constants | {name: replace(p.constants[name], **changes)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (on("norm", family="layer_norm"), "unknown family 'layer_norm'"),
        (on("norm", args={"x": None}), r"roles missing \['x'\]"),
        (on("norm", args={"gamma": "norm"}), r"extra \['gamma'\]"),
        (on("attention", attrs={"scale": None}), "scale"),
        (on("attention", attrs={"sinks": 4}), "sinks"),
        (on("attention", attrs={"layer": 7}), "the cache has 2 layers, none is number 7"),
        (on("norm", rows="B"), "rows, split or kernel unknown"),
        (on("norm", split="columns"), "rows, split or kernel unknown"),
        (on("norm", kernel=""), "rows, split or kernel unknown"),
        (on("norm", args={"x": "nothing"}), "x=nothing names 0 things"),
        (on("norm", args={"out": "table"}), "out=table is not a buffer"),
        (on("norm", args={"out": "x"}), "x=x shares memory with an output"),
        (on("linear", args={"out": "a", "residual": None}), "x=a shares memory"),
        (on("linear", args={"weight": "a"}), "weight=a is not a constant"),
        (on("linear", attrs={"n": 23}), "does not fit weight"),
        (on("linear", attrs={"k": 31}), "does not fit weight"),
        (on("linear", 1, attrs={"act": "none"}), "does not fit weight"),
        (on("linear", 1, attrs={"act": "relu_mul"}), "act must be one of"),
        (on("qkv_rope_kv", args={"rope": "norm"}), "rope is no table"),
        (on("qkv_rope_kv", args={"q_norm": "norm"}), "q_norm and k_norm come together"),
        (on("qkv_rope_kv", attrs={"num_heads": 5}), "does not fit weight"),
        (on("embed", rows="R"), "out has T rows, the call R"),
        (on("norm", barrier=False), "no barrier between"),
        (on("norm", 4, args={"rows": "top_rows"}), "top_rows does not pick R of S rows"),
        (on("gather", args={"rows": "logit_rows"}), "logit_rows does not pick S of T rows"),
        (on("gather", args={"rows": "token_ids"}), "token_ids does not pick S of T rows"),
        (buffer("a_S", cols=31), "out is not as x"),
        (buffer("a_S", dtype="float32"), "out is not as x"),
        (buffer("h", offset=8), "not 64-byte aligned"),
        (buffer("h", offset=1 << 20), "inside an arena"),
        (buffer("m", cols=39), "out is not 40 columns wide"),
        (constant("layers.0.g+u.weight", rows=80), "does not fit weight"),
        (lambda p: replace(p, outputs=p.outputs | {"hidden": "y"}), "output hidden is buffer y"),
    ],
)
def test_damage_is_named(damage: Damage, message: str) -> None:
    good = program()
    check_program(good)
    with pytest.raises(InvariantError, match=message):
        check_program(damage(good))


def test_accesses_and_conflicts() -> None:
    p = program()
    by_family: dict[str, Call] = {call.family: call for call in p.calls if ".0." in call.origin}
    touched = {family: accesses(call, p.buffers, p.maxima) for family, call in by_family.items()}
    q = p.buffers["q"]
    assert (q.offset, q.offset + buffer_bytes(q, p.maxima), True) in touched["qkv_rope_kv"]
    assert (-1, 0, True) in touched["qkv_rope_kv"] and (-1, 0, False) in touched["attention"]
    assert conflict(touched["qkv_rope_kv"], touched["attention"])
    assert not conflict(touched["attention"], [(-2, -1, True)])
    assert not conflict([(0, 64, False)], [(0, 64, False)]) and not conflict([(0, 64, True)], [(64, 128, True)])
