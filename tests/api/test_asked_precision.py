"""vLLM's names of how files are quantized, as a caller's quantization."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.api.build import build
from albireo.api.sources.source import open_source
from albireo.artifact.reader import open_engine
from albireo.config import BuildConfig, EngineConfig
from albireo.errors import ConfigError
from models.gguf.writer import LLAMA, write_gguf
from quantization.formats.writers import TINY, WRITERS, Writer, write_model
from tiny_models import make_checkpoint


def writer(method: str) -> Writer:
    return next(each for each in WRITERS.values() if each.config["quant_method"] == method)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("awq", "awq"),
        ("awq", "awq_marlin"),
        ("gptq", "gptq_marlin"),
        ("compressed-tensors", "compressed-tensors"),
        ("fp8", "fp8"),
        ("modelopt", "modelopt_fp4"),
        ("bitsandbytes", "bitsandbytes"),
        ("mxfp4", "mxfp4"),
    ],
)
def test_the_name_of_the_files_own_format_changes_nothing(method: str, said: str, tmp_path: Path) -> None:
    write_model(tmp_path, writer(method))
    found, plain = (open_source(tmp_path, EngineConfig(quantization=name)) for name in (said, None))
    assert found.precision == plain.precision and found.precision.scheme is None
    other = "gptq" if said.startswith("awq") else "awq"
    with pytest.raises(ConfigError, match=f"quantization={other} says how files are quantized, and .* says {method}"):
        open_source(tmp_path, EngineConfig(quantization=other))


def test_of_a_file_in_gguf(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, LLAMA, seed=4)
    assert open_source(path, EngineConfig(quantization="gguf")).precision.scheme is None
    with pytest.raises(ConfigError, match="says gguf; leave it out"):
        open_source(path, EngineConfig(quantization="awq"))


def test_files_that_are_numbers_have_no_such_name(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, TINY)
    assert open_source(tmp_path, EngineConfig(quantization="fp8")).precision.scheme == "fp8"
    with pytest.raises(ConfigError, match="is not; leave it out, or choose int8, fp8"):
        open_source(tmp_path, EngineConfig(quantization="awq"))
    with pytest.raises(ConfigError, match="quantization='int3' is not known"):
        open_source(tmp_path, EngineConfig(quantization="int3"))


def test_a_build_has_it_as_if_it_were_not_said(tmp_path: Path) -> None:
    write_model(tmp_path / "model", writer("awq"))
    build(tmp_path / "model", tmp_path / "engine", BuildConfig(quantization="awq", target="scalar"))
    assert open_engine(tmp_path / "engine").manifest.options.quantization is None
