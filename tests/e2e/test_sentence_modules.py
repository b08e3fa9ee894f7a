"""Parts that newer files of sentence-transformers have: linears that are added to what comes, those of each token, and
how many values of an embedding there may be. Against transformers' hidden states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import albireo
from albireo.errors import InvalidParams, ModelError
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.models.settings.sentence_transformers import with_modules as read_modules
from e2e.test_encoders import embedded, farthest, opened, pooled, pooling, prompts, saved, with_modules
from e2e.test_token_outputs import encoded
from tiny_encoders import change_config, hidden_states

IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"
OF_TOKENS = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}


def dense(width: int, given: int = 48, activation: str = IDENTITY, **more: Any) -> dict[str, Any]:
    return {"in_features": given, "out_features": width, "bias": True, "activation_function": activation, **more}


def drawn(path: Path, width: int, given: int = 48, *more: str) -> dict[str, np.ndarray]:
    """Of a linear, and of others without a bias, saved."""
    rng = np.random.default_rng(width)
    names = {
        "linear.weight": (width, given),
        "linear.bias": (width,),
        **{f"{name}.weight": (width, given) for name in more},
    }
    found = {name: (0.2 * rng.standard_normal(shape)).astype(np.float32) for name, shape in names.items()}
    save_file(found, path / "model.safetensors")
    return {name: value.astype(np.float64) for name, value in found.items()}


def linear(of: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    return rows @ of["linear.weight"].T + of["linear.bias"]


def test_linears_that_are_added_to_what_comes(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", "bert")
    parts = ("Pooling", pooling(mean_tokens=True)), ("Dense", dense(48, activation=SIGMOID, use_residual=True))
    with_modules(folder, ("Transformer", None), *parts, ("Dense", dense(20, use_residual=True)))
    same, narrow = drawn(folder / "2_Dense", 48), drawn(folder / "3_Dense", 20, 48, "residual")
    wanted = []
    for mean in pooled(hidden_states(folder, prompts(), "float64"), "mean"):
        x = 1 / (1 + np.exp(-linear(same, mean))) + mean
        wanted.append(linear(narrow, x) + narrow["residual.weight"] @ x)
    ours = embedded(opened(folder), None, prompts())
    assert farthest(ours, wanted) < 1e-5
    albireo.build(folder, tmp_path / "built")
    assert embedded(opened(tmp_path / "built"), None, prompts()) == ours


@pytest.mark.parametrize("ends_in_mask", [True, False])
def test_vectors_of_tokens_by_modules(ends_in_mask: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    mask = [("MultiVectorMask", {"skiplist_words": ["!"], "skiplist_tasks": ["document"]})] * ends_in_mask
    with_modules(folder, ("Transformer", None), ("Dense", dense(16, **OF_TOKENS)), ("Normalize", OF_TOKENS), *mask)
    made = drawn(folder / "1_Dense", 16)
    rows = [linear(made, each) for each in hidden_states(folder, prompts(), "float64")]
    wanted = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows]
    ours = encoded(opened(folder), prompts())
    assert max(np.abs(a - b).max() for a, b in zip(ours, wanted, strict=True)) < 1e-5


def test_a_mean_of_linears(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    with_modules(
        folder, ("Transformer", None), ("Dense", dense(16, **OF_TOKENS)), ("Pooling", pooling(mean_tokens=True))
    )
    made = drawn(folder / "1_Dense", 16)
    wanted = pooled([linear(made, each) for each in hidden_states(folder, prompts(), "float64")], "mean")
    assert farthest(embedded(opened(folder), None, prompts()), wanted) < 1e-5


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (
            [("Dense", dense(16, activation=SIGMOID, **OF_TOKENS)), ("Pooling", pooling(mean_tokens=True))],
            "an activation",
        ),
        ([("Dense", dense(16, **OF_TOKENS)), ("Pooling", pooling(max_tokens=True))], "takes a mean, or one token"),
        (
            [("Dense", dense(16, module_input_name="token_embeddings", module_output_name="x"))],
            "module_output_name='x'",
        ),
        ([("MultiVectorMask", {"keep_only_token_ids": [3]})], "keep_only_token_ids"),
        ([("HierarchicalTokenPooling", {})], "a module of type .*TokenPooling"),
    ],
)
def test_modules_that_are_not_computed(modules: Any, words: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    with_modules(folder, ("Transformer", None), *modules)
    with pytest.raises(ModelError, match=words):
        opened(folder)


def test_a_residual_of_another_shape(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    with_modules(
        folder, ("Transformer", None), ("Pooling", pooling(cls_token=True)), ("Dense", dense(20, use_residual=True))
    )
    drawn(folder / "2_Dense", 20)
    with pytest.raises(ModelError, match=r"no tensor residual\.weight"):
        opened(folder)


def test_dimensions_that_files_list_are_those_there_are(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bert")
    change_config(folder, matryoshka_dimensions=[16, 8])
    llm = opened(folder)
    for size in (8, 16, 48):
        assert len(embedded(llm, None, prompts()[:1], dimensions=size)[0]) == size
    with pytest.raises(InvalidParams, match=r"dimensions=12: this model's files say that 8, 16 of its 48 values"):
        embedded(llm, None, prompts()[:1], dimensions=12)
    change_config(folder, matryoshka_dimensions=[0])
    with pytest.raises(ModelError, match=r"matryoshka_dimensions.* must be a list of numbers of values"):
        opened(folder)


@pytest.mark.parametrize("path", ["", "n" * 300, "2_Normalize"])
def test_scaling_needs_no_folder(path: str, tmp_path: Path) -> None:
    """It has no settings in most files, so that any path will do."""
    (tmp_path / "config.json").write_text("{}")
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"path": path, "type": "sentence_transformers.models.Normalize"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    rule = read_modules(PoolingRule(pooling_type="mean"), tmp_path)
    assert (rule.normalizes, rule.pooling_type) == (True, "mean")
