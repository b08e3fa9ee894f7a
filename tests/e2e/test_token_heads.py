"""What bge-m3 makes of each token beside an embedding of the text: weights, and vectors of late interaction. Against
transformers' hidden states, and linears as its authors' code has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import albireo
from albireo import PoolingParams
from albireo.errors import InvalidParams, ModelError, UnsupportedFeature
from e2e.test_encoders import embedded, farthest, opened, pooled, prompts, saved
from e2e.test_token_outputs import encoded
from tiny_encoders import Vectors, hidden_states

SIZES = {"sparse_linear": 1, "colbert_linear": 20}


def with_heads(folder: Path, width: int = 48) -> dict[str, dict[str, np.ndarray]]:
    saved(folder, "xlm_roberta")
    rng, made = np.random.default_rng(8), {}
    for name, size in SIZES.items():
        shapes = {"weight": (size, width), "bias": (size,)}
        made[name] = {kind: (0.2 * rng.standard_normal(shape)).astype(np.float32) for kind, shape in shapes.items()}
        save_file(made[name], folder / f"{name}.safetensors")
    return made


def behind(made: dict[str, np.ndarray], states: Vectors) -> Vectors:
    weight, bias = (made[kind].astype(np.float64) for kind in ("weight", "bias"))
    return [rows @ weight.T + bias for rows in states]


def of_length_1(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def test_weights_and_vectors_of_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    made = with_heads(folder)
    states = hidden_states(folder, prompts(), "float64")
    sparse, vectors = (behind(made[name], states) for name in SIZES)
    llm = opened(folder)
    weights = encoded(llm, prompts(), "token_classify")
    assert max(np.abs(a - np.maximum(b, 0)).max() for a, b in zip(weights, sparse, strict=True)) < 1e-5
    raw = encoded(llm, prompts(), "token_classify", use_activation=False)
    assert max(np.abs(a - b).max() for a, b in zip(raw, sparse, strict=True)) < 1e-5
    assert min(each.min() for each in raw) < 0 == min(each.min() for each in weights)
    for params in ({"task": "token_embed"}, {"pooling_type": "all"}):
        found = encoded(llm, prompts(), **params)
        assert max(np.abs(a - of_length_1(b)).max() for a, b in zip(found, vectors, strict=True)) < 1e-5
    assert farthest(embedded(llm, None, prompts()), [of_length_1(each) for each in pooled(states, "cls")]) < 1e-5
    albireo.build(folder, tmp_path / "built")
    built = opened(tmp_path / "built")
    for task, wanted in (("token_classify", weights), ("token_embed", found)):
        assert all(np.array_equal(a, b) for a, b in zip(encoded(built, prompts(), task), wanted, strict=True))


def test_pickles_are_not_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "xlm_roberta")
    for name in SIZES:
        (folder / f"{name}.pt").write_bytes(b"not looked into")
    albireo.build(folder, tmp_path / "built")
    for place in (folder, tmp_path / "built"):
        llm = opened(place)
        assert len(embedded(llm, None, prompts()[:1])[0]) == 48
        for task, name in (("token_classify", "sparse_linear"), ("token_embed", "colbert_linear")):
            words = rf"{task} of this model: .* in {name}\.pt, a pickle, which is not read; .* {name}\.safetensors with"
            with pytest.raises(UnsupportedFeature, match=words):
                encoded(llm, prompts()[:1], task)
        with pytest.raises(UnsupportedFeature, match=r"colbert_linear\.pt"):
            llm.encode({"prompt_token_ids": [5]}, PoolingParams(pooling_type="all"), use_tqdm=False)


def test_what_is_asked_otherwise(tmp_path: Path) -> None:
    with_heads(tmp_path)
    llm, one = opened(tmp_path), {"prompt_token_ids": [5, 6]}
    asked: Any = [
        (lambda: llm.encode(one, PoolingParams(task="token_classify", dimensions=1)), "each token has one weight"),
        (lambda: llm.encode(one, PoolingParams(task="embed"), pooling_task="token_embed"), "say one of both"),
        (lambda: llm.embed(one, PoolingParams(task="token_embed")), "task=token_embed: this is embed"),
        (lambda: llm.encode(one, PoolingParams(task="token_embed", dimensions=21)), "21 is more than this model's 20"),
        (lambda: PoolingParams(task="plugin"), "task='plugin' is unknown"),  # type: ignore[arg-type]
    ]
    for call, words in asked:
        with pytest.raises(InvalidParams, match=words):
            call()


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("sparse_linear", (2, 48), r"weight is \[2, 48\]; wanted \[1, width\]"),
        ("colbert_linear", (20, 40), "colbert_linear takes 40 values, and 48 come"),
    ],
)
def test_heads_of_other_shapes(name: str, shape: tuple[int, int], words: str, tmp_path: Path) -> None:
    saved(tmp_path, "xlm_roberta")
    save_file({"weight": np.zeros(shape, np.float32)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelError, match=words):
        opened(tmp_path)
