"""Adapters on several ranks of the executor for GPUs, on CPU tensors: 1, 2, 4 and 8 give the same bits, which are those
of merged weights as near as sums in another order are."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.load import plan_ranks
from albireo.api.machine.cuda_device import AbsentGpu
from albireo.api.programs import compile_program
from albireo.api.ranks.rank_models import RankModels
from albireo.api.ranks.rank_start import RankStart
from albireo.api.sources.source import open_source
from albireo.backends.cuda.adapter_shapes import adapter_bytes, adapter_shapes, module_shapes
from albireo.backends.cuda.adapters import CudaAdapters
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.orders import SlotPart, argument, plain
from albireo.backends.cuda.peers import Peers
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_to
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import PASSES, adapter_passes, compile_graph
from albireo.config import EngineConfig
from albireo.graph.program import Program
from backends.cpu.harness import assert_same_bits
from backends.cuda.rank_threads import on_all_ranks
from backends.cuda.test_model import CPU, MAX_POSITIONS, MAXIMA, NUM_BLOCKS
from backends.cuda.test_model_adapters import Held, Pairs
from backends.cuda.test_ranks import WIDE, graph_of, model_of
from step_batches import Work, make_step
from tiny_adapters import adapter_tensors
from tiny_models import make_checkpoint, random_weights

MAX_RANK = 4
WORKS = [Work([5, 9, 2, 7, 1, 3, 3, 8, 4], 0, [3, 1, 6]), Work([11, 4, 6], 0, [2, 5]), Work([7, 8], 0, [4])]
#: The second has none.
SLOTS = (1, -1, 0)


def adapters_of(name: str) -> list[Pairs]:
    """The first changes everything, the second attention alone; of the second rank 2."""
    found: list[Pairs] = []
    for seed, rank, targets in ((1, 3, None), (2, 2, ("q_proj", "v_proj", "o_proj"))):
        tensors = adapter_tensors(WIDE[name], seed, rank, **({} if targets is None else {"targets": targets}))
        names = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in tensors}
        keys = {each: f"base_model.model.{each}.lora_" for each in names}
        found.append({n: (tensors[f"{key}A.weight"], 2 * tensors[f"{key}B.weight"]) for n, key in keys.items()})
    return found


def program_of(name: str, dtype: str, part: Part, encoding: str | None) -> Program:
    return compile_graph(
        graph_of(name, dtype, encoding),
        CudaCatalog(90),
        maxima=MAXIMA,
        block_size=8,
        max_positions=MAX_POSITIONS,
        part=part,
        passes=adapter_passes(PASSES, MAX_RANK),
    )


def both_of(
    name: str, dtype: str, part: Part, peers: Peers | None, encoding: str | None = None
) -> tuple[CudaModel, CudaModel]:
    """A rank's model, and its program with its parts of two adapters."""
    model = model_of(name, dtype, part, peers, encoding)
    program = program_of(name, dtype, part, encoding)
    slots = CudaAdapters(program, 2, CPU)
    for slot, pairs in enumerate(adapters_of(name)):
        slots.put(slot, Held({key: pairs[key] for key in pairs.keys() & slots.shapes.keys()}))
    return model, model.with_adapters(program, slots)


def logits_of(model: CudaModel, adapted: CudaModel) -> list[np.ndarray[Any, Any]]:
    """Of prompts side by side, of the next tokens, and of those without an adapter by the model that knows none."""
    nexts = [Work([9], 9, [3, 1, 6]), Work([10], 3, [2, 5]), Work([12], 2, [4])]
    found = []
    for works in (WORKS, nexts):
        step = make_step(works, 8, "last", "last")
        slots = np.repeat(np.array(SLOTS, np.int32), [len(work.token_ids) for work in works])
        outputs = adapted.run(replace(step, adapter_slots=slots))
        found += [outputs.logits.copy(), outputs.top_values.copy()]
    return [*found, model.run(make_step(WORKS, 8, "last", "last")).logits.copy()]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "dtype", "encoding", "size"),
    [
        ("llama", "float32", None, 2),
        ("llama", "bfloat16", None, 8),
        pytest.param("llama", "bfloat16", None, 4, marks=pytest.mark.thorough),
        ("qwen3, groups", "bfloat16", "fp8", 2),
        ("qwen3, groups", "bfloat16", "int8", 4),
        pytest.param("qwen3, groups", "bfloat16", "int4.g32", 2, marks=pytest.mark.thorough),
    ],
)
def test_every_number_of_ranks_gives_the_bits_of_one(
    name: str, dtype: str, encoding: str | None, size: int, ordered_dot: None
) -> None:
    """Rows with an adapter and without, side by side; and without one those of ranks that know none."""
    found = on_all_ranks(size, lambda peers: logits_of(*both_of(name, dtype, Part(size, peers.rank), peers, encoding)))
    wanted = logits_of(*both_of(name, dtype, Part(1, 0), None, encoding))
    prompts, *_, plain = wanted
    assert (np.abs(plain - prompts).max(axis=1) > 1e-2).tolist() == [slot >= 0 for slot in SLOTS]
    assert_same_bits(plain[1], prompts[1], "no adapter")
    for outputs in found:
        for ours, theirs in zip(outputs, wanted, strict=True):
            assert_same_bits(ours, theirs)


def test_they_say_what_merged_weights_say() -> None:
    """Two ranks, in float32, against the interpreter of graphs."""
    name, dtype = "llama", "float32"
    (got, *_), _ = on_all_ranks(2, lambda peers: logits_of(*both_of(name, dtype, Part(2, peers.rank), peers)))
    weights = {key: round_to(value, dtype) for key, value in random_weights(WIDE[name], 1).items()}
    for row, slot in enumerate(SLOTS):
        merged = dict(weights)
        for module, (a, b) in adapters_of(name)[slot].items() if slot >= 0 else ():
            merged[f"{module}.weight"] = weights[f"{module}.weight"] + b @ a
        kv, step = ReferenceKV(NUM_BLOCKS, 8, dtype), make_step(WORKS, 8, "last", "none")
        wanted = interpret(graph_of(name, dtype, None), step, merged, kv)["logits"][row]
        assert np.abs(got[row] - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(("name", "encoding"), [("llama", None), ("qwen3, groups", "int8")])
def test_ranks_have_parts_of_what_is_whole(name: str, encoding: str | None) -> None:
    """Of q, k, v, gate and up rows of B, of o and down columns of A; together they have all, and KV heads twice."""
    whole = program_of(name, "bfloat16", Part(1, 0), encoding)
    parts = [program_of(name, "bfloat16", Part(4, rank), encoding) for rank in range(4)]
    shapes = {key.removesuffix(".weight"): value.shape for key, value in random_weights(WIDE[name], 1).items()}
    modules = module_shapes(whole)
    assert modules == module_shapes(*parts)
    assert modules == {module: shapes[module] for module in modules}
    assert len(modules) == 7 * WIDE[name]["num_hidden_layers"]
    for module, (outputs, inputs) in modules.items():
        rows, columns = [], []
        for program in parts:
            for (names, _), shape in adapter_shapes(program).items():
                for (each, first, end), start in zip(names, shape.first_rows, strict=True):
                    if each == module:
                        rows.append((start, start + end - first))
                        columns.append(shape.inputs or (0, shape.k))
        is_cut_by_columns = module.endswith(("o_proj", "down_proj"))
        assert set(rows if is_cut_by_columns else columns) == {(0, outputs if is_cut_by_columns else inputs)}
        pieces, size = (columns, inputs) if is_cut_by_columns else (rows, outputs)
        times = 4 // WIDE[name]["num_key_value_heads"] if module.endswith(("k_proj", "v_proj")) else 1
        counts = np.zeros(size, int)
        for first, end in pieces:
            counts[first:end] += 1
        assert (counts == times).all()
    slots = [adapter_bytes(program, 2) - adapter_bytes(program, 1) for program in parts]
    assert max(slots) < adapter_bytes(whole, 2) - adapter_bytes(whole, 1)


def test_slots_and_room_for_the_second_program_are_planned(tmp_path: Path) -> None:
    """Of two GPUs, and of one that adds in their order; a rank compiles the same for itself."""
    directory = make_checkpoint(tmp_path, WIDE["llama"], seed=5)
    for order in ({"tensor_parallel_size": 2}, {"tp_invariant": True}):
        config = EngineConfig(
            model=str(directory),
            device="cuda",
            enable_lora=True,
            max_loras=3,
            max_lora_rank=8,
            max_model_len=64,
            **order,
        )
        source = open_source(directory, config)
        config = source.adopt(config)
        programs, memory = plan_ranks(config, source, device=AbsentGpu())
        adapted = [
            compile_program(source.graph(64), config, 64, part, CudaCatalog(90), has_adapters=True)
            for part in source.parts
        ]
        assert memory.adapter_bytes == sum(adapter_bytes(program, 3) for program in adapted) > 0
        for rank, (program, second) in enumerate(zip(programs, adapted, strict=True)):
            assert program.arena_bytes >= second.arena_bytes
            start = RankStart(config, directory, 90, rank, len(programs), 9, "cpu", "", 64, {})
            assert RankModels(start, source).program == program


def test_what_a_rank_is_told_of_a_slot_arrives() -> None:
    """As JSON and numbers, some modules without an adapter; then it holds what the first rank's does."""
    program = program_of("llama", "float32", Part(2, 1), None)
    here, there = (CudaAdapters(program, 2, CPU, module_shapes(program)) for _ in range(2))
    told: list[SlotPart] = []

    class Told:
        def together(self, number: int, name: str, arg: SlotPart) -> Any:
            data, words = plain(name, arg)
            told.append(argument(name, json.loads(json.dumps(data)), words))
            return nullcontext()

    here.leader = Told()  # type: ignore[assignment]
    for slot, pairs in enumerate(adapters_of("llama")):
        here.put(slot, Held(pairs))
    here.put(0, Held(adapters_of("llama")[1]))  # of which MLPs have nothing
    for part in told:
        there.put_part(part)
    for call in program.calls:
        if "modules" in call.attrs:
            ours, theirs = here.of(call), there.of(call)
            for one, other in ((ours.a, theirs.a), (ours.b, theirs.b), (ours.ranks, theirs.ranks)):
                assert one.equal(other) and one.any() == ("self_attn" in call.attrs["modules"][0][0])
