"""Programs with fusions switched off: the native core computes the same bits op by op, at every level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.cpu.model import CpuModel
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.passes import choose_precision
from albireo.compiler.pipeline import compile_graph, optional_passes, passes_without
from albireo.dtypes import COMPUTE_DTYPES
from albireo.encodings import encoding
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from albireo.quantization.encoded import Encoded
from albireo.quantization.rounding import round_weights
from backends.cpu.harness import assert_same_bits, level_of, pool
from backends.cpu.test_pack import Stored, Weights
from in_turn import in_turn
from representatives import REPRESENTATIVES
from step_batches import Work, make_step
from tiny_models import random_weights

OPTIONAL = optional_passes()
BLOCK_SIZE, NUM_BLOCKS = 16, 8
Outputs = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def model_of(
    name: str,
    dtype: str,
    without: Sequence[str],
    levels: Sequence[str],
    threads: int = 1,
    choose: choose_precision.Choice | None = None,
    weights: Weights | None = None,
) -> CpuModel:
    architecture = load_architecture(name)
    config = parse_config(architecture.tiny, architecture.rules).with_dtype(dtype)
    if weights is None:
        weights = Weights({k: Stored(v, "float32") for k, v in random_weights(architecture.tiny, seed=3).items()})
    graph = build_graph(config, 64)
    if choose is not None:
        choose_precision.run(graph, choose)
    program = compile_graph(
        graph,
        CpuCatalog(levels),
        maxima={"T": 32, "R": 8, "G": 8},
        block_size=BLOCK_SIZE,
        max_positions=64,
        passes=passes_without(without),
    )
    return CpuModel(program, weights, pool(threads), NUM_BLOCKS)


def encoded_weights(name: str, choose: choose_precision.Choice) -> Weights:
    """Random weights; those that numbers cannot be rounded to while they are packed are encoded already."""
    numbers = random_weights(load_architecture(name).tiny, seed=3)
    kinds = {key: choose(key, False) for key, array in numbers.items() if array.ndim == 2 and "layers" in key}
    affine = {key: kind for key, kind in kinds.items() if kind is not None and encoding(kind).kind == "affine"}
    tensors = {key: Stored(array, "float32") for key, array in numbers.items()}
    return EncodedWeights(tensors, encodings=affine)


class EncodedWeights(Weights):
    def encoded(self, name: str) -> Encoded:
        weight, e = self.tensors[name].to_float32(), encoding(self.encodings[name])
        plain = round_weights(weight, encoding(f"int{e.bits}.g{e.group}"))
        assert plain.zero is not None
        return Encoded(e, plain.codes, plain.scale, offset=-plain.zero.astype(np.float32) * plain.scale)


def steps() -> list[StepInputs]:
    """Two prompts, a decoding step beside a chunk, and one in which every row gives its logits and its best."""
    tokens = np.random.default_rng(1).integers(0, 90, 60).tolist()
    first, second = [7, 2, 4], [5, 1]
    return [
        make_step([Work(tokens[:19], 0, first), Work(tokens[19:28], 0, second)], BLOCK_SIZE, "last", "last"),
        make_step([Work(tokens[28:29], 19, first), Work(tokens[29:36], 9, second)], BLOCK_SIZE, "none", "all"),
        make_step([Work(tokens[36:37], 20, first), Work(tokens[37:39], 16, second)], BLOCK_SIZE, "all", "all"),
    ]


def outputs(model: CpuModel) -> Outputs:
    return [(o.logits.copy(), o.top_ids.copy(), o.top_values.copy()) for o in map(model.run, steps())]


def assert_same(got: Outputs, wanted: Outputs, what: str) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert_same_bits(a, b, what)


@in_turn(("name", REPRESENTATIVES), ("dtype", COMPUTE_DTYPES))
def test_each_fusion_left_out_changes_no_bit(name: str, dtype: str) -> None:
    levels = isa_levels()
    fused = model_of(name, dtype, (), levels)
    wanted = outputs(fused)
    assert any(logits.size for logits, _, _ in wanted) and any((ids >= 0).any() for _, ids, _ in wanted)
    # leaving out what has nothing to do in this model makes the same program
    fired = [record.name for record in fused.program.report if record.name in OPTIONAL and record.firings]
    for names in [*((each,) for each in fired), ("merge_qkv", "fuse_epilogue"), OPTIONAL]:
        assert_same(outputs(model_of(name, dtype, names, levels)), wanted, f"without {names}")
    assert_same(outputs(model_of(name, dtype, OPTIONAL, levels, threads=3)), wanted, "three threads")


@pytest.mark.parametrize("level", isa_levels())
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_nothing_fused_at_every_level(name: str, level: str) -> None:
    levels = isa_levels()[isa_levels().index(level) :]
    unfused = model_of(name, "bfloat16", OPTIONAL, levels)
    assert {call.kernel.split(".")[2] for call in unfused.program.calls} & {level, level_of("norm", level)}
    assert_same(outputs(unfused), outputs(model_of(name, "bfloat16", (), levels)), level)


KINDS = [("int4.g32", "int8"), ("int4.g32.affine", "int8.g16"), ("int8", "int4.g64"), ("int8", None), ("fp8", "int8")]


@in_turn(
    ("name", ["qwen2", "qwen3"]), ("kinds, apart", [(k, p) for k in KINDS for p in ("q_proj", "k_proj", "v_proj")])
)
def test_one_of_q_k_and_v_in_another_encoding_changes_no_bit(
    name: str, apart: str, kinds: tuple[str, str | None]
) -> None:
    """As checkpoints hold v in more bits: two are merged, and v by itself goes into their kernel where it can."""

    def choose(matrix: str, role: str | None) -> str | None:
        return None if role == "vocab" else kinds[1] if apart in matrix else kinds[0]

    levels = isa_levels()
    weights = encoded_weights(name, choose)
    merged = model_of(name, "bfloat16", (), levels, 2, choose, weights)
    separate = model_of(name, "bfloat16", ("merge_qkv",), levels, 1, choose, weights)
    counts = [sum(call.family == "linear" for call in model.program.calls) for model in (separate, merged)]
    is_fused = apart == "v_proj" and kinds[1] is not None and "fp8" not in kinds
    assert counts[0] - counts[1] == (3 if is_fused else 1) * merged.program.kv.num_layers
    with_v = [call for call in merged.program.calls if "v_weight" in call.args]
    assert len(with_v) == (merged.program.kv.num_layers if is_fused else 0)
    assert all(("v_bias" in call.args) == (name == "qwen2") for call in with_v)
    assert_same(outputs(merged), outputs(separate), f"{apart} in {kinds[1]}")


@pytest.mark.parametrize("encoding", ["fp8", "fp8.g128", "int8"])
@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
def test_every_compute_type_meets_weights_in_few_bits(dtype: str, encoding: str) -> None:
    """fp8 is multiplied with bfloat16, in a model of float16 too: what it reads is rounded once."""

    def choose(name: str, role: str | None) -> str | None:
        return None if role == "vocab" else encoding

    fused = model_of("llama", dtype, (), isa_levels(), 2, choose)
    assert_same(outputs(fused), outputs(model_of("llama", dtype, OPTIONAL, isa_levels(), 1, choose)), dtype)


@pytest.mark.parametrize("level", isa_levels())
def test_a_v_of_its_own_at_every_level(level: str) -> None:
    def choose(matrix: str, role: str | None) -> str:
        return "int8" if "v_proj" in matrix else "int4.g32"

    levels = isa_levels()[isa_levels().index(level) :]
    fused = model_of("llama", "bfloat16", (), levels, 3, choose)
    kernels = {call.kernel for call in fused.program.calls if "v_weight" in call.args}
    assert kernels and all(kernel.startswith("qkv_rope_kv.int4.g32.") for kernel in kernels)
    assert_same(outputs(fused), outputs(model_of("llama", "bfloat16", OPTIONAL, levels, 1, choose)), level)
