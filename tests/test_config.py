"""EngineConfig: unknown keys, aliases and ranges."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from albireo.config import BuildConfig, EngineArgs, EngineConfig
from albireo.errors import ConfigError, short
from albireo.media_limits import MediaLimits
from albireo.profiles import StepLimits


def test_an_unknown_key_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="did you mean max_num_seqs"):
        EngineConfig.from_kwargs(max_num_seq=3)
    with pytest.raises(ConfigError, match="known: "):
        EngineConfig.from_kwargs(zzz=3)


def test_numbers_of_numpy_are_numbers() -> None:
    config = EngineConfig.from_kwargs(max_model_len=np.int64(64), memory_utilization=np.float32(0.5))
    assert (config.max_model_len, config.memory_utilization) == (64, 0.5) and type(config.max_model_len) is int
    with pytest.raises(ConfigError, match="max_num_seqs"):
        EngineConfig.from_kwargs(max_num_seqs=np.int64(0))


def test_gpu_memory_utilization_is_an_alias_and_not_a_second_setting() -> None:
    assert EngineConfig.from_kwargs(gpu_memory_utilization=0.5).memory_utilization == 0.5
    with pytest.raises(ConfigError, match="keep one"):
        EngineConfig.from_kwargs(gpu_memory_utilization=0.5, memory_utilization=0.5)


def test_engine_args_are_arguments_of_an_llm() -> None:
    given = {
        "speculative_config": {"method": "ngram", "num_speculative_tokens": 2},
        "limit_mm_per_prompt": {"image": 2},
    }
    args = EngineArgs("fox", gpu_memory_utilization=0.5, trust_remote_code=True, without="fuse", seed=None, **given)
    config = EngineConfig.from_kwargs(model="fox", memory_utilization=0.5, without=("fuse",), **given)
    assert vars(args) == vars(config) and isinstance(args, EngineConfig)
    assert EngineConfig.from_kwargs(**vars(args)) == EngineConfig.from_kwargs(**asdict(args)) == config
    with pytest.raises(ConfigError, match="cpu_offload_gb is vLLM's"):
        EngineArgs("fox", cpu_offload_gb=4)


def test_engine_args_may_be_changed_before_they_are_used() -> None:
    args = EngineArgs("fox", limit_mm_per_prompt={"image": 2})
    args.seed = 5
    args.limit_mm_per_prompt = {"image": {"count": 1, "width": 64}, "audio": 0, "vision_chunk": 0}  # type: ignore[assignment]
    args.mm_processor_cache_gb = 4  # vLLM's default
    args.gpu_memory_utilization = 0.5
    assert vars(args) == vars(
        EngineConfig(model="fox", seed=5, limit_mm_per_prompt=MediaLimits(image=1, audio=0), memory_utilization=0.5)
    )
    before = dict(vars(args))
    for name, value in (("seed", "x"), ("cpu_offload_gb", 4), ("smell", 1)):
        with pytest.raises(ConfigError, match=name):
            setattr(args, name, value)
    assert vars(args) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"block_size": 12},
        {"scheduling_policy": "lifo"},
        {"generation_config": "none"},
        {"override_generation_config": {"eos_token_id": 5}},
        {"override_generation_config": {"temperature": -1}},
        {"override_generation_config": "{temperature"},
        {"override_generation_config": "[]5"},
        {"override_generation_config": 5},
        {"enable_lora": 1},
        {"max_loras": 0},
        {"max_loras": 1025},
        {"max_lora_rank": 0},
        {"max_lora_rank": "16"},
        {"max_num_seqs": 0},
        {"max_num_batched_tokens": 1.5},
        {"max_model_len": 0},
        {"profile": "calm"},
        {"kv_cache_dtype": "int3"},
        {"kv_cache_dtype": 8},
        {"without": (1,)},
        {"kv_cache_memory_bytes": -1},
        {"num_gpu_blocks_override": True},
        {"num_threads": 0},
        {"target_itl_ms": -1},
        {"target_itl_ms": 0.5},
        {"memory_utilization": 0.0},
        {"memory_utilization": 1.1},
        {"memory_utilization": "most"},
        {"memory_utilization": True},
        {"memory_utilization": 10**400},
        {"max_num_seqs": -(10**5000)},
        {"num_threads": 100_000},
        {"kv_cache_memory_bytes": 10**400},
        {"max_num_batched_tokens": 2**63},
        {"block_size": 16.0},
        {"seed": "7"},
        {"seed": 2**63},
        {"seed": -(2**63) - 1},
        {"prefix_cache_dir_bytes": 0},
        {"limit_mm_per_prompt": [1]},
        {"limit_mm_per_prompt": "{"},
        {"limit_mm_per_prompt": {"image": -1}},
        {"limit_mm_per_prompt": {"smell": 1}},
        {"swap_space": -1},
        {"swap_space": True},
        {"swap_space": float("inf")},
        {"swap_space": 1, "device": "cpu"},
        {"model": 5},
        {"tokenizer": b"x"},
        {"dtype": 16},
        {"quantization": 8},
        {"profile": ["latency"]},
        {"without": None},
        {"enable_prefix_caching": "no"},
        {"skip_tokenizer_init": 1},
        {"tp_invariant": "yes"},
    ],
    ids=short,
)
def test_a_value_out_of_range_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        EngineConfig(**fields)


def test_a_profile_sets_what_is_not_asked_for() -> None:
    assert EngineConfig(profile="throughput").step_limits.max_num_seqs == 256
    assert EngineConfig(profile="latency", max_num_seqs=3).step_limits == StepLimits(3, 512, 100)
    assert EngineConfig().step_limits == EngineConfig(profile="balanced").step_limits == StepLimits(64, 960, 500)
    with pytest.raises(ConfigError, match="profile='calm' is unknown; choose balanced, throughput or latency"):
        BuildConfig(profile="calm")  # type: ignore[arg-type]


def test_no_pictures_at_all_may_be_the_limit() -> None:
    assert EngineConfig(limit_mm_per_prompt='{"image": 0}').limit_mm_per_prompt.image == 0  # type: ignore[arg-type]
    assert EngineConfig(limit_mm_per_prompt=None).limit_mm_per_prompt.image is None  # type: ignore[arg-type]


def test_names_of_passes() -> None:
    assert EngineConfig(without="a,b").without == ("a", "b")  # type: ignore[arg-type]
    assert BuildConfig(without=["a", "b , a", ""]).without == ("a", "b")  # type: ignore[arg-type]


def test_recommended_sampling_is_read_and_written_again() -> None:
    config = EngineConfig.from_kwargs(override_generation_config='{"top_p": 0.5, "max_new_tokens": 3}')
    assert config.override_generation_config == {"top_p": 0.5, "max_new_tokens": 3}
    assert EngineConfig.from_kwargs(**msgspec.to_builtins(config)) == config


def test_minus_one_means_as_far_as_memory_allows() -> None:
    assert EngineConfig(max_model_len=-1).max_model_len is None


@pytest.mark.parametrize(
    "fields",
    [{"force": 1}, {"target": 2}, {"profile": {}}, {"tensor_parallel_size": None}, {"max_num_seqs": "3"}],
    ids=str,
)
def test_a_build_refuses_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        BuildConfig(**fields)


def test_a_path_and_a_type_of_torch_may_be_given_as_such() -> None:
    class Bfloat16(SimpleNamespace):
        def __repr__(self) -> str:
            return "torch.bfloat16"

    config = EngineConfig(model=Path("a/b"), dtype=Bfloat16())  # type: ignore[arg-type]
    assert (config.model, config.dtype) == ("a/b", "torch.bfloat16")
