"""Kernels compiled by other processes: what they leave, when none is begun, and what becomes of failures."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton

from albireo.api.compiled import compile_all
from albireo.api.drafts.draft_head import tapped
from albireo.api.machine.compile_ahead import main
from albireo.api.machine.compiling import Compiling, compiling
from albireo.api.machine.cuda_device import AbsentGpu
from albireo.api.programs import compile_program
from albireo.api.sources.source import open_source
from albireo.backends.cuda import absent_gpu, claims, placed_program
from albireo.backends.cuda import compile_ahead as ahead
from albireo.backends.cuda.attention_plan import WorkList, plan_attention
from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.chip import Absent, Chip
from albireo.backends.cuda.endings import Endings
from albireo.backends.cuda.kernels.parts import overlap
from albireo.backends.cuda.placed_program import PlacedProgram
from albireo.backends.cuda.step import DeviceStep
from albireo.compiler.rewrite import copy_graph
from albireo.graph.program import Program
from albireo.models import load_architecture
from albireo.speculative_config import SpeculativeConfig
from backends.cuda.launched import known, noted, sample
from backends.cuda.launched_ledger import CHIP, CONFIG, PARTS, looking_up, order, tiny_model
from compiler.ranks import wide_config
from tiny_heads import eagle3_head
from tiny_models import make_checkpoint

#: Seconds that processes have beside others, however many those are.
_LONG = 900.0
ANEW = "write tests/backends/cuda/launched.json anew: make aot"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Program]:
    directory = tiny_model(tmp_path_factory.mktemp("model"))
    graph = open_source(directory, CONFIG).graph(64)
    return directory, compile_program(graph, CONFIG, 64, catalog=CudaCatalog(CHIP.capability))


@pytest.fixture(scope="session")
def begun(model: tuple[Path, Program], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Compiling, Path]]:
    """A part with a step and one without, compiled beside other tests; and the cache that they fill."""
    place = tmp_path_factory.mktemp("beside")
    cache = place / "cache"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in looking_up(place).items():
            patch.setenv(name, value)
        compiling = Compiling([order(model[0], 0), order(model[0], PARTS - 1)], cache / "done")
    yield compiling, cache
    compiling.close()


def test_nobody_waits_for_what_is_compiled(begun: tuple[Compiling, Path]) -> None:
    """One of the first of this folder (conftest.py), so that it is done when it is looked at."""
    compiling, cache = begun
    assert len(compiling._processes) == 2 and not (cache / "done").exists()


def test_a_step_leaves_its_kernels_for_whoever_serves(begun: tuple[Compiling, Path]) -> None:
    """As machine code for that GPU, e4m3 on both sides among them, and those of the program with adapters; of a part
    without steps nothing comes. What came of most of them is known, and is not compiled again (launched.py)."""
    compiling, cache = begun
    compiling.wait(_LONG)
    assert (cache / "done").exists()
    kept, launched = known(), noted(cache)
    compiled = {key: facts for key, facts in launched.items() if facts is not None}
    assert Counter(path.stem for path in cache.rglob("*.cubin")) == Counter(each.name for each in compiled.values())
    assert compiled.keys() == (launched.keys() - kept.keys()) | sample(kept) and compiled
    if kept:
        assert launched.keys() == kept.keys(), f"something else is launched; {ANEW}"
        assert compiled == {key: kept[key] for key in compiled}, f"something else came of kernels; {ANEW} ALL=--all"
    all_of_them = [facts or kept[key] for key, facts in launched.items()]
    names = {each.name for each in all_of_them}
    assert {"embed_kernel", "norm_kernel", "attention_kernel", "matmul_smallm_kernel", "take_best_kernel"} <= names
    assert {"adapter_kernel", "adapter_add_kernel"} <= names
    assert any(each.has_e4m3 for each in all_of_them if each.name == "norm_kernel")
    assert all(each.target == "sm_90a" and each.instructions for each in all_of_them)


@pytest.mark.parametrize("is_head", [False, True])
def test_kernels_of_what_guesses_are_compiled_too(
    is_head: bool, model: tuple[Path, Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the very programs that are loaded beside the model's, which hands hidden states out for a head; a digest
    says whether that was done."""
    if is_head:
        deep = load_architecture("qwen3").tiny | {"num_hidden_layers": 4}
        directory = make_checkpoint(tmp_path / "model", deep, seed=0, dtype="bfloat16")
        asked = {"method": "eagle3", "model": str(eagle3_head(tmp_path / "head", deep, 3)[0])}
    else:
        tiny, directory = load_architecture("llama").tiny | {"max_position_embeddings": 32}, model[0]
        asked = {"model": str(make_checkpoint(tmp_path / "draft", tiny))}
    config = replace(CONFIG, speculative_config=SpeculativeConfig.of(asked), enable_lora=False)
    source = open_source(directory, config)
    compiled = compile_all(config, source, 64, AbsentGpu())
    assert compiled.drafter is not None
    wanted = [(compiled.programs[0], 48), *((program, 32) for program in compiled.drafter.programs)]
    assert len(wanted) == 2 + is_head
    given = {"directory": str(directory), "config": asdict(config), "chip": asdict(CHIP), "model_len": 64}
    told = {**given, "max_positions": [each for _, each in wanted], "claims": str(tmp_path)}
    order = json.dumps({**told, "part": 1, "parts": 4})
    launched: list[tuple[Program, int]] = []

    def launch_all(made: tuple[Program, int], part: int, parts: int) -> None:
        assert (part, parts) == (1, 4)
        launched.append(made)

    monkeypatch.setattr("sys.stdin", io.StringIO(order))
    monkeypatch.setattr(absent_gpu.AbsentGpu, "take", lambda chip: None)
    monkeypatch.setattr(claims, "claim_kernels", lambda directory: None)
    monkeypatch.setattr(ahead, "empty_model", lambda program, max_positions, *_: (program, max_positions))
    monkeypatch.setattr(ahead, "launch_all", launch_all)
    main()
    assert launched == wanted
    assert len({ahead.digest_of(each, CHIP) for each in (wanted, wanted[:1], wanted[1:])}) == 3


def test_of_ranks_the_first_ones_kernels_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the hidden states that a head reads; the head, which is alone there; and its part of the adapters."""
    deep = wide_config("qwen3", num_hidden_layers=4)
    directory = make_checkpoint(tmp_path / "model", deep, seed=0, dtype="bfloat16")
    asked = SpeculativeConfig.of({"method": "eagle3", "model": str(eagle3_head(tmp_path / "head", deep, 3)[0])})
    config = replace(CONFIG, tensor_parallel_size=2, speculative_config=asked, enable_lora=True)
    source = open_source(directory, config)
    compiled = compile_all(config, source, 64, AbsentGpu())
    assert compiled.drafter is not None
    graph = tapped(copy_graph(source.graph(64)), compiled.drafter.taps, source.model_config)
    adapted = compile_program(graph, config, 64, source.parts[0], CudaCatalog(CHIP.capability), has_adapters=True)
    wanted = [
        (compiled.programs[0], 2, deep["vocab_size"]),
        *((program, 1, 0) for program in compiled.drafter.programs),
        (compiled.programs[0], adapted),
    ]
    given = {"directory": str(directory), "config": asdict(config), "chip": asdict(CHIP), "model_len": 64}
    launched: list[Any] = []

    def empty_model(program: Program, max_positions: int, num_ranks: int = 1, vocab_size: int = 0) -> Any:
        assert max_positions == 48
        return program, num_ranks, vocab_size

    order = {**given, "max_positions": [48] * (len(wanted) - 1), "part": 0, "parts": 1, "claims": str(tmp_path)}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(order)))
    monkeypatch.setattr(absent_gpu.AbsentGpu, "take", lambda chip: None)
    monkeypatch.setattr(claims, "claim_kernels", lambda directory: None)
    monkeypatch.setattr(ahead, "empty_model", empty_model)
    monkeypatch.setattr(ahead, "with_adapters", lambda model, program: (model[0], program))
    monkeypatch.setattr(ahead, "launch_all", lambda made, part, parts: launched.append(made))
    main()
    assert launched == wanted


def test_what_was_done_is_not_begun_again(cache: Path, model: tuple[Path, Program]) -> None:
    def begun(chip: Chip = CHIP, max_positions: int = 64, **other: Any) -> int:
        config = replace(CONFIG, **other)
        with compiling(
            Path("nowhere"), config, [(model[1], max_positions)], model_len=64, chip=chip, num_processes=1
        ) as found:
            return len(found._processes)

    with compiling(model[0], CONFIG, [(model[1], 64)], model_len=64, chip=CHIP, num_processes=1) as found:
        found._done.parent.mkdir()
        found._done.touch()
    assert begun() == 0
    assert begun(Chip(132, 89)) == begun(max_positions=32) == 1, "another GPU, another length"
    assert begun(max_lora_rank=16) == begun(enable_lora=False) == 1, "other adapters, and none"


def test_each_kernel_is_compiled_by_whoever_meets_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes; who looks up what is known (launched.py) is still asked, and a directory that is gone holds
    nobody up."""
    kernels, asked = [SimpleNamespace(module="m", name=name) for name in ("a", "b")], list[str]()

    def is_known(*, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        asked.append(fn.name)
        return False

    def hook_of_a_process() -> Any:
        monkeypatch.setattr(triton.knobs.runtime, "jit_cache_hook", is_known)
        claims.claim_kernels(tmp_path / "claims")
        return triton.knobs.runtime.jit_cache_hook

    (tmp_path / "claims").mkdir()
    one, other = hook_of_a_process(), hook_of_a_process()
    told = [{"fn": fn, "compile": {"key": key}, "key": "", "repr": ""} for fn in kernels for key in ("16", "1")]
    assert not one(**told[0]) and not other(**told[1]) and not other(**told[2])
    assert [hook(**each) for hook in (one, other) for each in told[:3]] == [True] * 6
    assert asked == ["a", "a", "b"]
    (tmp_path / "claims").rename(tmp_path / "gone")
    assert not one(**told[3]) and not other(**told[3])


def test_a_failure_is_a_line_of_the_log(cache: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    begun = Compiling([order(tmp_path / "nowhere", 0)], cache / "done")
    with caplog.at_level(logging.WARNING):
        begun.wait(_LONG)
    (message,) = caplog.messages
    assert "compiled when it is launched" in message and "nowhere" in message and "\n" not in message
    assert not (cache / "done").exists()


def test_who_does_not_end_is_ended(cache: Path, model: tuple[Path, Program], caplog: pytest.LogCaptureFixture) -> None:
    begun = Compiling([order(model[0], 0)], cache / "done")
    (process,) = begun._processes
    with caplog.at_level(logging.WARNING):
        begun.wait(seconds=0.0)
    assert process.returncode == -9 and "not done after 0 s" in caplog.messages[0]
    assert not (cache / "done").exists()


def test_every_list_of_work_is_made_by_a_kernel_that_is_there(
    model: tuple[Path, Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of attention of any step: what its kernel is made for are the rows of a tile, and sequences to a power of two."""
    config = replace(CONFIG, max_num_seqs=256, max_num_batched_tokens=8192, enable_lora=False)
    graph = open_source(model[0], config).graph(64)
    program = compile_program(graph, config, 64, catalog=CudaCatalog(CHIP.capability))
    empty = ahead.empty_model(program, 64)
    (shape,) = empty.placed.scratch.work
    made: set[tuple[int, int]] = set()

    def listed(step: DeviceStep, work: WorkList) -> None:
        made.add(kind(step.sizes["T"], step.sizes["B"]))

    def kind(tokens: int, size: int) -> tuple[int, int]:
        return plan_attention(shape, tokens, size).tile_rows, max(16, triton.next_power_of_2(size))

    def alone(placed: PlacedProgram, step: DeviceStep, _: object = None) -> None:
        for work in placed.scratch.work.values():
            listed(step, work)

    monkeypatch.setattr(ahead, "build_work_list", listed)
    monkeypatch.setattr(placed_program, "feed_drawn", lambda *_: None)
    monkeypatch.setattr(PlacedProgram, "launch", alone)
    monkeypatch.setattr(Endings, "launches", lambda *_: lambda: None)
    monkeypatch.setattr(Endings, "judge", lambda *_: None)
    ahead.launch_all(empty)
    steps = {(size, size) for size in empty._buckets.sizes}
    steps |= set(product(empty._buckets.tokens, empty._buckets.sequences))
    steps |= {(tokens, size) for tokens in (1100, 3000, 8192) for size in range(1, 257)}
    wanted = {kind(*step) for step in steps}
    assert wanted <= made, wanted - made


#: Of DeepSeek V3.2, whose rows are so many that lists of few tokens alone are cut.
LISTS = {"index_topk": 1024, "max_position_embeddings": 2048, "num_attention_heads": 128, "num_key_value_heads": 128}
VIEWS = {f"aten.{name}" for name in ("slice.Tensor", "alias.default", "detach.default", "view.default", "view.dtype")}


#: Experts, a matrix for each head, lists of what is seen: type, keys of its config, encoding.
LAUNCHING: dict[str, tuple[str, dict[str, int], str | None]] = {
    "plain": ("llama", {}, None),
    "experts": ("deepseek_v3", {}, None),
    "lists": ("deepseek_v32", LISTS, None),
    "states": ("qwen3_next", {}, None),
    "nests": ("qwen3_moe", {}, "q2_k"),
}


@pytest.fixture(scope="session")
def asked(request: pytest.FixtureRequest) -> dict[str, list[Any]]:
    """Of models that a test wants to know about, what launches_ahead.py says."""
    test = test_no_step_launches_a_kernel_that_was_not_compiled_ahead.__name__
    items = [item for item in request.session.items if getattr(item, "originalname", None) == test]
    names = [item.callspec.params["name"] for item in items]  # type: ignore[attr-defined]
    command = [sys.executable, str(Path(__file__).with_name("launches_ahead.py"))]
    environment = {**os.environ, "TRITON_INTERPRET": ""}
    wanted = json.dumps([LAUNCHING[name] for name in names])
    done = subprocess.run([*command, wanted], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", LAUNCHING)
def test_no_step_launches_a_kernel_that_was_not_compiled_ahead(name: str, asked: dict[str, list[Any]]) -> None:
    """Of all that are recorded, and of others of any size. Whom a kernel is compiled for waits, and all beside it. What
    is recorded takes views of tensors that are there, and asks for nothing that allocates, copies or waits."""
    ahead, missed, operations = asked[name]
    assert ahead > 50 and not missed
    assert {"aten.slice.Tensor"} <= set(operations) <= VIEWS


def test_what_launches_a_kernel_is_kept_where_a_triton_compiles_one_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3.6 and older. Where it cannot be made here that is nobody's problem yet."""
    made: list[tuple[str, str]] = []

    def launcher(source: str, metadata: str) -> None:
        made.append((source, metadata))
        raise AssertionError("libcuda.so cannot found!")

    monkeypatch.setattr(absent_gpu.nvidia, "make_launcher", None, raising=False)
    monkeypatch.setattr(absent_gpu.nvidia, "CudaLauncher", launcher)
    gpu = absent_gpu.AbsentGpu(CHIP)
    gpu.launcher_cls("source", "metadata")(1, 1, 1)
    assert made == [("source", "metadata")] and gpu.num_launches == 1


def test_linears_that_start_early_do_so_where_they_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is launched for a GPU that is absent is told what it would be told there."""
    monkeypatch.setattr(overlap, "ENABLED", True)
    monkeypatch.setattr(overlap, "INTERPRETED", False)
    found = []
    for capability in (80, 90):
        monkeypatch.setattr(Absent, "chip", Chip(132, capability))
        found.append(overlap.lines_ahead(torch.device("meta")))
    assert found == [0, overlap.LINES]
