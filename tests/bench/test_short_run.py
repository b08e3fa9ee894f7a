"""The short run of a model that is put beside what a command made."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest

from albireo.bench import short_run
from albireo.bench.short_run import measure_short
from albireo.bench.timed import TimedEngine
from albireo.config import EngineConfig
from artifact.engines import make_engine


def test_a_directory_is_run_with_the_kernels_it_was_built_for(tmp_path: Path) -> None:
    _, engine = make_engine(tmp_path, "llama", "bfloat16", target="scalar")
    found = measure_short(engine, 128, 16, ("scalar",))
    # The tiny model's context is as long as the prompt alone: the prompt gives way.
    assert (found.run.num_prompt_tokens, found.run.num_output_tokens) == (112, 16)
    assert found.predicted.decode_step_s is not None
    first = found.run.first_token_s[0]
    assert 0 < first < found.run.elapsed_s < found.took_s
    assert found.prefill_tokens_per_s == 112 / first
    assert found.decode_tokens_per_s == 15 / (found.run.elapsed_s - first)
    assert found.weight_bytes > 0 and found.num_threads > 0


def test_the_model_is_out_of_memory_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models are measured one after the other; never are both there."""
    seen: list[weakref.ref[object]] = []

    class Noted(TimedEngine):
        def __init__(self, config: EngineConfig, **how: Any) -> None:
            super().__init__(config, **how)
            seen.append(weakref.ref(self.loaded.model))

    monkeypatch.setattr(short_run, "TimedEngine", Noted)
    checkpoint, _ = make_engine(tmp_path, "llama", "bfloat16")
    measure_short(checkpoint, 16, 4)
    assert [model() for model in seen] == [None]
