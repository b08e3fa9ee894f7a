"""Weights in few bits, end to end: the promises that hold for numbers hold for them, and what is computed is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from albireo.api.build import build
from albireo.api.llm import LLM
from albireo.api.sources.checkpoint_source import CheckpointSource
from albireo.backends.cpu.machine import isa_levels
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.config import BuildConfig, EngineConfig
from albireo.errors import ConfigError, TargetMismatch
from albireo.models import open_checkpoint
from albireo.params import SamplingParams
from albireo.quantization.schemes import SCHEMES, Precision
from albireo.verify.run import verify
from e2e.serving import Ask, Server, assert_same_answers
from e2e.test_invariance import ALL_AT_ONCE, CONFIGS, NO_CACHE, everything, requests
from step_batches import Work, make_step
from tiny_models import make_checkpoint

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, logprobs=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied, with an FFN that fills no panel."""
    directory = tmp_path_factory.mktemp("models") / "wide"
    return make_checkpoint(directory, CONFIGS["llama wide"], seed=5, dtype="bfloat16")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("level", [level for level in isa_levels() if level != "scalar"])
def test_served_as_if_alone(model: Path, scheme: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALBIREO_ISA_MAX", level)
    wanted = Server.load(model, **NO_CACHE, quantization=scheme).alone(requests())
    server = Server.load(model, **ALL_AT_ONCE, quantization=scheme, num_threads=2)
    found = {call.kernel for call in server.loaded.program.calls if call.family == "linear"}
    assert all(".int" in kernel or ".fp" in kernel for kernel in found), found
    got, stats = server.serve(requests())
    assert everything(stats, got)
    assert_same_answers(got, wanted)


@pytest.mark.parametrize("config", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("scheme", ["int8", "int4-g32"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_the_references(tmp_path: Path, config: str, scheme: str, dtype: str) -> None:
    """Of single steps they may be a code apart somewhere; over all layers the differences stay small."""
    directory = make_checkpoint(tmp_path / "m", CONFIGS[config], seed=6, dtype=dtype)
    server = Server.load(directory, **NO_CACHE, quantization=scheme, quantization_head="bf16")
    prompt = tuple(np.random.default_rng(1).integers(3, 90, 20).tolist())
    (answer,) = server.alone([Ask(prompt, GREEDY)])
    graph = CheckpointSource(directory, "auto", precision=Precision(scheme, "bf16")).graph(64)
    with open_checkpoint(directory, graph) as checkpoint:
        weights = {name: checkpoint.tensor(name).to_float32() for name in checkpoint.names}
    step = make_step([Work(prompt, 0, [1, 2])], 16, logits="last")
    wanted = interpret(graph, step, weights, ReferenceKV(8, 16, dtype)).outputs["logits"][0]
    found = answer.rows[len(prompt) - 1]
    assert np.linalg.norm(found - wanted) <= 0.05 * np.linalg.norm(wanted)


def test_a_directory_runs_as_the_checkpoint_does_and_is_verified(model: Path, tmp_path: Path) -> None:
    result = build(model, tmp_path / "engine", BuildConfig(quantization="int8", quantization_head="int4-g32"))
    options = {"skip_tokenizer_init": True, "max_model_len": 128}
    loaded = LLM(str(model), quantization="int8", quantization_head="int4-g32", **options)
    stored = LLM(str(result.directory), **options)
    prompt = {"prompt_token_ids": [5, 6, 7, 8]}
    outputs = [llm.generate(prompt, GREEDY)[0].outputs[0].token_ids for llm in (loaded, stored)]
    assert outputs[0] == outputs[1]
    seen = {stage.name: stage.verdict for stage in verify(result.directory, str(model), num_tokens=96).stages}
    assert seen["graph"] == seen["weights"] == seen["ops"] == seen["layers"] == seen["tokens"] == "passed", seen


def test_what_cannot_be_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="quantization='int3' is not known; choose int8"):
        LLM(str(model), quantization="int3", skip_tokenizer_init=True)
    with pytest.raises(ConfigError, match=r"products of int4\.g64, and the .* of a rank are no whole groups"):
        LLM(str(model), quantization="int4", tensor_parallel_size=2, skip_tokenizer_init=True)
    built = build(model, tmp_path / "engine", BuildConfig()).directory
    with pytest.raises(TargetMismatch, match="quantization is decided when a directory is built"):
        LLM(str(built), quantization="int8", skip_tokenizer_init=True)


def test_bytes_are_fewer(model: Path) -> None:
    sizes = [
        Server.load(model, **NO_CACHE, quantization=scheme).loaded.program.weight_bytes
        for scheme in (None, "int8", "int4-g128")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert EngineConfig(quantization=None).quantization is None
