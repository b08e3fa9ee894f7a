"""The cost model against times counted by hand; what it says of real models is in docs/journal.md."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from albireo.bench.cost_model import CostModel, overlapped
from albireo.bench.roofline import Limits, Roofline, StepShape
from albireo.dtypes import TOKEN
from albireo.graph.kv_layout import KVLayout
from albireo.graph.program import Buffer, Call, PackedConstant, Program

LIMITS = Limits(read_bytes_per_s=1e6, dot_flops_per_s=1e9)
VOCAB = 10


def program(k=8, families=("norm", "linear", "qkv_rope_kv", "attention", "head_top", "logits")):
    """A call of each family: width k, 2 heads of 4 and one for keys and values, vocabulary 10; bfloat16."""
    heads = {"layer": 0, "num_heads": 2, "num_kv_heads": 1, "head_dim": 4}

    def call(family, symbol, attrs, **args):
        return Call(family, "", args, attrs, symbol, "panels", True)

    calls = {
        "norm": call("norm", "T", {"eps": 0.0}, x="x", weight="norm", out="h"),
        "linear": call("linear", "T", {"n": 6, "k": k, "act": "none"}, x="h", weight="matrix", out="y"),
        "qkv_rope_kv": call("qkv_rope_kv", "T", heads | {"eps": 0.0}, x="h", weight="qkv", rope="rope", q="q"),
        "attention": call("attention", "T", heads | {"scale": 1.0, "window": 0, "softcap": 0.0}, q="q", out="a"),
        "head_top": call("head_top", "G", {"n": VOCAB, "k": k}, x="h", weight="head", ids="ids", values="values"),
        "logits": call("linear", "R", {"n": VOCAB, "k": k, "act": "none"}, x="h", weight="head", out="logits"),
    }
    buffers = {
        name: Buffer(name, dtype, "T", cols, 0)
        for name, dtype, cols in (
            ("x", "float32", k),
            ("h", "bfloat16", k),
            ("y", "bfloat16", 6),
            ("q", "bfloat16", 8),
            ("a", "bfloat16", 8),
            ("logits", "float32", VOCAB),
        )
    }
    constants = {
        name: PackedConstant(name, packing, rows, cols, 0)
        for name, packing, rows, cols in (
            ("norm", "row.float32", 1, k),
            ("matrix", "p64.bfloat16", 6, k),
            ("qkv", "p64.bfloat16", 16, k),
            ("head", "p64.bfloat16", VOCAB, k),
            ("rope", "rope", 32, 4),
        )
    }
    kept = tuple(calls[family] for family in families)
    return Program(kept, buffers, constants, KVLayout(1, 1, 4, "bfloat16", 16), {}, 0, {})


def parts(shape, *, limits=LIMITS, **made):
    found = CostModel(program(**made), VOCAB).parts(shape, limits)
    return found


def decode(num_sequences=1, length=5, logits=False):
    rows = (num_sequences, 0) if logits else (0, num_sequences)
    return StepShape(num_sequences, *rows, ((1, length),) * num_sequences)


def test_a_linear_by_hand():
    """Reading: 6 x 8 weights of 2 bytes; dots: for each of 6 results 8 products and 60 more. The longer is the time."""
    found = parts(decode(), families=("linear",))
    assert found["linear"] == pytest.approx(2e-6 + 96 / (1e6 * 0.92), rel=1e-6)
    many = StepShape(10**6, 0, 0, ((10**6, 10**6),))
    assert parts(many, families=("linear",))["linear"] == pytest.approx(
        2e-6 + 2 * 6 * 68 * 1e6 / (1e9 * 0.93), rel=1e-6
    )
    assert parts(many, families=("qkv_rope_kv",))["qkv_rope_kv"] == pytest.approx(
        2e-6 + 2 * 16 * 208 * 1e6 / (1e9 * 0.93), rel=1e-6
    )


@pytest.mark.parametrize(
    ("level", "encoding", "factor"),
    [
        ("avx512bf16", "int8", 0.5),
        ("avx512bf16", "int8.g32", 0.5 * (1 + 10 / 32)),
        ("avx512bf16", "int4.g64", 0.5 * (1 + 10 / 64 + 0.05)),
        ("avx512bf16", "int4p.g64", 0.5 * 1.05),
        ("avx512bf16", "fp4.g32", 0.5 * (1 + 10 / 32 + 0.05)),
        ("avx512bf16", "fp8", 1.0),
        ("avx512vnni", "int8", 0.25),
        ("avxvnni", "int8", 0.25),
        ("avx2", "int8", 0.25 * 3),
        ("avx2", "int8.g32", 0.25 * (3 + 64 / 32)),
        ("avx2", "int4.g64", 0.25 * (1.9 + 38 / 64)),
        ("avx2", "int4p.g64", 0.25 * 3),
        ("avx2", "fp4.g16", 0.25 * (1.3 + 60 / 16)),
        ("avx2", "fp8", 1.0),
    ],
)
def test_groups_of_few_bits_cost_at_their_ends(level, encoding, factor):
    """Against bfloat16, or float32 where that has no products: a half or a quarter of a product's time, more where
    there are groups to end, nibbles to widen, or no products of 8 bits.
    """
    plain = program(k=8192, families=("linear", "attention"))
    plain = replace(plain, calls=tuple(replace(call, kernel=f"{call.family}.bfloat16.{level}") for call in plain.calls))
    few = replace(
        plain, constants=plain.constants | {"matrix": PackedConstant("matrix", f"p64.{encoding}", 6, 8192, 0)}
    )
    if encoding != "fp8":
        few = replace(few, buffers=few.buffers | {"h": replace(few.buffers["h"], dtype=TOKEN)})
    many = StepShape(10**6, 0, 0, ((1, 1),))
    times = [CostModel(each, VOCAB).parts(many, LIMITS)["linear"] for each in (plain, few)]
    assert times[1] / times[0] == pytest.approx(factor, rel=2e-2)


@pytest.mark.parametrize(
    ("encoding", "product"),
    [
        ("bfloat16", 1 / 0.32),
        ("fp8", 1 / 0.26),
        ("fp8.g128", 1 / 0.26),
        ("int8", 0.5 / 0.28),
        ("int4p.g64", 0.5 / 0.28),
        ("int4.g128", 0.5 / 0.25),
        ("int4.g64", 0.5 / 0.17),
        ("int8.g64", 0.5 / 0.12),
        ("int4.g32.affine", 0.5 / 0.08),
        ("fp4.g32", 0.5 / 0.11),
        ("q4_k", 0.5 / 0.08),
        ("q6_k", 0.5 / 0.07),
        ("iq4_xs", 0.5 / 0.11),
    ],
)
def test_tile_registers_reach_a_part_of_their_peak(encoding, product):
    """The limit is theirs, of bfloat16; what is done to an output takes as long as 1,100 products, of bytes half of
    those of bfloat16, at 0.93 of it."""
    plain = program(k=8192, families=("linear", "attention"))
    many, slow = StepShape(10**6, 0, 0, ((10**6, 10**6),)), replace(LIMITS, dot_flops_per_s=1e6)
    is_bytes = encoding not in ("bfloat16", "fp8", "fp8.g128")

    def at(level, weight, is_bytes=False):
        calls = tuple(replace(call, kernel=f"{call.family}.bfloat16.{level}") for call in plain.calls)
        constants = plain.constants | {"matrix": PackedConstant("matrix", f"p64.{weight}", 6, 8192, 0)}
        found = replace(plain, calls=calls, constants=constants)
        if is_bytes:
            found = replace(found, buffers=found.buffers | {"h": replace(found.buffers["h"], dtype=TOKEN)})
        return CostModel(found, VOCAB).parts(many, slow)

    vectors, tiles = at("avx512bf16", "bfloat16"), at("amx", encoding, is_bytes)
    wanted = (8192 * 0.93 * product + (550 if is_bytes else 1100)) / (8192 + 60)
    assert tiles["linear"] / vectors["linear"] == pytest.approx(wanted, rel=1e-2)
    assert tiles["attention"] / vectors["attention"] == pytest.approx(0.70 / 0.17, rel=2e-2)


@pytest.mark.parametrize(("level", "order"), [("avx512bf16", 4), ("amx", 2)])
def test_tile_registers_wait_for_what_they_load(level, order):
    """Reading and multiplying that take as long as each other take 1.41 times as long there, in vectors 1.19 times."""
    plain = program(k=8192, families=("linear",))
    calls = tuple(replace(call, kernel=f"{call.family}.bfloat16.{level}") for call in plain.calls)
    model, shape = CostModel(replace(plain, calls=calls), VOCAB), StepShape(1, 0, 0, ((1, 1),))

    def seconds(**limits):
        return model.parts(shape, replace(LIMITS, **limits))["linear"] - 2e-6

    reading, dots = seconds(dot_flops_per_s=None), seconds(read_bytes_per_s=1e30)
    even = seconds(dot_flops_per_s=LIMITS.dot_flops_per_s * dots / reading)
    assert even == pytest.approx(reading * 2 ** (1 / order))


def test_rows_by_hand():
    """Weight of 8 floats, and for each row 8 floats in and 8 bfloat16 out."""
    found = parts(StepShape(3, 0, 0, ((3, 3),)), families=("norm",))
    assert found["norm"] == pytest.approx(0.7e-6 + 32 / (1e6 * 0.92) + 3 * 48 / (1e6 * 0.75))


def test_attention_by_hand():
    """A position has a key and a value of 4 in 2 bytes, and costs 2 heads x two products x 2 flops x 4."""
    found = parts(decode(3, 50), families=("attention",))
    assert found["attention"] == pytest.approx(2e-6 + 3 * 50 * 16 / (1e6 * 0.47))
    prompt = StepShape(100, 0, 0, ((100, 100),))
    slow = replace(LIMITS, dot_flops_per_s=1e6)
    seen = 100 * 101 / 2 + 80 * 100
    assert parts(prompt, limits=slow, families=("attention",))["attention"] == pytest.approx(
        2e-6 + seen * 32 / (1e6 * 0.70)
    )


def test_python_and_sampling_by_hand():
    assert parts(decode(4), families=()) == {"python": pytest.approx(26e-6 + 4 * 0.9e-6)}
    assert parts(decode(4, logits=True), families=())["sampling"] == pytest.approx(4 * (13e-6 + VOCAB * 0.5e-9))
    assert CostModel(program(), VOCAB).outside_s(decode(4)) == pytest.approx(16e-6 + 4 * 3.7e-6)


def test_python_is_slower_when_weights_push_it_out_of_the_caches():
    """Of 6 x k elements of 2 bytes, one more than 32 MiB."""
    large = program(k=(32 << 20) // 12 + 1, families=("linear",))
    assert CostModel(large, VOCAB).outside_s(decode(4)) == pytest.approx(70e-6 + 4 * 6e-6)
    assert CostModel(large, VOCAB).parts(decode(4), LIMITS)["python"] == pytest.approx(130e-6 + 4 * 1.5e-6)


def test_a_step_is_the_sum_of_its_parts():
    costs = CostModel(program(), VOCAB)
    for shape in (decode(), decode(3, logits=True), StepShape(4, 0, 1, ((3, 3), (1, 9)))):
        assert costs.step_s(shape, LIMITS) == pytest.approx(sum(costs.parts(shape, LIMITS).values()))


def test_calls_without_rows_cost_nothing():
    found = parts(decode(logits=True))
    assert "head_top" not in found
    assert set(parts(StepShape(2, 0, 0, ((2, 2),)))) == {"norm", "linear", "qkv_rope_kv", "attention", "python"}


def test_reading_and_multiplying_overlap():
    assert overlapped(0.0, 0.0) == 0.0
    assert overlapped(3.0, 0.0) == 3.0
    assert overlapped(1.0, 1.0) == pytest.approx(2**0.25)
    assert overlapped(1.0, 2.0) == overlapped(2.0, 1.0) == pytest.approx(17**0.25)


def test_more_work_takes_longer():
    costs = CostModel(program(), VOCAB)

    def steps(shapes):
        times = [costs.step_s(shape, LIMITS) for shape in shapes]
        assert all(a < b for a, b in itertools.pairwise(times))

    steps(decode(n) for n in (1, 2, 3, 8, 40))
    steps(decode(4, length) for length in (1, 2, 100, 3000))
    steps(StepShape(n, 0, 1, ((n, n),)) for n in (1, 16, 300, 5000))
    steps(StepShape(64, 0, 1, ((64, length),)) for length in (64, 100, 9000))


@pytest.mark.parametrize("name", ["read_bytes_per_s", "dot_flops_per_s"])
def test_a_faster_machine_takes_no_longer(name):
    costs = CostModel(program(), VOCAB)
    faster = replace(LIMITS, **{name: 2 * getattr(LIMITS, name)})
    for shape in (decode(), decode(64), StepShape(3000, 0, 1, ((3000, 3000),))):
        assert costs.step_s(shape, faster) <= costs.step_s(shape, LIMITS)


def test_never_below_the_floor():
    made = program()
    costs, roofline = CostModel(made, VOCAB), Roofline(made)
    for shape in (decode(), decode(16), decode(64, 900, logits=True), StepShape(3000, 0, 1, ((3000, 3000),))):
        assert costs.step_s(shape, LIMITS) > LIMITS.floor_s(roofline.work(shape))


def test_a_machine_whose_dot_speed_is_not_known_reads():
    unknown = Limits(1e6, 0.0)
    assert parts(decode(64), limits=unknown, families=("linear",))["linear"] == pytest.approx(2e-6 + 96 / 0.92e6)
