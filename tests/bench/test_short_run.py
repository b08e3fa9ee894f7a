"""The short run of a model that is put beside what a command made."""

from __future__ import annotations

from pathlib import Path

from albireo.bench.short_run import measure_short
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
