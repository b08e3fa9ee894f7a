"""Flags are made from the dataclasses, and only what was set is passed on."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click
import pytest
from click.testing import CliRunner

from albireo.cli.options import SAMPLING_FLAGS, engine_options, sampling_options
from albireo.config import EngineConfig
from albireo.params import SamplingParams


@click.command()
@sampling_options(max_tokens="a lot")
@engine_options(without=("seed",))
def everything(sampling: dict[str, Any], engine: dict[str, Any]) -> None:
    click.echo(repr((engine, sampling)))


def given(*args: str) -> tuple[dict[str, Any], dict[str, Any]]:
    result = CliRunner().invoke(everything, args)
    assert result.exit_code == 0, result.output
    return eval(result.stdout)  # what the command above printed


def test_nothing_set_is_nothing_given():
    assert given() == ({}, {})


@pytest.mark.parametrize("flag", ["--tp", "-tp", "--tensor-parallel-size"])
def test_ranks_are_asked_for_as_at_a_build(flag: str) -> None:
    assert given(flag, "2") == ({"tensor_parallel_size": 2}, {})


def test_each_field_of_the_engine_has_a_flag_and_a_help():
    names = {param.name: param for param in everything.params}
    for field in fields(EngineConfig):
        if field.name in ("model", "seed"):
            continue
        param = names[field.name]
        assert isinstance(param, click.Option)
        assert f"--{field.name.replace('_', '-')}" in param.opts
        assert param.help, field.name
    assert "seed" in names  # the request's
    assert "model" not in names


def test_each_sampling_flag_is_a_field_with_a_help():
    known = {field.name for field in fields(SamplingParams)}
    names = {param.name: param for param in everything.params}
    for name in SAMPLING_FLAGS:
        assert name in known
        option = names[name]
        assert isinstance(option, click.Option)
        assert option.help


def test_values_reach_the_dataclasses_with_their_types():
    engine, sampling = given(
        *("--dtype", "float32", "--max-model-len", "64", "--block-size", "8", "--no-enable-prefix-caching"),
        *("--kv-cache-memory-bytes", "1048576", "--scheduling-policy", "priority", "--num-threads", "1"),
        *("--temperature", "0", "--top-k", "5", "--stop", "a", "--stop", "b", "--ignore-eos", "--seed", "3"),
    )
    config = EngineConfig.from_kwargs(**engine)
    assert (config.dtype, config.max_model_len, config.block_size) == ("float32", 64, 8)
    assert (config.enable_prefix_caching, config.scheduling_policy, config.num_threads) == (False, "priority", 1)
    params = SamplingParams(**sampling)
    assert (params.temperature, params.top_k, params.stop) == (0.0, 5, ("a", "b"))
    assert (params.ignore_eos, params.seed) == (True, 3)


def test_a_stop_string_may_be_a_line_break():
    _, sampling = given("--stop", "\\n", "--stop", "a\\tb", "--stop", "\\\\nabla", "--stop", "\\d", "--stop", "\n\n")
    assert sampling["stop"] == ["\n", "a\tb", "\\nabla", "\\d", "\n\n"]


def test_names_of_passes_come_with_commas_or_one_by_one():
    engine, _ = given("--without", "fuse_head, fuse_norm", "--without", "merge_qkv", "--profile", "latency")
    config = EngineConfig.from_kwargs(**engine)
    assert config.without == ("fuse_head", "fuse_norm", "merge_qkv")
    assert config.step_limits.max_num_batched_tokens == 512
    assert given() == ({}, {})


def test_false_and_zero_count_as_set():
    engine, sampling = given("--no-enable-prefix-caching", "--logprobs", "0", "--seed", "0")
    assert engine == {"enable_prefix_caching": False}
    assert sampling == {"logprobs": 0, "seed": 0}


def test_the_older_name_of_memory_utilization():
    engine, _ = given("--gpu-memory-utilization", "0.5")
    assert engine == {"memory_utilization": 0.5}


@pytest.mark.parametrize(
    "args", [("--max-num-seqs", "many"), ("--profile", "calm"), ("--scheduling-policy", "random"), ("--best-of", "2")]
)
def test_wrong_types_and_unknown_flags_are_usage_errors(args):
    result = CliRunner().invoke(everything, args)
    assert result.exit_code == 2


def test_help_shows_defaults_of_the_engine_and_none_that_the_model_decides():
    text = CliRunner().invoke(everything, ["--help"], terminal_width=200).stdout
    assert "[default: 16]" in text
    assert "by default the profile's" in text
    temperature = next(line for line in text.splitlines() if "--temperature" in line)
    assert "default" not in temperature
    assert "by default a lot" in text
