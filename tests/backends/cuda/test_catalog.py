"""A program for a GPU can be compiled anywhere, of every architecture and encoding."""

from __future__ import annotations

import pytest

from albireo.backends.cuda import bind
from albireo.backends.cuda import catalog as explained
from albireo.backends.cuda.catalog import CudaCatalog, capability_of, catalog_of, is_gpu_target
from albireo.backends.cuda.kernels.parts.tiles import FEW_TOKENS
from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import compile_graph, optional_passes, passes_without
from albireo.dtypes import COMPUTE_DTYPES, FP8_TOKEN
from albireo.encodings import ENCODINGS
from albireo.errors import ConfigError, UnsupportedModel
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.graph.program_checks import check_program
from albireo.graph.program_spec import FAMILIES, MEETINGS
from albireo.models import build_graph
from albireo.models.config_keys import parse_config
from compiler.ranks import wide_config, wide_graph
from representatives import ALL_REPRESENTATIVES
from variants import architecture_of, tiny_of


def graph_of(name: str, dtype: str) -> Graph:
    return build_graph(parse_config(tiny_of(name), architecture_of(name).rules).with_dtype(dtype), 64)


def program_of(graph: Graph, without: tuple[str, ...] = (), capability: int | None = None) -> Program:
    maxima = {"T": 16, "R": 4, "G": 4}
    return compile_graph(
        graph, CudaCatalog(capability), maxima=maxima, block_size=16, max_positions=64, passes=passes_without(without)
    )


@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
@pytest.mark.parametrize("name", ALL_REPRESENTATIVES)
def test_every_architecture_compiles(name: str, dtype: str) -> None:
    program = program_of(graph_of(name, dtype))
    check_program(program)
    assert {call.kernel.rpartition(".")[2] for call in program.calls} == {"triton"}
    packings = {constant.packing for constant in program.constants.values()}
    assert packings <= {f"row.{dtype}", "row.float32", "rope"}, "weights lie in rows, as the checkpoint has them"


@pytest.mark.parametrize("name", ALL_REPRESENTATIVES)
def test_nothing_has_to_be_fused(name: str) -> None:
    fused, single = program_of(graph_of(name, "bfloat16")), program_of(graph_of(name, "bfloat16"), optional_passes())
    check_program(single)
    assert len(single.calls) > len(fused.calls)


@pytest.mark.parametrize("capability", [None, 90])
@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_every_encoding_compiles(encoding: str, capability: int | None) -> None:
    graph = graph_of("llama", "bfloat16")
    choose_precision.run(graph, lambda name, role: encoding)
    program = program_of(graph, capability=capability)
    check_program(program)
    is_narrow = capability == 90 and encoding.startswith("fp8")
    assert is_narrow == any(buffer.dtype == FP8_TOKEN for buffer in program.buffers.values())
    assert catalog_of(program).abilities == CudaCatalog(90 if is_narrow else None).abilities
    assert f"row.{encoding}" in {constant.packing for constant in program.constants.values()}


@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
@pytest.mark.parametrize("name", ALL_REPRESENTATIVES)
def test_e4m3_on_both_sides_compiles(name: str, dtype: str) -> None:
    graph = graph_of(name, dtype)
    choose_precision.run(graph, lambda name, role: "fp8")
    for without in ((), optional_passes()):
        program = program_of(graph, without, capability=89)
        check_program(program)
        assert FP8_TOKEN in {program.buffers[call.args["x"]].dtype for call in program.calls if call.family == "linear"}


@pytest.mark.parametrize("without", [(), optional_passes()])
def test_a_model_cut_among_ranks_compiles(without: tuple[str, ...]) -> None:
    program = compile_graph(
        wide_graph(wide_config("llama"), "bfloat16"),
        CudaCatalog(),
        maxima={"T": 8, "R": 2, "G": 2},
        block_size=16,
        max_positions=64,
        part=Part(2, 0),
        passes=passes_without(without),
    )
    check_program(program)
    assert sum(call.family in MEETINGS for call in program.calls) == 6
    assert {call.attrs.get("chunks") for call in program.calls if call.family == "linear"} >= {4}


@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
def test_what_the_catalog_has_can_be_launched(dtype: str) -> None:
    """And all that can be is there: no family is refused."""
    assert FAMILIES.keys() == bind._FAMILIES.keys()
    for family in FAMILIES:
        assert CudaCatalog().variants(family, dtype, {"head_dim": 64, "kind": "cast"}), family


def test_what_a_kernel_does_can_be_asked() -> None:
    """The bound between few rows and many is that of the kernel."""
    assert explained.FEW_TOKENS == FEW_TOKENS
    catalog = CudaCatalog()
    assert catalog.regimes("linear.bfloat16.triton", [1, 64, 65]) == ("few", "many")
    assert catalog.regimes("embed.bfloat16.triton", [1, 100]) == ("rows",)
    assert catalog.regimes("gated_delta_rule.float32.triton", [1, 100]) == ("sequences",)
    for call in program_of(graph_of("qwen3_5_text", "bfloat16")).calls:
        for regime in catalog.regimes(call.kernel, [1, 100]):
            assert catalog.regime_text(call.kernel, regime)


@pytest.mark.parametrize(
    ("attrs", "told"),
    [
        ({"head_dim": 513}, "head_dim=513: on a GPU 512 is the most; choose --device cpu"),
        ({"head_dim": 16, "value_dim": 8}, "kv_lora_rank=8: on a GPU 16 is the least; choose --device cpu"),
        ({"head_dim": 12, "value_dim": 12}, "head_dim=12: on a GPU 16 is the least; choose --device cpu"),
    ],
)
def test_heads_that_no_kernel_attends_with_are_refused_by_name(attrs: dict[str, int], told: str) -> None:
    with pytest.raises(UnsupportedModel, match=told):
        CudaCatalog().variants("attention", "bfloat16", attrs)
    assert CudaCatalog().variants("attention", "bfloat16", {"head_dim": 448, "value_dim": 384})


@pytest.mark.parametrize("target", ["cuda", "cuda:80", "cuda:90", "cuda:100"])
def test_targets_that_are_gpus(target: str) -> None:
    assert is_gpu_target(target)


@pytest.mark.parametrize("target", ["native", "avx2", "cuda90", "cuda:", "CUDA"])
def test_targets_that_are_none(target: str) -> None:
    assert not is_gpu_target(target)


def test_the_capability_of_a_target() -> None:
    assert [capability_of(target) for target in ("cuda", "cuda:80", "cuda:100")] == [None, 80, 100]
    with pytest.raises(ConfigError, match=r"target='cuda:75': compute capability 8.0 is the least; choose cuda:80"):
        capability_of("cuda:75")
