"""Engine directories for a GPU: the tokens of the checkpoint, the same bytes from the same inputs, and only there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from albireo import LLM, BuildConfig, SamplingParams, build
from albireo.api import load
from albireo.artifact.reader import open_engine
from albireo.backends.backend import FOUR_BY_SIXTEEN
from albireo.backends.cuda import catalog, device
from albireo.compiler import pipeline
from albireo.compiler.passes import canonicalize, plain_scales
from albireo.errors import ConfigError, EngineFileError, TargetMismatch, VersionMismatch
from albireo.models import load_architecture
from artifact.engines import seal
from backends.cuda.test_end_to_end import StandIn, llm, tokens
from tiny_models import make_checkpoint
from variants import tiny_of

PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 11, 12]]
PARAMS = [SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)] * 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), load_architecture("qwen3").tiny, seed=6, dtype="bfloat16")


@pytest.mark.parametrize("quantization", [None, "int8", "int4-g32"])
def test_a_directory_gives_the_tokens_of_its_checkpoint(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str | None
) -> None:
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    build(checkpoint, tmp_path / "engine", BuildConfig(target="cuda:90", quantization=quantization))
    from_directory = tokens(llm(tmp_path / "engine"), PROMPTS, PARAMS)
    assert from_directory == tokens(llm(checkpoint, quantization=quantization, device="cuda"), PROMPTS, PARAMS)


def test_two_builds_are_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(checkpoint, tmp_path / name, BuildConfig(target="cuda"))
    files = [sorted(p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*")) for name in ("one", "two")]
    assert files[0] == files[1]
    for file in files[0]:
        one, two = tmp_path / "one" / file, tmp_path / "two" / file
        assert one.is_dir() or one.read_bytes() == two.read_bytes(), file


def test_a_directory_runs_where_it_was_built_for(checkpoint: Path, tmp_path: Path) -> None:
    build(checkpoint, tmp_path / "gpu", BuildConfig(target="cuda:90"))
    build(checkpoint, tmp_path / "cpu")
    with pytest.raises(TargetMismatch, match="is built for device=cuda, cpu is asked for"):
        llm(tmp_path / "gpu", device="cpu")
    with pytest.raises(TargetMismatch, match="is built for device=cpu, cuda is asked for"):
        llm(tmp_path / "cpu", device="cuda")


def test_without_a_gpu_a_directory_for_one_says_how_its_model_runs(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with --device cpu, which the directory refuses."""
    build(checkpoint, tmp_path / "gpu", BuildConfig(target="cuda:90"))
    monkeypatch.setattr(device, "driver_version", lambda: None)
    with pytest.raises(ConfigError) as caught:
        LLM(str(tmp_path / "gpu"))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'gpu'}: is built for device=cuda, and there is no NVIDIA driver")
    assert "install the driver; or run its model with --device cpu" in said and "albireo build MODEL -o" in said


def make_older(directory: Path, minor: int) -> None:
    """As that format had it: without the options that came later."""
    path = directory / "manifest.json"
    data = json.loads(path.read_text())
    data["format"]["minor"] = minor
    for name in ("hf_overrides", "mm_processor_kwargs") if minor < 25 else ():
        del data["options"][name]
    path.write_text(json.dumps(data))


def test_codes_in_the_order_of_before_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    """They would be as many bytes, and other numbers. What lies as before is read as before."""
    for name, quantization in (("codes", "int4-g32"), ("numbers", None)):
        build(checkpoint, tmp_path / name, BuildConfig(target="cuda", quantization=quantization))
        make_older(tmp_path / name, 3)
    with pytest.raises(VersionMismatch, match=r"row\.int4\.g32 in format 2\.3; .*albireo build MODEL .* --target cuda"):
        open_engine(tmp_path / "codes")
    assert open_engine(tmp_path / "numbers").manifest.minor == 3


def test_rows_of_before_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Of e4m3 with one scale a token, which no kernel reads any more."""
    directory = tmp_path / "engine"
    build(checkpoint, directory, BuildConfig(target="cuda:90", quantization="fp8"))
    program = (directory / "program.json").read_text().replace('"fp8.g128.token"', '"fp8.token"')
    (directory / "program.json").write_text(program)
    make_older(directory, 6)
    seal(directory, "program.json")
    with pytest.raises(VersionMismatch, match=r"format 2\.6 has rows of fp8\.token.*albireo build MODEL"):
        open_engine(directory)


def test_matrices_apart_are_refused_with_the_command_that_mends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small linears of one input are one matrix since 2.29; a directory of before has each by itself."""
    model = make_checkpoint(tmp_path, load_architecture("deepseek_v3").tiny, seed=6, dtype="bfloat16")
    with monkeypatch.context() as before:
        before.setattr(catalog, "SMALL_CALLS", frozenset())
        build(model, tmp_path / "engine", BuildConfig(target="cuda:90"))
    make_older(tmp_path / "engine", 28)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    with pytest.raises(TargetMismatch, match=r"q_b_proj\.plain\+rope\.weight is not stored.*format 2\.28") as refused:
        llm(tmp_path / "engine")
    assert str(refused.value).endswith(f"albireo build MODEL -o {tmp_path / 'engine'} --force --target cuda")


@pytest.mark.parametrize("quantization", [None, "int8", "int4-g32"])
def test_adapters_find_shared_experts_apart_that_lie_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str | None
) -> None:
    """As from the checkpoint: tokens of a model that adapters may change, and what each matrix is."""
    model = make_checkpoint(tmp_path, tiny_of("qwen2_moe, as wide"), seed=6, dtype="bfloat16")
    build(model, tmp_path / "engine", BuildConfig(target="cuda:90", quantization=quantization))
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    engine = llm(tmp_path / "engine", enable_lora=True)
    other = llm(model, enable_lora=True, quantization=quantization, device="cuda")
    read, placed = (each.loaded.model._matrices for each in (engine, other))
    assert read.keys() == placed.keys() and any("shared_expert." in name for name in read)
    for name, matrix in read.items():
        for role in ("codes", "scale", "zero", "gamma", "offset"):
            ours, theirs = getattr(matrix, role), getattr(placed[name], role)
            assert (ours is None) == (theirs is None), (name, role)
            assert ours is None or torch.equal(ours, theirs), (name, role)
    assert tokens(engine, PROMPTS, PARAMS) == tokens(other, PROMPTS, PARAMS)
    with pytest.raises(TargetMismatch, match="without=merge_gate_up is asked for"):
        llm(tmp_path / "engine", without=("merge_gate_up",))


def test_nests_as_plain_groups_are_refused_with_the_command_that_mends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K types are nests since 2.30; a directory of before has a float32 for each of their groups."""
    pytest.importorskip("gguf")
    from models.gguf.writer import LLAMA, words, write_gguf

    write_gguf(tmp_path / "m.gguf", LLAMA, "Q4_K", tokenizer=words)
    with monkeypatch.context() as before:
        plain = (FOUR_BY_SIXTEEN, canonicalize.run, plain_scales.run)
        before.setattr(pipeline, "ABLE_PASSES", (plain, *pipeline.ABLE_PASSES))
        build(tmp_path / "m.gguf", tmp_path / "engine", BuildConfig(target="cuda:90"))
    make_older(tmp_path / "engine", 29)
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    with pytest.raises(TargetMismatch, match=r"as row\.int4\.g32\.affine, wanted row\.q4_k.*format 2\.29") as refused:
        llm(tmp_path / "engine")
    assert str(refused.value).endswith(f"albireo build MODEL -o {tmp_path / 'engine'} --force --target cuda")


def test_weights_cut_short_are_refused(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(checkpoint, tmp_path / "engine", BuildConfig(target="cuda"))
    monkeypatch.setattr(load, "open_device", lambda config, levels=None: StandIn())
    weights = tmp_path / "engine" / "weights.0.bin"
    weights.write_bytes(weights.read_bytes()[:-5000])
    with pytest.raises(EngineFileError, match="truncated"):
        llm(tmp_path / "engine")


@pytest.mark.parametrize("target", ["cuda:75", "cuda90", "cuda:"])
def test_other_targets_are_refused(checkpoint: Path, tmp_path: Path, target: str) -> None:
    with pytest.raises(ConfigError, match="target="):
        build(checkpoint, tmp_path / "engine", BuildConfig(target=target))
    assert not (tmp_path / "engine").exists()
