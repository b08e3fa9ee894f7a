"""Parts of a machine for several engines: processors, threads, GPUs; and what is said when they are too few."""

from __future__ import annotations

import mmap
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo import _native
from albireo.api.async_llm import AsyncLLM
from albireo.api.build import build
from albireo.api.llm import LLM
from albireo.api.load import load, plan
from albireo.api.machine import take_share
from albireo.api.machine.devices import open_device
from albireo.api.machine.memory import part_of
from albireo.api.machine.share import Share, cut, threads_of
from albireo.api.machine.take_share import take_gpu, take_processors
from albireo.api.sources.locate import BUNDLED
from albireo.api.sources.source import open_source
from albireo.backends.cpu.machine import usable_cpus
from albireo.backends.cpu.nodes import numa_nodes
from albireo.backends.cpu.stored import read_stored
from albireo.backends.stored_weights import StoredWeights
from albireo.bench.plan import PlanWorkload, plan_model
from albireo.bench.plan_report import plan_lines
from albireo.config import EngineConfig
from albireo.errors import ConfigError, Corrupt
from albireo.graph.program import PackedConstant
from albireo.params import SamplingParams


@given(st.sets(st.integers(0, 63), min_size=1), st.integers(1, 8), st.integers(1, 4))
def test_no_processor_belongs_to_two_and_none_is_left_over(cpus: set[int], num: int, num_nodes: int) -> None:
    nodes = {cpu: cpu % num_nodes for cpu in cpus}
    parts = [cut(sorted(cpus), nodes, Share(i, num)) for i in range(num)]
    if len(cpus) < num:
        assert parts == [[]] * num
        return
    assert sorted(cpu for part in parts for cpu in part) == sorted(cpus)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    order = [nodes[cpu] for part in parts for cpu in part]
    assert order == sorted(order)


def test_engines_keep_to_their_numa_nodes() -> None:
    nodes = {cpu: cpu // 2 % 2 for cpu in range(8)}  # 0 1 4 5 and 2 3 6 7
    assert [cut(range(8), nodes, Share(i, 2)) for i in range(2)] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert cut(range(8), nodes, Share(2, 4)) == [2, 3]


def test_nodes_are_read_from_the_system(tmp_path: Path) -> None:
    for node, text in ((0, "0-1,4\n"), (1, "2-3\n"), (2, "\n")):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "cpulist").write_text(text)
    assert numa_nodes(tmp_path) == {0: 0, 1: 0, 4: 0, 2: 1, 3: 1}
    assert numa_nodes(tmp_path / "none") == {}


@given(st.integers(1, 100), st.integers(1, 8))
def test_threads_are_divided(total: int, num: int) -> None:
    if total < num:
        with pytest.raises(
            ConfigError, match=f"data_parallel_size={num}, and num_threads={total};.*lower it to {total}"
        ):
            threads_of(total, 64, Share(0, num))
        return
    parts = [threads_of(total, 64, Share(i, num)) for i in range(num)]
    assert sum(parts) == total and max(parts) - min(parts) <= 1


def test_too_few_processors_are_named() -> None:
    with pytest.raises(ConfigError, match="data_parallel_size=3, and 2 processors can be used here"):
        threads_of(None, 2, Share(0, 3))
    assert threads_of(3, 2, Share(0, 3)) == 1


def test_an_engine_runs_on_its_own_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(take_share, "usable_cpus", lambda: [0, 2, 4, 6])
    monkeypatch.setattr(take_share, "num_threads_of", lambda asked: asked or 4)
    monkeypatch.setattr(take_share, "numa_nodes", lambda: {})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: taken.append(cpus))
    assert take_processors(EngineConfig(), Share(1, 2)).num_threads == 2
    assert take_processors(EngineConfig(num_threads=3), Share(1, 2)).num_threads == 2
    assert take_processors(EngineConfig(num_threads=16), Share(0, 2)).num_threads == 8
    assert taken == [[4, 6], [4, 6]], "more threads than processors are not pinned"
    assert take_processors(EngineConfig(), Share()).num_threads is None and len(taken) == 2


def gpus(monkeypatch: pytest.MonkeyPatch, names: list[str], visible: str | None) -> list[str]:
    """A machine with GPUs. Returns: those that a process has come to see."""
    used: list[str] = []
    monkeypatch.setattr(take_share, "driver_version", lambda: "12.8")
    monkeypatch.setattr(take_share, "find_spec", lambda name: object())
    monkeypatch.setattr(take_share, "gpu_names", lambda: names)
    monkeypatch.setattr("albireo.devflags.use_cuda_devices", lambda some: used.append(",".join(some)))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    return used


def test_each_engine_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    used = gpus(monkeypatch, ["0", "1", "2"], None)
    for index in range(3):
        take_gpu(EngineConfig(device="cuda" if index else "auto"), Share(index, 3))
    assert used == ["0", "1", "2"]
    take_gpu(EngineConfig(device="cpu"), Share(1, 3))
    take_gpu(EngineConfig(), Share())
    assert len(used) == 3, "the CPU needs none, and an engine that is alone leaves things as they are"


def test_each_engine_sees_one_of_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used = gpus(monkeypatch, ["0", "1", "2", "3"], "3, GPU-5ca1e,-1,0")
    take_gpu(EngineConfig(), Share(1, 2))
    assert used == ["GPU-5ca1e"]
    with pytest.raises(ConfigError, match="data_parallel_size=3, and 2 GPUs can be used here"):
        take_gpu(EngineConfig(), Share(0, 3))


def test_each_engine_sees_a_gpu_for_each_of_its_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    used = gpus(monkeypatch, ["0", "1", "2", "3", "4"], None)
    take_gpu(EngineConfig(tensor_parallel_size=2), Share(1, 2))
    assert used == ["2,3"]
    with pytest.raises(ConfigError, match="5 GPUs can be used here; each engine needs 2 of its own: lower it to 2"):
        take_gpu(EngineConfig(tensor_parallel_size=2), Share(0, 3))


def test_outside_of_a_server_there_is_one_engine() -> None:
    for front in (LLM, AsyncLLM):
        with pytest.raises(ConfigError, match="data_parallel_size=2: several engines run behind `albireo serve` only"):
            front(data_parallel_size=2)
    with pytest.raises(ConfigError, match="data_parallel_size=0"):
        EngineConfig(data_parallel_size=0)


def test_a_plan_is_of_one_engine() -> None:
    if len(usable_cpus()) < 2:
        pytest.skip("there is one processor")
    whole, each = (plan_model(EngineConfig(device="cpu", data_parallel_size=n), PlanWorkload()) for n in (1, 2))
    assert each["memory"]["budget_bytes"] == pytest.approx(whole["memory"]["budget_bytes"] / 2, abs=1)
    assert each["limits"]["num_threads"] == len(usable_cpus()) // 2
    assert any("for each of 2 engines" in line for line in plan_lines(each))


def test_engines_on_one_node_have_the_weights_of_a_built_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are pages of the file, which the kernel keeps once; the tokens are those of weights that were read."""
    build(BUNDLED, tmp_path / "engine")
    weights = str(next((tmp_path / "engine").glob("weights.0.*")))
    config = EngineConfig(model=str(tmp_path / "engine"), device="cpu", num_threads=2, data_parallel_size=2)
    params = SamplingParams(max_tokens=30, seed=1, temperature=0.9, ignore_eos=True)
    alone = LLM.from_loaded(load(replace(config, data_parallel_size=1)))
    expected = alone.generate("Once upon a time", params)[0].outputs[0].token_ids
    assert weights not in Path("/proc/self/maps").read_text()
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: None)
    both = [LLM.from_loaded(load(config, share=Share(i, 2))) for i in range(2)]
    assert Path("/proc/self/maps").read_text().count(weights) == 2
    for llm in both:
        assert llm.generate("Once upon a time", params)[0].outputs[0].token_ids == expected
    one, two = (plan(config, open_source(tmp_path / "engine", config), open_device(config))[1] for config in
                (replace(config, data_parallel_size=n) for n in (1, 2)))  # fmt: skip
    assert two.budget_bytes == part_of(one.budget_bytes, 2, one.weight_bytes)
    monkeypatch.setattr("albireo.api.sources.source.numa_nodes", lambda: {0: 0, 1: 1})
    assert not open_source(tmp_path / "engine", config).shares_weights, "far memory is slower"
    monkeypatch.setattr("albireo.api.sources.source.numa_nodes", lambda: {0: 0})
    assert open_source(tmp_path / "engine", config).shares_weights
    monkeypatch.setattr(mmap, "PAGESIZE", 65536)
    assert not open_source(tmp_path / "engine", config).shares_weights, "constants share a page"


def test_weights_that_are_cut_short_are_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(4096))
    constant = PackedConstant("w", "row.float32", 1, 4096, 16384)
    stored = StoredWeights(tmp_path / "weights", {"w": constant}, {"w": 0}, is_shared=True)
    with pytest.raises(Corrupt, match="ends at byte 4096"):
        read_stored(stored, {"w": constant}, _native.Memory(32768), {"w": 0}, lambda _: None)


def test_only_whole_pages_of_a_file_are_mapped_and_only_into_its_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 64)
    memory = _native.Memory(8192)
    with (tmp_path / "file").open("rb") as file:
        for source, target, num_bytes in ((1, 0, 4096), (0, 1, 4096), (0, 4096, 8192), (0, 0, 0)):
            with pytest.raises(RuntimeError, match="mapping a file"):
                memory.map(file.fileno(), source, target, num_bytes)
        memory.map(file.fileno(), 4096, 4096, 300)
    assert not memory.view()[:4096].any() and bytes(memory.view()[4096:4396]) == (bytes(range(256)) * 2)[:300]
