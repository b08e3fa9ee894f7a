"""albireo quantize: files, what is said, and errors as lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from albireo import build
from albireo.cli import quantize as command
from albireo.errors import OutOfMemory
from albireo.models import load_architecture
from tiny_models import make_checkpoint, shared_data

MODELS = ("original", "quantized")
Albireo = Callable[..., Result]
FEW = ("--calibration-tokens", "300", "--evaluate-tokens", "200", "--no-speed")


def checkpoint(path: Path) -> Path:
    config = {**load_architecture("llama").tiny, "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96}
    return make_checkpoint(path, config, dtype="bfloat16", tokenizer=True)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_model_is_quantized_and_reported(tmp_path: Path, albireo: Albireo) -> None:
    source = checkpoint(tmp_path / "source")
    result = albireo("quantize", source, "-o", tmp_path / "out", "--scheme", "int4-g32", "--head", "int8", *FEW)
    assert result.exit_code == 0, result.output
    assert "int4.g32" in result.output and "perplexity" in result.output and "quantization.html" in result.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "quantization.html",
        "quantization.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    report = json.loads((tmp_path / "out" / "quantization.json").read_text())
    assert report["recipe"]["method"] == "gptq" and report["recipe"]["calibration"] == "calibration.txt, 300 tokens"
    heads = [linear for linear in report["linears"] if linear["module"] == "lm_head"]
    # o reads 72 channels, which no group divides
    assert [x["encoding"] for x in heads] == ["int8"]
    assert {x["encoding"] for x in report["linears"] if x["module"].endswith("o_proj")} == {"int8"}


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path, albireo: Albireo) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "manifest.json").write_text("{}")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "nothing").mkdir()
    for name, words in (("engine", "engine directory"), ("model.gguf", "a GGUF file"), ("nothing", "no config.json")):
        result = albireo("quantize", tmp_path / name, "-o", tmp_path / "out", "--scheme", "int8")
        assert result.exit_code == 1 and words in result.stderr, result.stderr


def test_texts_are_chosen(tmp_path: Path, albireo: Albireo) -> None:
    source, text = checkpoint(tmp_path / "source"), tmp_path / "mine.txt"
    text.write_text("Once upon a time there was a little fox. " * 30)
    result = albireo(
        "quantize", source, "-o", tmp_path / "out", "--scheme", "int8", "--calibration", text, "--evaluate", text, *FEW
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "quantization.json").read_text())
    assert report["recipe"]["calibration"].startswith("mine.txt") and report["recipe"]["method"] == "smoothquant"
    assert [found["text"] for found in report["qualities"]] == ["mine.txt"]


def test_speed_is_measured_beside_quality(tmp_path: Path, albireo: Albireo) -> None:
    source = checkpoint(tmp_path / "source")
    few = [option for option in FEW if option != "--no-speed"]
    result = albireo("quantize", source, "-o", tmp_path / "out", "--scheme", "int8", *few)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "quantization.json").read_text())["speeds"]
    # the context is 128 tokens, the prompt gives way
    assert (found["num_prompt_tokens"], found["num_output_tokens"]) == (64, 64)
    assert found["quantized"]["weight_bytes"] < found["original"]["weight_bytes"]
    speeds = [
        found[model][f"{what}_tokens_per_s"] for what in ("decode", "prefill") for model in found if model in MODELS
    ]
    assert len(speeds) == 4 and min(speeds) > 0
    assert f"{found['quantized']['decode_tokens_per_s']:,.1f} tok/s" in result.output
    assert "weights in memory" in (tmp_path / "out" / "quantization.html").read_text()


def test_speed_that_cannot_be_measured_is_no_failure(
    tmp_path: Path, albireo: Albireo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OutOfMemory("there is no room <here>")

    monkeypatch.setattr(command, "measure_short", full)
    source = checkpoint(tmp_path / "source")
    few = [option for option in FEW if option != "--no-speed"]
    result = albireo("quantize", source, "-o", tmp_path / "out", "--scheme", "int8", *few)
    assert result.exit_code == 0 and "not measured: there is no room <here>" in result.output
    assert "no room &lt;here&gt;" in (tmp_path / "out" / "quantization.html").read_text()


def test_an_engine_directory_is_that_of_the_checkpoint(tmp_path: Path, albireo: Albireo) -> None:
    """Byte for byte, beside the report; nothing else is left."""
    source = checkpoint(tmp_path / "source")
    options = ("--scheme", "int4-g32", "--head", "int8", *FEW)
    assert albireo("quantize", source, "-o", tmp_path / "out" / "plain", *options).exit_code == 0
    built = build(tmp_path / "out" / "plain", tmp_path / "out" / "built").directory
    result = albireo("quantize", source, "-o", tmp_path / "out" / "engine", *options, "--format", "engine")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"plain", "built", "engine"}
    reports = {"quantization.json", "quantization.html"}
    assert files(tmp_path / "out" / "engine") - reports == files(built)
    assert reports <= files(tmp_path / "out" / "engine")
    for name in ("weights.0.bin", "manifest.json"):
        assert (tmp_path / "out" / "engine" / name).read_bytes() == (built / name).read_bytes()
    assert albireo("generate", tmp_path / "out" / "engine", "Once", "--max-tokens", "2").exit_code == 0
    again = albireo("quantize", source, "-o", built, *options, "--format", "engine")
    assert again.exit_code == 1 and "is there already" in again.stderr


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, albireo: Albireo, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OutOfMemory("there is no room")

    monkeypatch.setattr(command, "build", full)
    source, out = checkpoint(tmp_path / "source"), tmp_path / "out"
    out.mkdir()
    result = albireo("quantize", source, "-o", out / "engine", "--scheme", "int8", *FEW, "--format", "engine")
    assert result.exit_code == 1 and "there is no room" in result.stderr
    assert list(out.iterdir()) == []


def test_mistakes_are_lines(tmp_path: Path, albireo: Albireo) -> None:
    source = checkpoint(tmp_path / "source")
    for options, said in (
        (("--scheme", "mixed"), "target_bits goes with scheme mixed"),
        (("--scheme", "int8", "--calibration", "nowhere.txt"), "nowhere.txt: cannot be read as text"),
        (("--scheme", "int8", "--keep", "nothing"), "keep 'nothing' fits no linear"),
        (("--scheme", "mixed", "--target-bits", "4.01"), "target_bits=4.01 is less than"),
    ):
        result = albireo("quantize", source, "-o", tmp_path / "out", *options, *FEW)
        assert result.exit_code == 1 and f"error: {said}" in result.stderr.replace(str(tmp_path) + "/", "")
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path, albireo: Albireo) -> None:
    source = make_checkpoint(tmp_path / "source", load_architecture("llama").tiny)
    result = albireo("quantize", source, "-o", tmp_path / "out", "--scheme", "int8")
    assert result.exit_code == 1 and "has no tokenizer, so no text" in result.stderr


def test_int4_of_a_trained_model_keeps_its_sense(tmp_path: Path, albireo: Albireo) -> None:
    source = shared_data("models", "stories260k")
    result = albireo("quantize", source, "-o", tmp_path / "out", "--scheme", "int8", "--calibration-tokens", "2048")
    assert result.exit_code == 0, result.output
    (found,) = json.loads((tmp_path / "out" / "quantization.json").read_text())["qualities"]
    assert abs(found["perplexity_change"]) < 0.02 and found["quality"]["top1_agreement"] > 0.95


def test_layers_that_keep_a_state_are_not_calibrated(tmp_path: Path, albireo: Albireo) -> None:
    config = {**load_architecture("qwen3_5_text").tiny, "vocab_size": 512}
    source = make_checkpoint(tmp_path / "source", config, tokenizer=True)
    result = albireo("quantize", source, "-o", tmp_path / "out", "--scheme", "int8", *FEW)
    assert result.exit_code == 1
    assert "qwen3_5_text has layers that keep a state, which are not calibrated yet" in result.output
    assert not (tmp_path / "out").exists()
