"""Graph, program and manifest written as JSON and read back: equal in everything that is computed from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from albireo.api.programs import compile_program
from albireo.artifact.graph_json import graph_from_json, graph_to_json
from albireo.artifact.layout import REQUIRED, json_bytes
from albireo.artifact.manifest import FileEntry, Manifest, Options, manifest_from_json, manifest_to_json
from albireo.artifact.program_json import StoredConstant, program_from_json, program_to_json, rows_digest
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import run_passes, shard_pass
from albireo.config import EngineConfig
from albireo.errors import Corrupt, InvariantError
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.graph.show import show_graph, show_program
from albireo.models import build_graph
from albireo.models.config_keys import parse_config
from compiler.ranks import wide_config, wide_graph
from in_turn import in_turn
from representatives import ALL_REPRESENTATIVES, IN_ANOTHER_ORDER
from variants import architecture_of, tiny_of

ENTRY = FileEntry(7, "a" * 64)
SMALL = EngineConfig(max_num_seqs=3, max_num_batched_tokens=8)


def graph_of(model_type: str, dtype: str) -> Graph:
    config = parse_config(tiny_of(model_type), architecture_of(model_type).rules)
    return build_graph(config.with_dtype(dtype), 64)


def through_text(data: Any) -> Any:
    return json.loads(json_bytes(data))


def stored(program: Program) -> dict[str, StoredConstant]:
    return {
        name: StoredConstant(constant, rows_digest(constant), 4096 * i, f"{i:064x}")
        for i, (name, constant) in enumerate(program.constants.items())
    }


@in_turn(("dtype", ["float32", "bfloat16"]), ("model_type", ALL_REPRESENTATIVES))
def test_a_graph_compiles_to_the_same_program(model_type: str, dtype: str) -> None:
    graph = graph_of(model_type, dtype)
    read = graph_from_json(through_text(graph_to_json(graph)), "graph.json")
    assert show_graph(read, fold=False) == show_graph(graph, fold=False)
    assert [node.attrs for node in read.nodes] == [node.attrs for node in graph.nodes]
    assert {n: v.constant for n, v in read.constants.items()} == {n: v.constant for n, v in graph.constants.items()}
    ours, theirs = compile_program(read, SMALL, 64), compile_program(graph, SMALL, 64)
    assert replace(ours, report=()) == replace(theirs, report=())


@pytest.mark.parametrize("model_type", ["deepseek_v4", "deepseek_v32", "nemotron_h"])
def test_a_program_for_a_gpu(model_type: str) -> None:
    """Whose buffers may be parts of the rows of others; what is no such part is refused."""
    program = compile_program(graph_of(model_type, "bfloat16"), SMALL, 64, catalog=CudaCatalog(90))
    assert any(buffer.within for buffer in program.buffers.values())
    written = through_text(program_to_json([program], [stored(program)]))
    read, _ = program_from_json(written, "program.json")
    assert (read.calls, read.buffers) == (program.calls, program.buffers)
    part = next(buffer for buffer in written["buffers"] if "within" in buffer)
    for name, value in (("within", part["cols"]), ("within", 0), ("offset", part["offset"] + 4)):
        before, part[name] = part[name], value
        with pytest.raises(Corrupt):
            program_from_json(written, "program.json")
        part[name] = before


@pytest.mark.parametrize("model_type", [*ALL_REPRESENTATIVES, *IN_ANOTHER_ORDER])
def test_a_program(model_type: str) -> None:
    program = compile_program(graph_of(model_type, "bfloat16"), SMALL, 64)
    places = stored(program)
    read, (read_places,) = program_from_json(through_text(program_to_json([program], [places])), "program.json")
    assert show_program(read, fold=False) == show_program(program, fold=False)
    assert read.calls == program.calls
    assert read.buffers == program.buffers
    assert (read.kv, read.maxima, read.outputs) == (program.kv, program.maxima, program.outputs)
    for name, item in read_places.items():
        assert item == replace(places[name], constant=replace(places[name].constant, definition=None))


def test_what_2_0_did_not_write_may_be_missing() -> None:
    """It knew one rank, no roles of linears, and no trees."""
    graph = graph_of("llama", "bfloat16")
    program = compile_program(graph, SMALL, 64)
    data = through_text(program_to_json([program], [stored(program)]))
    del data["other_ranks"]
    assert len(program_from_json(data, "program.json")[1]) == 1
    old = through_text(graph_to_json(graph))
    for node in old["nodes"]:
        node["attrs"].pop("role", None)
    read = compile_program(graph_from_json(old, "graph.json"), SMALL, 64)
    assert [replace(call, args={}) for call in read.calls] == [replace(call, args={}) for call in program.calls]


def test_constants_of_every_rank() -> None:
    graph = wide_graph(wide_config("qwen3"), "bfloat16")
    programs = [compile_program(graph, SMALL, 64, Part(2, rank)) for rank in range(2)]
    data = through_text(program_to_json(programs, [stored(p) for p in programs]))
    _, places = program_from_json(data, "program.json")
    assert [list(each) for each in places] == [list(p.constants) for p in programs]
    cut = [name for name in places[0] if name.endswith("/2")]
    assert len(cut) == 4 * 2 + 1  # q|k|v, o, gate|up, down of each layer, and the head
    for name, item in places[0].items():
        other = places[1][name]
        assert (item.made_of == other.made_of) == (name not in cut)
        assert item.constant.num_bytes == other.constant.num_bytes


def test_a_rank_s_graph_is_not_written() -> None:
    graph, _ = run_passes(wide_graph(wide_config("llama")), (shard_pass(Part(2, 1)),))
    with pytest.raises(InvariantError, match="is a rank's part; what is written is the graph of the whole model"):
        graph_to_json(graph)


def test_the_digest_of_rows_sees_order() -> None:
    program = compile_program(graph_of("qwen3", "float32"), SMALL, 64)
    joined = next(c for c in program.constants.values() if c.definition and len(c.definition.segments) > 1)
    assert joined.definition is not None
    turned = replace(joined.definition, segments=joined.definition.segments[::-1])
    assert rows_digest(joined) != rows_digest(replace(joined, definition=turned))


def test_a_manifest() -> None:
    options = Options(
        "float16",
        10,
        2,
        3,
        16,
        2,
        True,
        "latency",
        ("fuse_head",),
        "int8",
        hf_overrides={"a": 1},
        mm_processor_kwargs={"b": {}},
    )
    files = dict.fromkeys((*REQUIRED, "weights.1.bin"), ENTRY)
    manifest = Manifest("0.1.0", "llama", options, {"model.safetensors": ENTRY}, files)
    assert manifest_from_json(through_text(manifest_to_json(manifest)), "manifest.json") == manifest


def test_a_manifest_of_the_first_minor_has_one_rank_is_balanced_and_has_every_pass() -> None:
    manifest = Manifest("0.1.0", "llama", Options("float16", 10, 2, 3, 16), {}, dict.fromkeys(REQUIRED, ENTRY))
    data = through_text(manifest_to_json(manifest))
    data["format"]["minor"] = 0
    later = ("quantization", "quantization_head", "kv_cache_dtype", "hf_overrides", "mm_processor_kwargs")
    for name in ("tensor_parallel_size", "tp_invariant", "profile", "without", *later):
        with pytest.raises(Corrupt, match="unknown key"):
            manifest_from_json(data, "manifest.json")
        del data["options"][name]
    assert manifest_from_json(data, "manifest.json") == replace(manifest, minor=0)


def test_json_is_sorted_and_a_line_a_value() -> None:
    assert json_bytes({"b": [1, 2], "a": "ä"}) == '{\n "a": "ä",\n "b": [\n  1,\n  2\n ]\n}\n'.encode()


def test_a_fused_graph_is_not_written() -> None:
    fused, _ = run_passes(graph_of("llama", "float32"))
    with pytest.raises(InvariantError, match="only base ops"):
        graph_to_json(fused)


def test_values_of_one_name_are_not_written() -> None:
    graph = graph_of("llama", "float32")
    graph.nodes[1].outputs[0].name = graph.nodes[0].outputs[0].name
    with pytest.raises(InvariantError, match="one name"):
        graph_to_json(graph)


def test_claimed_types_are_inferred_again() -> None:
    data = through_text(graph_to_json(graph_of("llama", "float32")))
    data["nodes"][3]["outputs"][0]["dims"][-1] += 1
    with pytest.raises(Corrupt, match=r"nodes\[3\]: outputs should be"):
        graph_from_json(data, "graph.json")


def test_files_of_a_directory_have_known_names(tmp_path: Path) -> None:
    from albireo.artifact.layout import is_known_file

    texts = ("chat_template.jinja", "additional_chat_templates/tool.jinja", "tekken.json", "vocab.json", "merges.txt")
    for good in ("weights.0.bin", *(f"tokenizer/{name}" for name in texts)):
        assert is_known_file(good)
    for bad in ("../x", "/etc/passwd", "tokenizer/../x", "tokenizer/chat_template/../../x", "config/x.py", "", "a\nb"):
        assert not is_known_file(bad)
