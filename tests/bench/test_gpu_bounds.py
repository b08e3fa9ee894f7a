"""A GPU that is named: its memory, and speeds that its data sheet allows; of several, what each of them holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albireo.api.build import build
from albireo.backends.cuda.known_gpus import KNOWN_GPUS
from albireo.bench.plan import SPEED_FIGURES, PlanWorkload, plan_model
from albireo.bench.plan_report import plan_lines
from albireo.config import BuildConfig, EngineConfig
from albireo.errors import ConfigError, OutOfMemory

LLAMA = Path(__file__).parents[2] / "../shared/data/configs/original/meta-llama"
H200 = KNOWN_GPUS["h200"]
#: Parameters of Llama 3.1 8B and 70B as Meta counts them, and of their embedding tables.
ALL_8B, TABLE_8B = 8_030_261_248, 128_256 * 4096
ALL_70B, TABLE_70B = 70_553_706_496, 128_256 * 8192


def published(name: str) -> str:
    if not (LLAMA / name).is_dir():
        pytest.skip("the configurations of published models are not here")
    return str(LLAMA / name)


def planned(model: str | None = None, gpu: str = "h200", workload: PlanWorkload | None = None, **config: Any) -> Any:
    return plan_model(EngineConfig(model=model, **config), workload or PlanWorkload(), gpu=KNOWN_GPUS[gpu])


def test_a_step_takes_what_reading_the_weights_takes() -> None:
    """Of one request: all but the table once, and the keys and values of the middle of its output."""
    found = planned(published("Meta-Llama-3.1-8B"), workload=PlanWorkload(concurrency=1))
    num_bytes = 2 * (ALL_8B - TABLE_8B) + 192 * 131_072
    one = found["at_most"]["one_request"]
    assert one["decode_step_s"] == pytest.approx(num_bytes / 4.8e12, rel=1e-3)
    assert one["decode_tokens_per_s"] == pytest.approx(1 / one["decode_step_s"])
    assert one["elapsed_s"] == pytest.approx(one["first_token_s"] + 127 * one["decode_step_s"], rel=1e-3)
    assert found["memory"]["budget_bytes"] == int(0.9 * (143_771 << 20))
    assert found["memory"]["weight_bytes"] == pytest.approx(2 * ALL_8B, rel=5e-3)
    assert all(found[name] is None for name in SPEED_FIGURES), "nothing is predicted"


def test_a_long_prompt_takes_what_multiplying_takes() -> None:
    """Two operations a weight and a token, four a position seen and an element of the heads; the head for one row.

    Most of the last of 32 layers is computed for that row alone.
    """
    workload = PlanWorkload(concurrency=1, input_len=8192, output_len=1)
    found = planned(published("Meta-Llama-3.1-8B"), workload=workload, max_num_batched_tokens=8192)
    flops = 2 * 8192 * (ALL_8B - 2 * TABLE_8B) + 4 * 32 * 4096 * (8192 * 8193 // 2) + 2 * TABLE_8B
    assert 31 / 32 < found["at_most"]["one_request"]["first_token_s"] / (flops / 989e12) < 1


#: Its name, how many layers it has, and its parameters with and without the table.
LLAMAS = [("8B", 32, ALL_8B, TABLE_8B), ("70B", 80, ALL_70B, TABLE_70B)]


# many programs of 80 layers take seconds to compile
@pytest.mark.parametrize(("llama", "num_ranks"), [(LLAMAS[1], 2), (LLAMAS[0], 4), (LLAMAS[0], 8)])
def test_each_of_several_gpus_has_its_part(llama: tuple[str, int, int, int], num_ranks: int) -> None:
    """Of everything but the tables of embeddings and rotations, which each has whole; and so much less to read."""
    name, num_layers, whole, table = llama
    found = planned(published(f"Meta-Llama-3.1-{name}"), tensor_parallel_size=num_ranks)
    each = whole - table
    assert found["memory"]["weight_bytes"] == pytest.approx(
        2 * (each / num_ranks + table) + 4 * 128 * 131_072, rel=5e-3
    )
    assert found["memory"]["kv_bytes_per_token"] == num_layers * 8 * 128 * 2 * 2 // num_ranks
    step_s = found["at_most"]["one_request"]["decode_step_s"]
    assert step_s == pytest.approx(2 * each / num_ranks / 4.8e12, rel=5e-3)
    assert found["at_most"]["limits"]["num_gpus"] == num_ranks
    shown = plan_lines(found)
    assert f"memory        126.36 GiB allowed of each of {num_ranks} GPUs" in shown
    assert any(line.startswith(f"limits        each of {num_ranks} x h200: read 4,800 GB/s") for line in shown)


def test_more_gpus_are_named_where_one_is_too_small() -> None:
    model = published("Meta-Llama-3.1-70B")
    with pytest.raises(OutOfMemory, match="or share it among more GPUs: tensor_parallel_size=2"):
        planned(model, gpu="h100")
    with pytest.raises(OutOfMemory) as nothing_more:
        planned(model, gpu="l4", tensor_parallel_size=8, max_model_len=131_072)
    assert "more GPUs" not in str(nothing_more.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_lines_say_that_they_are_bounds(dtype: str) -> None:
    """And of float32 products those that matrix units do not make."""
    found = planned(dtype=dtype, workload=PlanWorkload(concurrency=2, input_len=8, output_len=4))
    text = "\n".join(plan_lines(found))
    assert "or more   up to" in text and "2 at once" in text and "predicted" not in text
    assert f"dot {989 if dtype == 'bfloat16' else 67} Tflop/s, by its data sheet; kernels reach a part of it" in text


def test_a_directory_says_how_many_gpus_it_is_for(tmp_path: Path) -> None:
    build(None, tmp_path / "engine", BuildConfig(target="cuda:90", tensor_parallel_size=2))
    found = planned(str(tmp_path / "engine"), gpu="h100")
    assert found["memory"] == planned(gpu="h100", tensor_parallel_size=2)["memory"]
    assert "memory        71.68 GiB allowed of each of 2 GPUs" in plan_lines(found)


def test_of_prompts_alone_no_step_is_told() -> None:
    bounds = planned(workload=PlanWorkload(concurrency=1, output_len=1))["at_most"]["one_request"]
    assert bounds["decode_step_s"] is None and bounds["decode_tokens_per_s"] is None
    assert bounds["elapsed_s"] == bounds["first_token_s"] == bounds["prompt_s"]


def test_what_excludes_a_gpu() -> None:
    with pytest.raises(ConfigError, match="device=cpu and gpu=h200 exclude each other"):
        planned(device="cpu")
    with pytest.raises(ConfigError, match="tensor_parallel_size=2 is asked for; leave it out, or name a GPU"):
        plan_model(EngineConfig(device="cpu", tensor_parallel_size=2), PlanWorkload())
    with pytest.raises(ConfigError, match=r"kv_cache_dtype=fp8 needs compute capability 8\.9, a100-80gb has 8\.0"):
        planned(gpu="a100-80gb", kv_cache_dtype="fp8")


@pytest.mark.parametrize("gpu", KNOWN_GPUS.values(), ids=lambda gpu: gpu.name)
def test_every_one_can_be_planned_for(gpu: Any) -> None:
    """Newer ones read faster; none has a capability that kernels do not know."""
    found = plan_model(EngineConfig(), PlanWorkload(concurrency=1), gpu=gpu)
    assert found["memory"]["budget_bytes"] == int(0.9 * gpu.memory_bytes)
    assert 0 < found["at_most"]["one_request"]["decode_step_s"] < 1e-3
    assert gpu.capability in (80, 86, 89, 90, 100, 120)
