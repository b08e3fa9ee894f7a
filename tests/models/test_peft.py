"""Adapters as PEFT writes them: what is read, and what is refused, by name and with the numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel, WeightMismatch
from albireo.models import load_architecture
from albireo.models.checkpoint.peft import adapter_rank, read_adapter
from tiny_adapters import ALL_LINEAR, adapter_tensors, make_adapter
from tiny_models import weight_shapes, write_safetensors

TINY = {**load_architecture("qwen2").tiny}
SHAPES: dict[str, Any] = {
    name.removesuffix(".weight"): shape
    for name, shape in weight_shapes(TINY).items()
    if name.endswith("_proj.weight") and ".layers." in name
}
LAYER = "model.layers.1"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_matrices_are_those_of_the_file_times_the_scale(tmp_path: Path, dtype: str) -> None:
    make_adapter(tmp_path, TINY, seed=3, rank=4, dtype=dtype, lora_alpha=6)
    found = read_adapter(tmp_path, SHAPES, 4)
    assert found.modules == SHAPES.keys() and found.rank == adapter_rank(tmp_path) == 4
    tensors = adapter_tensors(TINY, 3, 4)
    for module in SHAPES:
        a, b = found.matrices(module)
        wanted = (tensors[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
        for got, exact, factor in zip((a, b), wanted, (1, 1.5), strict=True):
            assert got.dtype == np.float32 and np.allclose(got, exact * factor, rtol=2**-8, atol=1e-3)
    shutil.rmtree(tmp_path)
    assert np.array_equal(found.matrices(module)[0], a), "it is in memory of its own"


def test_ranks_and_scales_may_differ_by_module(tmp_path: Path) -> None:
    targets = ("q_proj", "v_proj", "o_proj")
    patterns = {"alpha_pattern": {"v_proj": 5, f"^{LAYER}.self_attn.o_proj$": 9}, "use_rslora": True}
    make_adapter(tmp_path, TINY, rank=4, targets=targets, ranks={"q_proj": 2}, lora_alpha=3, **patterns)
    found = read_adapter(tmp_path, SHAPES, 8)
    assert found.rank == 4 and len(found.modules) == 3 * TINY["num_hidden_layers"]
    tensors = adapter_tensors(TINY, 0, 4, targets, {"q_proj": 2})
    scales = {"q_proj": 3 / 2**0.5, "v_proj": 5 / 2, "o_proj": 9 / 2}
    for target, scale in scales.items():
        module = f"{LAYER}.self_attn.{target}"
        b = tensors[f"base_model.model.{module}.lora_B.weight"]
        assert np.allclose(found.matrices(module)[1], b * np.float32(scale), rtol=1e-6)
    other = found.matrices("model.layers.0.self_attn.o_proj")[1]
    assert np.allclose(other, tensors["base_model.model.model.layers.0.self_attn.o_proj.lora_B.weight"] * 1.5)


def test_the_digest_is_that_of_what_was_read(tmp_path: Path) -> None:
    digests = set()
    for seed, alpha in ((1, 8), (2, 8), (1, 4), (1, 8)):
        make_adapter(tmp_path, TINY, seed=seed, lora_alpha=alpha)
        digests.add(read_adapter(tmp_path, SHAPES, 4).digest)
    assert len(digests) == 3


#: Keys of adapter_config.json that are refused -> what the message must hold.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"use_dora": True}, "use_dora"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"trainable_token_indices": [3]}, "trainable_token_indices"),
    ({"target_parameters": ["experts.weight"]}, "target_parameters"),
    ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ({"bias": "all"}, "bias"),
    ({"lora_bias": True}, "lora_bias"),
    ({"use_qalora": True}, "use_qalora"),
    ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    ({"megatron_config": {"a": 1}}, "megatron_config"),
    ({"some_new_key": True}, "some_new_key"),
    ({"peft_type": "IA3"}, "peft_type='IA3'"),
    ({"rank_pattern": {"(a+)+$": 2}}, "rank_pattern"),
    ({"alpha_pattern": {".*q_proj": 2}}, "alpha_pattern"),
]


@pytest.mark.parametrize(("said", "word"), REFUSED)
def test_what_would_change_results_is_refused_by_name(tmp_path: Path, said: dict[str, Any], word: str) -> None:
    make_adapter(tmp_path, TINY, **said)
    with pytest.raises(UnsupportedModel, match="not supported") as error:
        read_adapter(tmp_path, SHAPES, 8)
    assert word in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    "said",
    [
        {"lora_dropout": 0.1, "peft_version": "0.18.0", "layers_to_transform": [0, 1], "eva_config": None},
        {"init_lora_weights": "gaussian"},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q|v)_proj"},
        {"modules_to_save": None, "use_dora": False, "bias": "none", "rank_pattern": {}, "loftq_config": {}},
        # PEFT writes these always; tests/e2e/test_lora.py has it save one
        {"megatron_config": None, "megatron_core": "megatron.core", "use_qalora": False, "qalora_group_size": 16},
    ],
)
def test_what_changes_nothing_is_not(tmp_path: Path, said: dict[str, Any]) -> None:
    make_adapter(tmp_path, TINY, **said)
    assert read_adapter(tmp_path, SHAPES, 8).modules == SHAPES.keys()


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"r": 0}, "r=0"),
        ({"r": "4"}, "r='4'"),
        ({"lora_alpha": None, "r": 10**9}, "r=1000000000"),
        ({"lora_alpha": -1}, "lora_alpha=-1"),
        ({"use_rslora": 1}, "use_rslora=1"),
        ({"target_modules": 3}, "target_modules=3"),
        ({"rank_pattern": {"q_proj": 2.5}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": "1"}}, "alpha_pattern"),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, said: dict[str, Any], word: str) -> None:
    make_adapter(tmp_path, TINY, **said)
    with pytest.raises(ModelError, match=word):
        read_adapter(tmp_path, SHAPES, 8)


def test_a_rank_that_slots_have_no_room_for_is_told_with_both_numbers(tmp_path: Path) -> None:
    make_adapter(tmp_path, TINY, rank=4, ranks={"up_proj": 9})
    with pytest.raises(UnsupportedModel, match=r"rank 9, max_lora_rank=8 .*--max-lora-rank 9"):
        read_adapter(tmp_path, SHAPES, 8)
    assert adapter_rank(tmp_path) == 9


Change = dict[str, Any]


def changed(path: Path, changes: Change) -> Path:
    """An adapter whose tensors are others: None leaves one out."""
    make_adapter(path, TINY)
    tensors: dict[str, Any] = {**adapter_tensors(TINY, 0, 4), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    write_safetensors(path / "adapter_model.safetensors", kept, "float32")
    return path


Q = f"base_model.model.{LAYER}.self_attn.q_proj"
HIDDEN = TINY["hidden_size"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({f"{Q}.lora_A.weight": np.zeros((3, HIDDEN))}, r"lora_A of .*q_proj is \[3, \d+\]; rank 4"),
        ({f"{Q}.lora_A.weight": np.zeros((4, HIDDEN + 1))}, "lora_A of"),
        ({f"{Q}.lora_B.weight": np.zeros((HIDDEN - 1, 4))}, "lora_B of"),
        ({f"{Q}.lora_B.weight": np.zeros(4)}, "lora_B of"),
        ({f"{Q}.lora_B.weight": None}, "has lora_A alone"),
        ({f"{Q}.lora_A.weight": np.full((4, HIDDEN), np.nan)}, "not finite"),
        ({f"{Q}.lora_A.weight": np.full((4, HIDDEN), np.inf)}, "not finite"),
        (dict.fromkeys(adapter_tensors(TINY, 0, 4)), "holds no tensors"),
    ],
)
def test_tensors_that_do_not_fit_the_model(tmp_path: Path, changes: Change, word: str) -> None:
    with pytest.raises(WeightMismatch, match=word):
        read_adapter(changed(tmp_path, changes), SHAPES, 8)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        f"{Q}.lora_magnitude_vector",
        f"{Q}.bias",
        "base_model.model.model.layers.99.self_attn.q_proj.lora_A.weight",
        "base_model.model.score.weight",
    ],
)
def test_tensors_that_are_no_pair_beside_a_linear_are_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedModel) as error:
        read_adapter(changed(tmp_path, {name: np.zeros((4, HIDDEN), np.float32)}), SHAPES, 8)
    assert name.removeprefix("base_model.model.").partition(".lora_A")[0] in str(error.value)


@pytest.mark.parametrize(
    ("told", "kept", "message"),
    [
        (
            f"{LAYER}.self_attn.q_proj",
            1,
            r"of this model's q_proj these can have one: model\.layers\.0\.self_attn\.q_proj$",
        ),
        ("model.layers.9.mlp.up_proj", 6, r"model\.layers\.3\.mlp\.up_proj and 2 more$"),
        ("lm_head", 6, r"of this model these can have one: down_proj, .*, v_proj; the head cannot$"),
    ],
)
def test_modules_that_can_have_one_are_named(tmp_path: Path, told: str, kept: int, message: str) -> None:
    """Of layers that are gone through several times none can, though others that are called alike can."""
    layers = {name.replace("layers.0.", f"layers.{i}."): shape for name, shape in SHAPES.items() for i in range(kept)}
    shapes = {name: shape for name, shape in layers.items() if int(name.split(".")[2]) < kept}
    write_safetensors(
        tmp_path / "adapter_model.safetensors",
        {f"base_model.model.{told}.lora_A.weight": np.zeros((4, 8), np.float32)},
        "float32",
    )
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4}))
    with pytest.raises(UnsupportedModel, match=message):
        read_adapter(tmp_path, shapes, 8)


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model.", "model.text_model."])
def test_an_adapter_of_a_model_that_sees_names_its_text_part(tmp_path: Path, prefix: str) -> None:
    """As PEFT has it of Qwen 3 VL, Gemma 3 and others; what the config names is named so, too."""
    whole = f"{prefix}layers.1.self_attn.o_proj"
    named = [whole.replace("layers.1", f"layers.{layer}") for layer in range(TINY["num_hidden_layers"])]
    said = {"alpha_pattern": {f"^{whole}$": 9}, "target_modules": [*ALL_LINEAR[:3], *ALL_LINEAR[4:], *named]}
    make_adapter(tmp_path, TINY, targets=ALL_LINEAR, lora_alpha=8, **said)
    begins = "base_model.model."
    tensors = {n.replace(f"{begins}model.", begins + prefix): a for n, a in adapter_tensors(TINY, 0, 4).items()}
    write_safetensors(tmp_path / "adapter_model.safetensors", tensors, "float32")
    found = read_adapter(tmp_path, SHAPES, 4)
    assert found.modules == SHAPES.keys()
    for layer, scale in ((0, 2.0), (1, 9 / 4)):
        module = f"layers.{layer}.self_attn.o_proj"
        b = tensors[f"base_model.model.{prefix}{module}.lora_B.weight"]
        assert np.allclose(found.matrices(f"model.{module}")[1], b * np.float32(scale), rtol=1e-6)


def test_a_module_under_two_names_is_refused(tmp_path: Path) -> None:
    other = Q.replace("model.layers", "model.language_model.layers")
    pair = {f"{other}.lora_{side}.weight": adapter_tensors(TINY, 0, 4)[f"{Q}.lora_{side}.weight"] for side in "AB"}
    with pytest.raises(WeightMismatch, match=r"q_proj is there twice, also as .*one must go"):
        read_adapter(changed(tmp_path, pair), SHAPES, 8)


def test_modules_that_the_list_of_targets_leaves_out_are_not_read_silently(tmp_path: Path) -> None:
    make_adapter(tmp_path, TINY, target_modules=["q_proj", "v_proj"])
    with pytest.raises(WeightMismatch, match=r"do not name model\.layers\.0\.mlp"):
        read_adapter(tmp_path, SHAPES, 8)


def test_only_these_two_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        read_adapter(tmp_path, SHAPES, 8)
    make_adapter(tmp_path, TINY)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        read_adapter(tmp_path, SHAPES, 8)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x80\x04no tensors")
    with pytest.raises(WeightMismatch):
        read_adapter(tmp_path, SHAPES, 8)
    (tmp_path / "adapter_config.json").write_text(json.dumps([1]))
    with pytest.raises(ModelError):
        read_adapter(tmp_path, SHAPES, 8)
    assert set(ALL_LINEAR) == {name.rpartition(".")[2] for name in SHAPES}
