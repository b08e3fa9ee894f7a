"""Parts of a machine for several engines: processors, threads, GPUs; and what is said when they are too few."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.api import take_share
from albireo.api.async_llm import AsyncLLM
from albireo.api.llm import LLM
from albireo.api.share import Share, cut, threads_of
from albireo.api.take_share import take_gpu, take_processors
from albireo.backends.cpu.machine import numa_nodes, usable_cpus
from albireo.bench.plan import PlanWorkload, plan_model
from albireo.bench.plan_report import plan_lines
from albireo.config import EngineConfig
from albireo.errors import ConfigError


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
    monkeypatch.setattr("albireo.devflags.use_cuda_device", used.append)
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
