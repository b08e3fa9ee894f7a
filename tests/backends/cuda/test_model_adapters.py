"""A model's program with adapters beside its own, on CPU tensors: what it computes, and whose bits its rows have."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.backends.cuda.adapters import CudaAdapters
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.model import CudaModel
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.compiler.pipeline import PASSES, adapter_passes, compile_graph, passes_for, run_passes
from albireo.errors import InvariantError
from albireo.graph.program import Program
from albireo.params import SamplingParams
from albireo.step import SampleTask
from backends.cpu.harness import assert_same_bits
from backends.cuda.test_model import CPU, MAX_POSITIONS, MAXIMA, NUM_BLOCKS, Recorder, graph_of, model_of, weights_of
from compiler.test_add_adapters import ADAPTABLE
from step_batches import Work, make_step
from tiny_adapters import adapter_tensors
from variants import tiny_of

MAX_RANK = 4
Pairs = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
WORKS = [Work([5, 9, 2, 7, 1, 3, 3, 8, 4], 0, [3, 1, 6]), Work([11, 4, 6], 0, [2, 5]), Work([7, 8], 0, [4])]
#: Rows of the sequences: the second has none.
SLOTS = np.array([1] * 9 + [-1] * 3 + [0] * 2, np.int32)
PROMPTS = replace(make_step(WORKS, 8, "all", "last"), adapter_slots=SLOTS)
#: Types of weights, and the GPU: what is rounded to e4m3 on both sides from 8.9 on.
KINDS: list[Any] = [
    ("llama", "bfloat16", None, None),
    ("qwen3", "bfloat16", "fp8", 90),
    ("gemma2", "float32", None, None),
    ("llama", "bfloat16", "int8", None),
    # whose linears are tested alone with adapters, in any company, too
    pytest.param("qwen3", "bfloat16", "int4.g32", None, marks=pytest.mark.thorough),
    pytest.param("qwen2", "float16", None, None, marks=pytest.mark.thorough),
]


@dataclass(frozen=True)
class Held:
    """An adapter as a slot is given it."""

    pairs: Pairs

    @property
    def modules(self) -> Set[str]:
        return self.pairs.keys()

    def matrices(self, module: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.pairs[module]


def adapters_of(name: str) -> list[Pairs]:
    """The first changes everything, the second attention alone; of the second rank 2."""
    found: list[Pairs] = []
    for seed, rank, targets in ((1, 3, None), (2, 2, ("q_proj", "v_proj", "o_proj"))):
        tensors = adapter_tensors(tiny_of(name), seed, rank, **({} if targets is None else {"targets": targets}))
        names = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in tensors}
        keys = {each: f"base_model.model.{each}.lora_" for each in names}
        found.append({n: (tensors[f"{key}A.weight"], 2 * tensors[f"{key}B.weight"]) for n, key in keys.items()})
    return found


def program_of(name: str, dtype: str, encoding: str | None, capability: int | None) -> Program:
    return compile_graph(
        graph_of(name, dtype, encoding),
        CudaCatalog(capability),
        maxima=MAXIMA,
        block_size=8,
        max_positions=MAX_POSITIONS,
        passes=adapter_passes(PASSES, MAX_RANK),
    )


def both_of(
    name: str, dtype: str, encoding: str | None = None, capability: int | None = None, **options: Any
) -> tuple[CudaModel, CudaModel]:
    """A model, and its program with adapters in two slots."""
    model = model_of(name, dtype, encoding, capability=capability, **options)
    program = program_of(name, dtype, encoding, capability)
    slots = CudaAdapters(program, 2, CPU)
    for slot, pairs in enumerate(adapters_of(name)):
        slots.put(slot, Held({key: pairs[key] for key in pairs.keys() & slots.shapes.keys()}))
    return model, model.with_adapters(program, slots)


def test_every_fusion_is_in_both_programs() -> None:
    """And the same constants: so rows without an adapter may have the same bits."""
    for name in ADAPTABLE:
        for encoding, capability in ((None, None), ("fp8", 90), ("int8", None)):
            program = program_of(name, "bfloat16", encoding, capability)
            graph = graph_of(name, "bfloat16", encoding)
            options: Any = {"maxima": MAXIMA, "block_size": 8, "max_positions": MAX_POSITIONS}
            plain = compile_graph(graph, CudaCatalog(capability), **options)
            assert program.constants == plain.constants and program.kv == plain.kv
            families = [call.family for call in program.calls if call.family != "adapter"]
            assert families == [call.family for call in plain.calls]
            assert any("modules" in call.attrs for call in program.calls)


@pytest.mark.parametrize(("name", "dtype"), [("llama", "float32"), ("qwen3", "float32"), ("opt", "float32")])
def test_it_says_what_merged_weights_say(name: str, dtype: str) -> None:
    weights, (_, adapted) = weights_of(name, dtype), both_of(name, dtype)
    got = adapted.run(PROMPTS).logits.copy()
    for slot, rows in ((1, slice(0, 9)), (-1, slice(9, 12)), (0, slice(12, 14))):
        merged = dict(weights)
        for module, (a, b) in adapters_of(name)[slot].items() if slot >= 0 else ():
            merged[f"{module}.weight"] = weights[f"{module}.weight"] + b @ a
        step = replace(PROMPTS, adapter_slots=None)
        wanted = interpret(graph_of(name, dtype), step, merged, ReferenceKV(NUM_BLOCKS, 8, dtype))["logits"][rows]
        assert np.abs(got[rows] - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_norms_in_linears_divide_what_adapters_add(name: str) -> None:
    """In bfloat16: as near to the same graph in float64 sums as roundings allow."""
    weights, (_, adapted) = weights_of(name, "bfloat16"), both_of(name, "bfloat16")
    passes = passes_for(CudaCatalog().abilities, adapter_passes(PASSES, MAX_RANK))
    graph, _ = run_passes(graph_of(name, "bfloat16"), passes)
    kv, adapters = ReferenceKV(NUM_BLOCKS, 8, "bfloat16"), adapters_of(name)
    wanted = interpret(graph, PROMPTS, weights, kv, adapters=adapters)["logits"]
    plain = interpret(graph, PROMPTS, weights, kv, adapters=[{}, {}])["logits"]
    got = adapted.run(PROMPTS).logits
    assert np.linalg.norm(got - wanted) <= 1e-2 * np.linalg.norm(wanted) < 0.2 * np.linalg.norm(wanted - plain)


def rows_of(model: CudaModel, adapted: CudaModel, works: list[Work], slots: list[int]) -> NDArray[np.float32]:
    """Logits of the last rows; steps in which nobody has an adapter are the model's own."""
    step = make_step(works, 8, "last", "none")
    counts = [len(work.token_ids) for work in works]
    has_some = max(slots) >= 0
    step = replace(step, adapter_slots=np.repeat(np.array(slots, np.int32), counts) if has_some else None)
    return (adapted if has_some else model).run(step).logits.copy()


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(("name", "dtype", "encoding", "capability"), KINDS)
def test_a_row_has_its_bits_in_any_company(name: str, dtype: str, encoding: str | None, capability: int | None) -> None:
    """Mixed, alone, in pieces, in the other slot, among padding; and without an adapter those of the model that knows
    none."""
    model, adapted = both_of(name, dtype, encoding, capability)
    slots, blocks = [1, -1, 0], [[3, 1, 6], [2, 5], [4]]
    wanted = rows_of(model, adapted, WORKS, slots)
    nexts = [Work([9], 9, blocks[0]), Work([10], 3, blocks[1]), Work([12], 2, blocks[2])]
    wanted_next = rows_of(model, adapted, nexts, slots)
    for i, (work, slot) in enumerate(zip(WORKS, slots, strict=True)):
        half = len(work.token_ids) // 2
        first, rest = Work(work.token_ids[:half], 0, blocks[i]), Work(work.token_ids[half:], half, blocks[i])
        rows_of(model, adapted, [first], [slot])
        assert_same_bits(rows_of(model, adapted, [rest], [slot])[0], wanted[i], f"{i} in pieces")
        assert_same_bits(rows_of(model, adapted, [nexts[i]], [slot])[0], wanted_next[i], f"{i} alone")
    others = adapters_of(name)
    slots_of = adapted.placed.adapters
    assert slots_of is not None
    for slot, pairs in enumerate(reversed(others)):
        slots_of.put(slot, Held({key: pairs[key] for key in pairs.keys() & slots_of.shapes.keys()}))
    again = rows_of(model, adapted, WORKS, [0, -1, 1])
    assert_same_bits(again, wanted, "in each other's slots")
    plain = model.run(replace(make_step(WORKS, 8, "last", "none"))).logits
    assert np.array_equal(plain[1], wanted[1])
    assert (np.abs(plain - wanted).max(axis=1) > 1e-2).tolist() == [True, False, True]


def test_steps_with_adapters_are_recorded_and_fed_what_the_other_program_drew() -> None:
    """Both programs take turns; tokens come from the step before, whichever that was, and are those of launches."""
    recorder = Recorder()
    tasks = [SampleTask(i, SamplingParams(temperature=0.0), 0, [], []) for i in range(2)]

    def drawn(model: CudaModel, adapted: CudaModel, feeds: bool) -> list[list[int]]:
        found, tokens = [], [7, 9]
        for position in range(6):
            step = make_step([Work([tokens[i]], position, [4 + i]) for i in range(2)], 8, "none", "last")
            turn = position % 3 > 0
            given = replace(step, adapter_slots=np.array([0, -1], np.int32)) if turn else step
            sources = None
            if feeds and position:
                given, sources = replace(given, token_ids=np.zeros(2, np.int32)), np.arange(2, dtype=np.int32)
            device = adapted if turn else model
            tokens = device.collect(device.submit(given, tasks, [0, 1], sources)).tokens.tolist()
            found.append(tokens)
        return found

    wanted = drawn(*both_of("llama", "float32"), feeds=False)
    model, adapted = both_of("llama", "float32", recorder=recorder)
    assert drawn(model, adapted, feeds=True) == wanted
    assert (recorder.num_recorded, recorder.num_replayed) == (2, 4), "a bucket of each program"
    assert adapted.record_next() and recorder.num_recorded == 3


def test_what_does_not_fit_is_refused() -> None:
    model, adapted = both_of("llama", "float32")
    with pytest.raises(InvariantError, match="knows none"):
        model.run(PROMPTS)
    other = program_of("llama", "bfloat16", None, None)
    with pytest.raises(InvariantError, match="other constants"):
        model.with_adapters(other, CudaAdapters(other, 1, CPU))
    with pytest.raises(InvariantError, match="no slots"):
        model.sharing(adapted.program)
