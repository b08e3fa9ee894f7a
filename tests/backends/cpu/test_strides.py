"""Rows of activations with a gap between them: the same bits, wherever the gap is."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo import LLM, SamplingParams
from albireo.graph import program
from albireo.graph.program import row_stride
from albireo.models import load_architecture
from in_turn import in_turn
from representatives import REPRESENTATIVES
from tiny_models import make_checkpoint


@pytest.mark.parametrize(
    ("dtype", "cols", "stride"),
    [
        ("bfloat16", 2048, 2080),
        ("bfloat16", 8192, 8224),
        ("float32", 1024, 1040),
        ("bfloat16", 896, 896),
        ("float32", 1000, 1000),
    ],
)
def test_rows_a_multiple_of_4_kib_apart_get_a_cache_line_more(dtype: str, cols: int, stride: int) -> None:
    assert row_stride(dtype, cols) == stride


@in_turn(("model_type", REPRESENTATIVES), ("dtype", ["float32", "bfloat16", "float16"]))
def test_gaps_change_no_bit(model_type: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_checkpoint(tmp_path, load_architecture(model_type).tiny, seed=3, dtype=dtype)
    prompts = [{"prompt_token_ids": [(7 * i + j) % 50 for j in range(5 + 9 * i)]} for i in range(4)]
    params = SamplingParams(temperature=0.7, seed=1, max_tokens=6, logprobs=3, prompt_logprobs=1)

    def answers(alias_bytes: int) -> list[object]:
        monkeypatch.setattr(program, "CACHE_ALIAS_BYTES", alias_bytes)
        with LLM(
            str(tmp_path), skip_tokenizer_init=True, max_num_batched_tokens=16, kv_cache_memory_bytes=1 << 24
        ) as llm:
            strides = [b.stride > b.cols for b in llm.loaded.program.buffers.values()]
            assert any(strides) == (alias_bytes == 16)
            outputs = llm.generate(prompts, params, use_tqdm=False)
        return [(o.outputs[0].token_ids, o.outputs[0].logprobs, o.prompt_logprobs) for o in outputs]

    assert answers(16) == answers(1 << 40)
