"""The short run of a directory just built."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.backends.cpu.machine import isa_levels
from albireo.bench import built
from albireo.bench.built import INPUT_LEN, OUTPUT_LEN, measure_built, speed_rows
from albireo.errors import OutOfMemory
from artifact.engines import make_engine


def test_a_directory_is_run_with_the_kernels_it_was_built_for(tmp_path: Path) -> None:
    _, engine = make_engine(tmp_path, "llama", "bfloat16", target="scalar")
    found = measure_built(engine, ("scalar",))
    # The tiny model's context is as long as the prompt alone: the prompt gives way.
    assert found.run.num_prompt_tokens == 128 - OUTPUT_LEN < INPUT_LEN
    assert found.run.num_output_tokens == OUTPUT_LEN
    assert found.predicted.decode_step_s is not None
    assert 0 < found.run.first_token_s[0] < found.run.elapsed_s < found.took_s
    assert found.decode_tokens_per_s > 0
    names = [name for name, _ in speed_rows(engine, ("scalar",))]
    assert names == ["predicted", "measured"]


def test_what_cannot_be_measured_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OutOfMemory("there is no room")

    monkeypatch.setattr(built, "measure_built", full)
    assert list(speed_rows(tmp_path, isa_levels())) == [("speed", "not measured: there is no room")]
