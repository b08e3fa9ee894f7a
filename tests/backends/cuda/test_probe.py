"""A GPU's limits: what is launched and counted, on CPU tensors with clocks that are given; benchmarks beside them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from albireo.api import load
from albireo.backends.cuda import probe as module
from albireo.backends.cuda.device import GpuFacts
from albireo.backends.cuda.probe import (
    LEAST_DOT_SIZE,
    LEAST_READ_BYTES,
    NUM_PRODUCTS,
    NUM_READS,
    Launch,
    ProbeSizes,
    SpeedProbe,
    event_times,
    sizes_for,
)
from albireo.bench.limits import GpuLimitProbe, open_probe
from albireo.bench.roofline import Limits
from albireo.cli import doctor
from albireo.cli.main import main
from albireo.errors import OutOfMemory
from albireo.models import load_architecture
from backends.cuda.test_end_to_end import StandIn
from tiny_models import make_checkpoint

GIB, MIB = 1 << 30, 1 << 20
TINY = ProbeSizes(read_bytes=4096, dot_size=16)


class Clock:
    """Launches once, and says that the launches took the times it was given; the best is neither first nor last."""

    def __init__(self, best_s: float) -> None:
        self.best_s = best_s
        self.counts: list[int] = []

    def __call__(self, launch: Launch, count: int) -> list[float]:
        launch()
        self.counts.append(count)
        return [3 * self.best_s, self.best_s, *(2 * self.best_s,) * (count - 2)]


def stand_in(dtype: str, timer: Any = None) -> SpeedProbe:
    return SpeedProbe(torch.device("cpu"), "NVIDIA H200", dtype, TINY, timer or Clock(1e-6))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_speeds_are_what_was_launched_over_the_best_time(dtype: str) -> None:
    clock = Clock(0.5)
    probe = stand_in(dtype, clock)
    assert probe.read_bytes == 4096
    assert probe.read() == 4096 / 0.5
    assert probe.dot() == 2 * 16**3 / 0.5
    assert clock.counts == [NUM_READS, NUM_PRODUCTS]


def test_all_that_is_counted_is_read_and_multiplied_and_none_of_it_is_zero() -> None:
    """Of zeros a GPU multiplies more in a second than of other numbers."""
    probe = stand_in("bfloat16")
    probe.read()
    probe.dot()
    assert probe._sum.item() == pytest.approx(probe._memory.double().sum().item(), abs=1e-4)
    for numbers in (probe._memory, probe._x.float(), probe._weight.float()):
        assert 0.8 < numbers.std().item() < 1.2
    assert probe._x.dtype == torch.bfloat16 and not torch.equal(probe._x, probe._weight)
    product = probe._x.double() @ probe._weight.double().T
    # sums of 16 numbers of a few units, rounded to 8 bits
    torch.testing.assert_close(probe._out.double(), product, rtol=2**-7, atol=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("free", [600 * MIB, GIB, 2 * GIB, 3 * GIB, 5 * GIB, 80 * GIB])
def test_the_probe_takes_half_of_what_is_free_at_most(free: int, dtype: str) -> None:
    sizes = sizes_for(free, dtype)
    item = {"float32": 4, "bfloat16": 2}[dtype]
    assert sizes.read_bytes + 3 * sizes.dot_size**2 * item <= free // 2
    assert LEAST_READ_BYTES <= sizes.read_bytes <= GIB and LEAST_DOT_SIZE <= sizes.dot_size <= 8192
    if free >= 5 * GIB:
        assert sizes == ProbeSizes(GIB, 8192)


def test_too_little_memory_is_said_with_the_numbers() -> None:
    with pytest.raises(OutOfMemory, match=r"has 400 MiB free; .* must be 262 MiB at least.* gpu_memory_utilization"):
        sizes_for(400 * MIB, "bfloat16")


def test_launches_are_timed_one_by_one_behind_one_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            done.append("record")
            self.at_ms = 10.0 * done.count("launch") ** 2

        def synchronize(self) -> None:
            done.append("wait")

        def elapsed_time(self, later: Event) -> float:
            return later.at_ms - self.at_ms

    monkeypatch.setattr(module.torch, "cuda", SimpleNamespace(Event=Event))
    assert event_times(lambda: done.append("launch"), 3) == pytest.approx([0.03, 0.05, 0.07])
    assert done == ["launch", "record", *("launch", "record") * 3, "wait"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "open_probe", stand_in)


def test_a_gpu_has_a_probe_of_its_own(gpu: None) -> None:
    probe = open_probe("cuda", 2, "bfloat16", 1 << 20)
    assert isinstance(probe, GpuLimitProbe)
    assert (probe.gpu, probe.num_threads, probe.read_bytes) == ("NVIDIA H200", None, 4096)
    assert probe.measure() == Limits(4096 / 1e-6, 2 * 16**3 / 1e-6)
    of_two = open_probe("cuda", 2, "bfloat16", 1 << 20, 2)
    assert of_two.gpu == "2 x NVIDIA H200" and of_two.measure() == Limits(2 * 4096 / 1e-6, 4 * 16**3 / 1e-6)
    ours = open_probe("cpu", 2, "bfloat16", 1 << 20)
    assert (ours.gpu, ours.num_threads) == (None, 2)


def test_a_benchmark_on_a_gpu_is_held_against_the_gpu(
    gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits, the machine's name, and no prediction: that is the processor's."""
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    model = make_checkpoint(tmp_path / "model", load_architecture("qwen2").tiny | {"num_hidden_layers": 1}, seed=5)
    workload = "--batch-size 1 --input-len 2 --output-len 2 --temperature 0 --num-iters-warmup 0 --num-iters 1"
    engine = "--device cuda --max-num-batched-tokens 4 --max-num-seqs 1 --num-gpu-blocks-override 12"
    file = tmp_path / "figures.json"
    args = ["bench", "latency", str(model), *workload.split(), *engine.split(), "--skip-tokenizer-init"]
    result = CliRunner().invoke(main, [*args, "--output-json", str(file)])
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    limits = found["limits"]
    assert limits["gpu"] == "NVIDIA H200" and limits["num_threads"] is None and limits["read_bytes"] == 4096
    assert limits["read_bytes_per_s"]["median"] == pytest.approx(4096 / 1e-6)
    assert limits["dot_flops_per_s"]["median"] == pytest.approx(2 * 16**3 / 1e-6)
    assert found["fraction_of_limit"]["whole"]["median"] > 0 and found["predicted"] is None
    lines = result.stdout.splitlines()
    assert f"machine       NVIDIA H200, beside {found['machine']['cpu']}" in lines
    assert "predicted     nothing: the cost model knows a processor's kernels, not a GPU's" in lines
    assert "limits        read 4.1 GB/s of 0.0 MB, dot 8 Gflop/s" in lines


def test_the_doctor_measures_a_gpu_that_can_be_used(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = GpuFacts("12.8", "2.13.0", "3.9.0", "12.8", "NVIDIA H200", (9, 0), 140 << 30, 130 << 30)
    monkeypatch.setattr(doctor, "gpu_facts", lambda: facts)
    shown = CliRunner().invoke(main, ["doctor", "--num-threads", "1"]).stdout.splitlines()
    assert "GPU read      4.1 GB/s best, 4.1 median" in shown
    assert "GPU dot bf16  8 Gflop/s best, 8 median" in shown and "GPU dot f32   8 Gflop/s best, 8 median" in shown


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OutOfMemory("the GPU has 3 MiB free"), "the GPU has 3 MiB free"),
        (
            RuntimeError("CUDA error: no kernel image is available\nCompile with"),
            "CUDA error: no kernel image is available",
        ),
    ],
)
def test_the_doctor_says_why_a_gpu_could_not_be_measured(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(dtype: str) -> SpeedProbe:
        raise error

    monkeypatch.setattr(module, "open_probe", fails)
    monkeypatch.setattr(doctor, "gpu_facts", lambda: GpuFacts(name="NVIDIA H200"))
    found = doctor._cuda()
    assert found["read_bytes_per_s"] is None and found["dot_flops_per_s"] is None
    assert doctor._gpu_limit_lines(found) == [f"GPU read      not measured: {said}"]
