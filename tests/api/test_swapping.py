"""swap_space in blocks, what moving one costs, and where it makes no sense."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from albireo.api.load import load, plan_ranks
from albireo.api.machine.cpu_device import CpuDevice
from albireo.api.machine.cuda_device import AbsentGpu
from albireo.api.machine.swapping import LINK_BYTES_PER_S, PREFILL_FLOPS_PER_S, Swapping, plan_swapping
from albireo.api.sources.source import ModelSource, open_source
from albireo.config import EngineConfig
from albireo.errors import ConfigError, OutOfMemory
from albireo.graph.program import Program
from albireo.models import load_architecture
from tiny_models import make_checkpoint

TINY = load_architecture("qwen2").tiny


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), TINY, seed=5)


def planned(directory: Path, **config: object) -> tuple[EngineConfig, Program]:
    asked = EngineConfig.from_kwargs(model=str(directory), device="cuda", dtype="bfloat16", **config)
    source: ModelSource = open_source(directory, asked)
    asked = source.adopt(asked)
    return asked, plan_ranks(asked, source, device=AbsentGpu())[0][0]


def test_blocks_and_their_cost(directory: Path) -> None:
    """Counted from config.json: products without the head, and of the last layer only as far as its attention."""
    config, program = planned(directory, swap_space=0.01, block_size=8)
    hidden, ffn, layers = TINY["hidden_size"], TINY["intermediate_size"], TINY["num_hidden_layers"]
    heads, kv_heads = TINY["num_attention_heads"], TINY["num_key_value_heads"]
    dim = TINY.get("head_dim") or hidden // heads
    padded = -(-dim // 16) * 16
    # a layer sees all positions and two do not: a block is one layer's
    assert (layers, program.kv.num_groups) == (3, 3)
    block_bytes = 8 * 2 * kv_heads * padded * 2
    found = AbsentGpu().swapping(config, program)
    assert found.num_blocks == int(0.01 * 2**30) // block_bytes
    gate_up = 2 * 64 * -(-ffn // 64)  # in panels of 64 each
    before, behind = hidden * dim * (heads + 2 * kv_heads), (heads * dim + gate_up + ffn) * hidden
    products = layers * before + (layers - 1) * behind
    move_s, token_s = 2 * block_bytes / LINK_BYTES_PER_S, 2 * products / PREFILL_FLOPS_PER_S
    assert found.cost_tokens == pytest.approx(move_s / token_s)


def test_none_without_space(directory: Path) -> None:
    assert AbsentGpu().swapping(*planned(directory)) == Swapping()


def test_more_than_the_machine_has_or_less_than_a_block(directory: Path) -> None:
    config, program = planned(directory)
    with pytest.raises(OutOfMemory, match=r"swap_space=100000 GiB exceed the [\d.]+ GiB of host memory"):
        plan_swapping(dataclasses.replace(config, swap_space=1e5), program, 4096)
    with pytest.raises(ConfigError, match=r"swap_space=1e-06 GiB are 1073 bytes, a KV block takes 4096; raise it"):
        plan_swapping(dataclasses.replace(config, swap_space=1e-6), program, 4096)


def test_there_is_nowhere_to_swap_to_on_a_cpu(directory: Path) -> None:
    assert EngineConfig(device="cpu", swap_space=0).swap_space == 0
    with pytest.raises(ConfigError, match="on the CPU the KV cache is in host memory already"):
        EngineConfig(device="cpu", swap_space=4)
    with pytest.raises(ConfigError, match="on the CPU the KV cache is in host memory already"):
        load(EngineConfig(model=str(directory), swap_space=4, skip_tokenizer_init=True), levels=("scalar",))
    assert CpuDevice(("scalar",)).swapping(*planned(directory)) == Swapping()


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "4"])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ConfigError, match=r"swap_space=.* must be a number of GiB"):
        EngineConfig.from_kwargs(swap_space=value)


def test_who_keeps_a_state_is_not_swapped(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, load_architecture("qwen3_5_text").tiny, seed=5)
    assert planned(tmp_path)[1].states
    with pytest.raises(ConfigError, match="swap_space: layers of this model keep a state of each sequence"):
        planned(tmp_path, swap_space=0.01)
