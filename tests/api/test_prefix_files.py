"""Prefixes that outlive the process: the same tokens and log-probabilities from files, of this model alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from albireo import LLM, SamplingParams
from albireo.errors import ConfigError
from compiler.ranks import wide_hybrid
from tiny_models import make_checkpoint
from variants import tiny_of

#: Such as two ranks can share.
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
PROMPT = [7 + n % 50 for n in range(90)]
PARAMS = SamplingParams(max_tokens=20, temperature=0, logprobs=3, ignore_eos=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model"), {**tiny_of("llama"), **SIZES})


def answered(model: Path, folder: Path | None, prompt: list[int] = PROMPT, **kwargs: Any) -> tuple[int, Any]:
    """Tokens that were not computed, and all that was said, by an LLM that ends then."""
    kwargs = {"skip_tokenizer_init": True, "max_model_len": 256, "num_threads": 1, **kwargs}
    with LLM(str(model), prefix_cache_dir=folder, **kwargs) as llm:
        output = llm.generate({"prompt_token_ids": prompt}, PARAMS)[0]
    (said,) = output.outputs
    return output.num_cached_tokens, (said.token_ids, said.cumulative_logprob, said.logprobs)


@pytest.mark.parametrize(
    "kwargs", [{}, {"kv_cache_dtype": "int8"}, {"dtype": "bfloat16", "tensor_parallel_size": 2, "num_threads": 2}]
)
def test_what_is_read_is_what_would_be_computed(tmp_path: Path, checkpoint: Path, kwargs: dict[str, Any]) -> None:
    expected = answered(checkpoint, None, **kwargs)
    folder = tmp_path / "kept"
    assert answered(checkpoint, folder, **kwargs) == expected
    cached, said = answered(checkpoint, folder, **kwargs)
    assert (cached, said) == (80, expected[1])
    # the next turn goes on behind the answer
    turn = [*PROMPT, *said[0], 5]
    assert answered(checkpoint, folder, turn, **kwargs)[0] == 96
    assert answered(checkpoint, None, turn, **kwargs)[1] == answered(checkpoint, folder, turn, **kwargs)[1]


@pytest.mark.parametrize(("architecture", "num_groups"), [("gemma3_text", 3), ("mistral", 1)])
def test_windows_are_read_where_the_next_token_looks(tmp_path: Path, architecture: str, num_groups: int) -> None:
    model = make_checkpoint(tmp_path / "model", {**tiny_of(architecture), "max_position_embeddings": 256})
    expected = answered(model, None)
    assert answered(model, tmp_path / "kept") == expected
    assert answered(model, tmp_path / "kept") == (80, expected[1])
    files = list((tmp_path / "kept").rglob("*.block"))
    assert len({path.stem[64:] for path in files}) == num_groups


@pytest.mark.parametrize("architecture", ["lfm2", "mamba2", "nemotron_h", "qwen3_5_text"])
def test_states_are_read_behind_the_blocks(tmp_path: Path, architecture: str) -> None:
    model = make_checkpoint(tmp_path / "model", {**tiny_of(architecture), "max_position_embeddings": 256})
    folder = tmp_path / "kept"
    _, said = answered(model, folder)
    turn = [*PROMPT, *said[0], 5]
    assert answered(model, folder, turn) == (96, answered(model, None, turn)[1])


def test_states_of_several_ranks_are_read(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", wide_hybrid("falcon_h1", max_position_embeddings=256))
    folder, ranks = tmp_path / "kept", {"tensor_parallel_size": 4, "num_threads": 4}
    _, said = answered(model, folder, **ranks)
    turn = [*PROMPT, *said[0], 5]
    assert answered(model, folder, turn, **ranks) == (96, answered(model, None, turn, **ranks)[1])


def test_another_model_or_another_way_to_compute_it_finds_nothing(tmp_path: Path, checkpoint: Path) -> None:
    folder, other = tmp_path / "kept", tmp_path / "other"
    answered(checkpoint, folder)
    for kwargs in ({"dtype": "bfloat16"}, {"kv_cache_dtype": "int8"}, {"block_size": 32}, {"max_model_len": 200}):
        assert answered(checkpoint, folder, **kwargs)[0] == 0, kwargs
    assert answered(checkpoint, folder, max_num_seqs=3, num_threads=2)[0] == 80, "no bit depends on these"
    shutil.copytree(checkpoint, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: -tensor for name, tensor in weights.items()}, other / "model.safetensors")
    found = answered(other, folder)
    assert found == answered(other, None)


def test_what_cannot_be_kept_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    def refusal(model: Path, folder: Path, **kwargs: Any) -> str:
        with pytest.raises(ConfigError) as raised:
            answered(model, folder, **kwargs)
        return str(raised.value)

    assert "enable_prefix_caching is off" in refusal(checkpoint, tmp_path, enable_prefix_caching=False)
    (tmp_path / "file").write_text("")
    assert "cannot be made" in refusal(checkpoint, tmp_path / "file" / "kept")
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chmod(shared, 0o777)
    assert "others may write there" in refusal(checkpoint, shared)
    with pytest.raises(ConfigError, match="prefix_cache_dir_bytes=0"):
        LLM(str(checkpoint), prefix_cache_dir_bytes=0)
    assert np.isfinite(answered(checkpoint, tmp_path / "kept")[1][1])
