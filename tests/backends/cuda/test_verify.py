"""`albireo verify` of directories for a GPU, its kernels interpreted: each call against the reference, weights byte by
byte, tokens and quality. Short sequences: interpreting takes its time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from albireo.api import load
from albireo.verify import tokens
from albireo.verify.run import STAGES, verify
from artifact.engines import make_engine
from backends.cuda.test_end_to_end import StandIn
from verify.models import damage


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.thorough), "bfloat16"])
def test_what_is_right_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """In bfloat16 norms are in the linears."""
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    monkeypatch.setattr(tokens, "NUM_TOKENS", 2)
    checkpoint, engine = make_engine(tmp_path, target="cuda:90", dtype=dtype, kv_cache_dtype="int8", max_model_len=8)
    found = verify(engine, str(checkpoint), num_tokens=10)
    assert found.is_verified, found.finding
    assert {stage.name: stage.verdict for stage in found.stages} == dict.fromkeys(STAGES, "passed")
    families = {each["kernel"].partition(".")[0] for each in found.stages[STAGES.index("ops")].figures["families"]}
    assert ("linear_norm" in families) == (dtype == "bfloat16")
    assert "kernels for NVIDIA GPUs" in found.model["verified by"]
    assert found.stages[STAGES.index("tokens")].figures["same_kernels"]


@pytest.mark.parametrize("name", [pytest.param("qwen3", marks=pytest.mark.thorough), "mixtral"])
def test_e4m3_on_both_sides_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    monkeypatch.setattr(tokens, "NUM_TOKENS", 2)
    checkpoint, engine = make_engine(tmp_path, name, target="cuda:90", quantization="fp8", max_model_len=8)
    found = {stage.name: stage.verdict for stage in verify(engine, str(checkpoint), num_tokens=10).stages}
    del found["quality"]  # of random weights, which no rounding leaves as they are
    assert found == dict.fromkeys(found, "passed")
    kinds = {buffer["dtype"] for buffer in json.loads((engine / "program.json").read_text())["buffers"]}
    assert "fp8.g128.token" in kinds


def test_layers_of_experts_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With norms in them, and in what adds them up."""
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    monkeypatch.setattr(tokens, "NUM_TOKENS", 2)
    checkpoint, engine = make_engine(tmp_path, "mixtral", target="cuda:90", dtype="bfloat16", max_model_len=8)
    found = verify(engine, str(checkpoint), num_tokens=10)
    assert found.is_verified, found.finding
    families = {each["kernel"].partition(".")[0] for each in found.stages[STAGES.index("ops")].figures["families"]}
    assert {"route", "expert_linear", "combine_norm"} <= families


@pytest.mark.parametrize("quantization", [None, "int4-g32"])
def test_a_damaged_weight_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str | None) -> None:
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    checkpoint, engine = make_engine(tmp_path, target="cuda", quantization=quantization)
    damage(engine, "model.layers.1.self_attn.o_proj.weight")
    found = verify(engine, str(checkpoint), num_tokens=10)
    assert [stage.name for stage in found.stages] == ["graph", "weights"]
    assert "layers.1.attn.o" in found.finding
    assert (": row " in found.finding) if quantization is None else ("codes and scales" in found.finding)
