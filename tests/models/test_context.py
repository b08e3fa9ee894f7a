"""How long sequences may be where a rotation was stretched: as vLLM derives it, but that what linear and dynamic
scaling give must be asked for.
"""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import ConfigError, UnsupportedModel
from albireo.models.settings.context import check_context, default_context, longest_context
from tiny_models import parse_tiny

#: As Qwen's cards say it for long texts, beside max_position_embeddings as it was.
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}
_CHUNKS = {"chunk_size": 100, "local_size": 20, "original_max_position_embeddings": 100}


@pytest.mark.parametrize(
    ("name", "changes", "wanted"),
    [
        ("qwen2", {}, (128, 128)),
        ("qwen2", {"rope_scaling": _YARN}, (400, 400)),
        # Yarn-Mistral-7b-128k
        ("mistral", {"rope_scaling": {**_YARN, "factor": 16.0, "finetuned": True}}, (1600, 1600)),
        # files whose number is that of what they were stretched to
        ("qwen2", {"rope_scaling": {**_YARN, "original_max_position_embeddings": 32}}, (128, 128)),
        # vicuna-7b-v1.5-16k, deepseek-coder-6.7b
        ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}, (128, 512)),
        ("internlm3", {"rope_scaling": {"rope_type": "dynamic", "factor": 6.0}}, (128, 768)),
        # Gemma 3, some of whose layers are stretched, and number is of both
        ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, (128, 128)),
        # Hunyuan, whose dynamic is another base
        ("hunyuan_v1_dense", {"rope_scaling": {"type": "dynamic", "alpha": 50.0, "factor": 4.0}}, (128, 128)),
        # Command R
        ("cohere", {"model_max_length": 1024}, (1024, 1024)),
        # Qwen2.5-1M: longer texts are seen by chunks
        ("qwen2", {"dual_chunk_attention_config": _CHUNKS, "rope_scaling": None}, (80, 80)),
        ("qwen3_moe", {"dual_chunk_attention_config": {**_CHUNKS, "chunk_size": 1000}}, (128, 128)),
    ],
)
def test_contexts(name: str, changes: dict[str, Any], wanted: tuple[int, int]) -> None:
    config = parse_tiny(name, **changes)
    assert (default_context(config), longest_context(config)) == wanted
    check_context(config, wanted[1])
    with pytest.raises(ConfigError, match=f"max_model_len={wanted[1] + 1} exceeds the model's max_position_embeddings"):
        check_context(config, wanted[1] + 1)


def test_what_a_context_is_stretched_to_is_said() -> None:
    config = parse_tiny("llama", rope_scaling={"type": "linear", "factor": 4.0})
    with pytest.raises(ConfigError, match="embeddings=128, which its rotation stretches to 512; lower it"):
        check_context(config, 513)


def test_chunks_are_not_stretched_too() -> None:
    """No text may be longer than what a chunk sees all of."""
    with pytest.raises(UnsupportedModel, match=r"dual_chunk_attention_config=.* a rotation of type 'yarn': null one"):
        parse_tiny("qwen2", dual_chunk_attention_config=_CHUNKS, rope_scaling=_YARN)
