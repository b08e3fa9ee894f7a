"""Two lists of calls: what changed is said once for all layers it changed in."""

from __future__ import annotations

from dataclasses import replace

from albireo.inspect.call_diff import call_lines
from compiler.examples import Decoder
from inspect_programs import compiled

PROGRAM = compiled(Decoder(layers=3).graph()).program


def changed(change, where=lambda call: True):
    return replace(PROGRAM, calls=tuple(change(call) if where(call) else call for call in PROGRAM.calls))


def test_the_same_calls() -> None:
    assert call_lines(PROGRAM, PROGRAM) == []


def test_a_kernel_of_all_layers_is_one_line() -> None:
    other = changed(lambda c: replace(c, kernel="linear.bfloat16.avx2"), lambda c: c.family == "linear")
    assert call_lines(PROGRAM, other) == [
        "3 layers and head: kernel linear.bfloat16.avx512bf16 -> linear.bfloat16.avx2"
    ]


def test_attributes_arguments_rows_split_and_barriers() -> None:
    def change(call):
        args = {role: name for role, name in call.args.items() if role != "residual"}
        return replace(call, args=args, attrs=call.attrs | {"act": "x"}, rows="R", split="rows", barrier=False)

    other = changed(change, lambda c: c.origin.endswith("mlp.d") and "layers.0" in c.origin)
    assert call_lines(PROGRAM, other) == [
        "layer 0: linear act none -> x",
        "layer 0: linear residual an activation -> none",
        "layer 0: linear on T rows -> R",
        "layer 0: linear by panels -> rows",
        "layer 0: linear barrier behind it gone",
    ]


def test_another_weight_is_named_without_its_layer() -> None:
    def change(call):
        return replace(call, args=call.args | {"weight": call.args["weight"].replace(".o.", ".p.")})

    other = changed(change, lambda c: ".o." in c.args.get("weight", ""))
    assert call_lines(PROGRAM, other) == ["3 layers: linear weight layers.*.o.weight -> layers.*.p.weight"]


def test_calls_that_come_go_and_move() -> None:
    calls = PROGRAM.calls
    norms = [call for call in calls if call.family == "norm" and "layers" in call.origin]
    fewer = replace(PROGRAM, calls=tuple(call for call in calls if call not in norms))
    assert call_lines(PROGRAM, fewer) == ["27 -> 21", "3 layers: norm (attn) gone", "3 layers: norm (mlp) gone"]
    assert call_lines(fewer, PROGRAM) == ["21 -> 27", "3 layers: norm (attn) new", "3 layers: norm (mlp) new"]
    moved = replace(PROGRAM, calls=(*calls[1:], calls[0]))
    assert call_lines(PROGRAM, moved) == ["embed: embed in another place of the order"]
