"""The floor of a step against numbers counted by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.load import plan
from albireo.api.machine.cuda_device import AbsentGpu
from albireo.api.programs import compile_program
from albireo.api.sources.source import open_source
from albireo.backends.cpu.machine import isa_levels
from albireo.bench.cost_model import CostModel
from albireo.bench.roofline import (
    BFLOAT16_LEVELS,
    AttentionWork,
    Limits,
    Roofline,
    StepShape,
    Work,
    call_work,
    distinct_experts,
    positions_moved,
    positions_seen,
    shape_of,
)
from albireo.compiler.passes.shard import Part
from albireo.config import EngineConfig
from albireo.graph.kv_layout import KVLayout
from albireo.graph.program import Buffer, Call, PackedConstant, Program
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from albireo.params import SamplingParams
from albireo.step import SampleTask, SequenceWork, StepPlan
from compiler.ranks import wide_config, wide_graph
from representatives import ALL_REPRESENTATIVES
from tiny_models import make_checkpoint, weight_shapes
from variants import architecture_of, tiny_of


def by_hand() -> Program:
    """One layer of each kind: width 8, 2 heads of 4 and one for keys and values, FFN 6, vocabulary 10; bfloat16."""
    constants = {
        name: PackedConstant(name, packing, rows, cols, 0)
        for name, packing, rows, cols in (
            ("table", "p64.bfloat16", 10, 8),
            ("norm", "row.float32", 1, 8),
            ("qkv", "p64.bfloat16", 16, 8),
            ("bias", "row.float32", 1, 16),
            ("rope", "rope", 32, 4),
            ("gate_up", "p64.bfloat16", 64, 8),  # padded; 12 rows count
            ("down", "p64.bfloat16", 8, 6),
        )
    }

    def call(family, symbol, attrs, **args):
        return Call(family, "", args, attrs, symbol, "panels", True)

    heads = {"layer": 0, "num_heads": 2, "num_kv_heads": 1, "head_dim": 4}
    calls = (
        call("embed", "T", {"width": 8}, ids="token_ids", table="table", out="x"),
        call("norm", "T", {"eps": 0.0}, x="x", weight="norm", out="h"),
        call("qkv_rope_kv", "T", {**heads, "eps": 0.0}, x="h", weight="qkv", bias="bias", rope="rope", q="q"),
        call("attention", "T", {**heads, "scale": 1.0, "window": 0, "softcap": 0.0}, q="q", out="a"),
        call("linear", "T", {"n": 6, "k": 8, "act": "silu_mul"}, x="h", weight="gate_up", out="m"),
        call("linear", "T", {"n": 8, "k": 6, "act": "none"}, x="m", weight="down", residual="x", out="x"),
        call("norm", "R", {"eps": 0.0}, x="x", weight="norm", rows="logit_rows", out="r"),
        call("linear", "R", {"n": 10, "k": 8, "act": "none"}, x="r", weight="table", out="logits"),
        call("head_top", "G", {"n": 10, "k": 8}, x="r", weight="table", ids="ids", values="values"),
    )
    buffers = {"x": Buffer("x", "float32", "T", 8, 0)}
    return Program(calls, buffers, constants, KVLayout(1, 1, 4, "bfloat16", 16), {}, 0, {})


#: norm 8 and bias 16 in float32; qkv 16 x 8, gate and up 12 x 8, down 8 x 6 in bfloat16.
LAYER_BYTES = (8 + 16) * 4 + (16 * 8 + 12 * 8 + 8 * 6) * 2
LAYER_FLOPS = 2 * (16 * 8 + 12 * 8 + 8 * 6)


def test_one_token_by_hand():
    work = Roofline(by_hand()).work(StepShape(1, 0, 1, ((1, 5),)))
    embedding = 8 * 2
    head = 10 * 8 * 2
    kv = 5 * 2 * 4 * 2  # 5 positions, key and value of 4, 2 bytes
    assert work.num_bytes == LAYER_BYTES + embedding + head + kv
    attention = 5 * 2 * 2 * 2 * 4  # 5 positions, 2 heads, two products, 2 flops, 4 elements
    assert work.flops == LAYER_FLOPS + 2 * 10 * 8 + attention


def test_a_prompt_and_a_decoding_sequence_by_hand():
    work = Roofline(by_hand()).work(StepShape(4, 2, 0, ((3, 3), (1, 7))))
    final_norm = 8 * 4
    assert work.num_bytes == LAYER_BYTES + 4 * 16 + final_norm + 160 + (3 + 7) * 16
    assert work.flops == 4 * LAYER_FLOPS + 2 * 2 * 10 * 8 + ((1 + 2 + 3) + 7) * 32


def test_attention_of_rows_that_leave_by_hand():
    program = by_hand()
    calls = tuple(replace(c, rows="S") if c.family == "attention" else c for c in program.calls)
    every, leaving = Roofline(program), Roofline(replace(program, calls=calls))

    def saved(shape: StepShape) -> int:
        return (every.work(shape).flops - leaving.work(shape).flops) // 32

    assert saved(StepShape(4, 2, 0, ((3, 3), (1, 7)))) == 1 + 2, "the last of each"
    assert saved(StepShape(4, 0, 1, ((3, 3), (1, 7)))) == 1 + 2 + 7, "at least the shorter one's last"
    assert saved(StepShape(4, 3, 0, ((3, 3), (1, 7)))) == 1, "two of the shorter one"
    assert saved(StepShape(4, 4, 0, ((3, 3), (1, 7)))) == 0
    assert saved(StepShape(4, 0, 0, ((3, 3), (1, 7)))) == 1 + 2 + 3 + 7
    assert saved(StepShape(2, 0, 2, ((1, 3), (1, 7)))) == 0


def test_rows_nobody_wants_cost_nothing():
    roofline = Roofline(by_hand())
    middle = roofline.work(StepShape(2, 0, 0, ((2, 2),)))
    last = roofline.work(StepShape(2, 0, 1, ((2, 2),)))
    assert last.num_bytes - middle.num_bytes == 160
    assert last.flops - middle.flops == 160
    assert roofline.decode_bytes == LAYER_BYTES + 160


@pytest.mark.parametrize("model_type", ALL_REPRESENTATIVES)
def test_weights_are_read_once_and_multiplied_once(model_type):
    """All matrices of the checkpoint but the embedding; the head's twice when it is the embedding too."""
    tiny = tiny_of(model_type)
    config = parse_config(tiny, architecture_of(model_type).rules)
    model_len = config.max_position_embeddings
    program = compile_program(build_graph(config, model_len), EngineConfig(), model_len)
    shapes = weight_shapes(tiny)
    tables = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "embeddings.weight")
    table = next(name for name in shapes if name.endswith(tables))
    embedding = math.prod(shapes.pop(table))
    positions = next((name for name in shapes if "embed_positions" in name or "wpe" in name), None)
    num_rows = 1 if positions is None else 2  # of each table
    shapes.pop(positions, None)
    _, given = shapes.pop("model.embed_tokens_per_layer.weight", (0, 0))
    experts = config.experts
    # and how fast states are left, which may be a matrix that nothing is multiplied with
    of_elements = ("conv1d.weight", "conv.conv.weight", ".A_log")
    convolutions = sum(math.prod(shapes.pop(name)) for name in list(shapes) if name.endswith(of_elements))
    matrices = sum(math.prod(shape) for name, shape in shapes.items() if len(shape) == 2 and ".experts." not in name)
    vectors = convolutions + sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if len(shape) == 1 and ".experts." not in name and not name.endswith(".sinks")
    )
    if experts is not None:  # of one token
        of_all = {dims: 0 for dims in (1, 2)}
        for name, shape in shapes.items():
            of_all[len(shape)] += math.prod(shape) if ".experts." in name else 0
        matrices += of_all[2] // experts.count * experts.top_k
        vectors += of_all[1] // experts.count * experts.top_k
    matrices += embedding if not {"lm_head.weight", "embed_out.weight"} & set(shapes) else 0
    work = Roofline(program).work(StepShape(1, 0, 1, ((1, 1),)))
    latent = config.blocks.latent
    kv = flops = 0
    attentive = [n for n in range(config.num_layers) if n in config.cached_layers or config.shares(n)]
    for heads, head_dim in (config.kv_shapes[config.cache_of(layer)] for layer in attentive):
        kv += (2 if latent is None else 1) * heads * head_dim * 4
        flops += 2 * config.num_heads * (head_dim + (head_dim if latent is None else latent.rank))
    rows = num_rows * config.hidden_size + given
    assert work.num_bytes == (matrices + vectors + rows) * 4 + kv + program.states.slot_bytes
    assert work.flops == 2 * matrices + flops


def test_experts_are_read_once_each_however_many_tokens_have_them():
    """Against drawn choices; and bytes of a step are in between those of one token and those of all experts."""
    rng = np.random.default_rng(0)
    for count, top_k, tokens in ((8, 2, 1), (8, 2, 3), (60, 4, 16), (128, 8, 64)):
        drawn = [len(set(np.argsort(rng.random((tokens, count)))[:, :top_k].ravel())) for _ in range(300)]
        assert distinct_experts(count, top_k, tokens) == pytest.approx(np.mean(drawn), rel=0.02)
    tiny = load_architecture("qwen3_moe").tiny
    config = parse_config(tiny, load_architecture("qwen3_moe").rules)
    program = compile_program(build_graph(config, 128), EngineConfig(), 128)
    roofline, of_experts = Roofline(program), 2 * 11 * 3 * 36 * 32 * 4  # layers, experts, matrices
    works = [roofline.work(StepShape(n, 0, 0, ())) for n in (1, 2, 1000)]
    assert works[1].flops - 2 * works[0].flops == 0
    rest = works[0].num_bytes - of_experts * 3 // 11
    assert works[2].num_bytes == rest + 999 * 32 * 4 + of_experts
    assert works[0].num_bytes < works[1].num_bytes < works[2].num_bytes
    decode = CostModel(program, config.vocab_size).parts(StepShape(4, 0, 4, ((1, 9),) * 4), Limits(1e9, 1e10))
    assert decode["expert_linear"] > of_experts * distinct_experts(11, 3, 4) / 11 / 1e9


@pytest.mark.parametrize("window", [None, 1, 3, 5])
def test_positions(window):
    for num_new, past in itertools.product(range(1, 8), range(8)):
        length = past + num_new
        seen = [range(max(0, p + 1 - window) if window else 0, p + 1) for p in range(past, length)]
        assert positions_seen(num_new, length, window) == sum(map(len, seen))
        assert positions_moved(num_new, length, window) == len(set(itertools.chain(*seen)))


@pytest.mark.parametrize("size", [1, 3, 5])
def test_positions_of_rows_that_see_chunks(size):
    work = AttentionWork("T", size, 1, 1, in_chunks=True)
    for num_new, past in itertools.product(range(1, 8), range(8)):
        length = past + num_new
        seen = [range(p - p % size, p + 1) for p in range(past, length)]
        assert work.seen(num_new, length) == sum(map(len, seen))
        assert work.moved(num_new, length) == len(set(itertools.chain(*seen)))


def test_positions_of_rows_that_see_both_ways():
    assert positions_seen(7, 7, None, both_ways=True) == 49
    assert positions_seen(7, 7, 2, both_ways=True) == 7 * 3


def test_positions_of_rows_that_see_some_keys():
    late, first = AttentionWork("T", None, 1, 1, first_key=100), AttentionWork("T", None, 1, 1, num_keys=100)
    assert (late.seen(3, 110), late.moved(3, 110)) == (8 + 9 + 10, 10)
    assert (first.seen(3, 110), first.moved(3, 110)) == (300, 100)
    assert late._replace(window=4).seen(3, 110) == 12


@pytest.mark.parametrize(("every", "count"), [(4, None), (4, 3), (16, None)])
def test_entries_of_several_positions(every, count):
    """An equal part of what positions would be, to an entry a row."""
    work = AttentionWork("T", count, 1, 1, every=every)
    for num_new, past in itertools.product((1, 7, 40), (0, 3, 90)):
        length = past + num_new
        seen = [min((p + 1) // every, count or length) for p in range(past, length)]
        assert abs(work.seen(num_new, length) - sum(seen)) <= num_new
        assert count is not None or abs(work.moved(num_new, length) - seen[-1]) <= 1
    choosing = work._replace(enough=5)
    assert (choosing.seen(1, 5 * every + every - 1), choosing.seen(1, 6 * every) > 0) == (0, True)


def test_floor():
    limits = Limits(read_bytes_per_s=100.0, dot_flops_per_s=1000.0)
    assert limits.floor_s(Work(50, 100)) == 0.5
    assert limits.floor_s(Work(50, 2000)) == 2.0
    assert not limits.is_compute_bound(Work(50, 100))
    assert limits.is_compute_bound(Work(50, 2000))
    assert Limits(100.0, 0.0).floor_s(Work(50, 2000)) == 0.5
    assert Work(1, 2) + Work(3, 4) == Work(4, 6)


def task(seq_id, **params):
    return SampleTask(seq_id, SamplingParams(**params), 0, [], [])


def test_shape_of_a_plan():
    greedy = SequenceWork(0, [5], 9, ((1,),), (task(0, temperature=0),))
    chunk = SequenceWork(1, [5, 6, 7], 4, ((2,),))
    assert shape_of(StepPlan(0, [greedy, chunk], 4)) == StepShape(4, 0, 1, ((1, 10), (3, 7)))
    drawn = SequenceWork(2, [5], 3, ((3,),), (task(2), task(3)))
    assert shape_of(StepPlan(0, [greedy, drawn], 2)) == StepShape(2, 2, 0, ((1, 10), (1, 4)))
    looked_at = SequenceWork(4, [5, 6], 0, ((4,),), (task(4, temperature=0),), 0, [6])
    assert shape_of(StepPlan(0, [looked_at], 2)) == StepShape(2, 2, 0, ((2, 2),))


def test_decoding_is_one_token_each():
    assert StepShape(2, 0, 2, ((1, 5), (1, 9))).is_decode
    assert not StepShape(3, 0, 2, ((2, 5), (1, 9))).is_decode


def test_ranks_share_a_machine() -> None:
    """Their products are those of one; their bytes too, but for what each has: norms, and a bias behind each sum."""
    graph = wide_graph(wide_config("llama"), "bfloat16")
    one = Roofline(compile_program(graph, EngineConfig(), 64))
    several = Roofline(*(compile_program(graph, EngineConfig(), 64, Part(2, rank)) for rank in range(2)))
    shape = StepShape(3, 0, 3, ((1, 40), (2, 9)))
    norms, sums = 7 * 4 * 96, 6 * 4 * 96  # three layers
    whole, parts = one.work(shape), several.work(shape)
    assert parts.flops == whole.flops
    assert parts.num_bytes - whole.num_bytes == norms + sums + 3 * 2 * 96


@pytest.mark.parametrize(
    ("dtype", "quantization", "factor"),
    [
        ("bfloat16", None, 1),  # norms in linears, which count like the calls they replace
        ("bfloat16", "int8", 1 / 2),
        ("float16", "int8", 1 / 2),
        ("float32", "int8", 1 / 32),
        ("bfloat16", "int4-g32", 1),  # W4A16
        ("float16", "int4-g32", 1 / 2),
        ("bfloat16", "fp8", 1 / 2),
        ("bfloat16", "fp8-a16", 1),
    ],
)
def test_a_gpu_reads_the_same_bytes_and_has_its_own_price_of_products(
    dtype: str, quantization: str | None, factor: float, tmp_path: Path
) -> None:
    directory = make_checkpoint(tmp_path / "m", load_architecture("qwen2").tiny, seed=0, dtype=dtype)
    settings: dict[str, Any] = {"max_model_len": 64, "num_gpu_blocks_override": 8, "quantization": quantization}
    ours, gpus = (
        plan(config, open_source(directory, config), device)[0]
        for config, device in (
            (EngineConfig(device="cpu", **settings), None),
            (EngineConfig(device="cuda", **settings), AbsentGpu()),
        )
    )
    decode = StepShape(2, 0, 2, ((1, 40), (1, 3)))
    assert Roofline(gpus).work(decode).num_bytes == Roofline(ours).work(decode).num_bytes
    (down,) = {
        call_work(gpus, call).flops_per_row
        for call in gpus.calls
        if call.family in ("linear", "linear_norm") and call.attrs["k"] == 100 and call.rows == "T"
    }
    assert down == 2 * 100 * 60 * factor


def test_products_of_8_bits_take_half_of_the_time_of_bfloat16s_or_a_quarter_of_float32s(tmp_path: Path) -> None:
    products = 2 if set(BFLOAT16_LEVELS) & set(isa_levels()) else 4
    directory = make_checkpoint(tmp_path / "m", load_architecture("llama").tiny, seed=0, dtype="bfloat16")
    programs = [
        plan(config, open_source(directory, config))[0]
        for config in (
            EngineConfig(max_model_len=64, num_gpu_blocks_override=8, quantization=quantization)
            for quantization in (None, "int8", "fp8")
        )
    ]
    plain, whole, float8 = (
        [call_work(program, call) for call in program.calls if call.family == "linear"] for program in programs
    )
    for numbers, integers, floats in zip(plain, whole, float8, strict=True):
        assert integers.flops_per_row == numbers.flops_per_row // products
        assert floats.flops_per_row == numbers.flops_per_row
        assert integers.bytes_once < 0.6 * numbers.bytes_once
