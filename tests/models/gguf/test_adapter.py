"""Adapters in GGUF files, as convert_lora_to_gguf.py writes them of what PEFT saved: the same matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.api.adapters import rank_of
from albireo.errors import EngineError, UnsupportedModel, WeightMismatch
from albireo.models import load_architecture
from albireo.models.checkpoint.peft import read_adapter
from albireo.models.gguf.adapter import read_gguf_adapter
from models.gguf.writer import Array, gguf, permuted
from tiny_adapters import adapter_tensors, make_adapter
from tiny_models import weight_shapes


def tiny(name: str) -> dict[str, Any]:
    return {**load_architecture(name).tiny}


RANK, ALPHA = 4, 6.0
ONES = np.ones((RANK, 9), np.float32)
WHOLE = np.ones((RANK, tiny("qwen2")["hidden_size"]), np.int32), np.ones((tiny("qwen2")["hidden_size"], RANK), np.int32)
Pairs = dict[str, tuple[Array, Array]]


def head_dim_of(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def shapes_of(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removesuffix(".weight"): shape
        for name, shape in weight_shapes(config).items()
        if name.endswith("_proj.weight") and ".layers." in name
    }


def pairs_of(config: dict[str, Any], arch: str) -> Pairs:
    """By the names of a file."""
    number = next(each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names, tensors, found = gguf.get_tensor_name_map(number, 10), adapter_tensors(config, 3, RANK), {}
    for module in shapes_of(config):
        a, b = (tensors[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
        if arch in ("llama", "deci") and module.endswith(("q_proj", "k_proj")):
            b = permuted(b, len(b) // head_dim_of(config))
        found[names.get_name(f"{module}.weight", try_suffixes=(".weight",))] = a, b
    return found


def write(path: Path, arch: str, pairs: Pairs, kind: str = "F32", **keys: Any) -> Path:
    """kind: of matrices of floats; others are written as they are."""
    writer = gguf.GGUFWriter(str(path), arch)
    said = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": ALPHA} | keys
    for key, value in said.items():
        add = {str: writer.add_string, list: writer.add_array}.get(type(value), writer.add_float32)
        add(key, value)
    for name, pair in pairs.items():
        for side, array in zip("ab", pair, strict=False):
            if array.dtype != np.float32:
                writer.add_tensor(f"{name}.lora_{side}", array)
                continue
            number = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(f"{name}.lora_{side}", gguf.quantize(array, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(path: Path, config: dict[str, Any], max_rank: int = 8) -> Any:
    return read_gguf_adapter(path, shapes_of(config), max_rank, head_dim_of(config))


@pytest.mark.parametrize(
    ("model", "name", "kind"),
    [
        ("qwen2", "qwen2", "F32"),
        ("llama", "llama", "F32"),
        ("llama", "llama", "F16"),
        ("qwen2", "qwen2", "BF16"),
        ("nemotron-nas", "deci", "F32"),  # layers differ in how many heads of keys they have
    ],
)
def test_matrices_are_those_that_peft_saved(model: str, name: str, kind: str, tmp_path: Path) -> None:
    config = tiny(model)
    saved = make_adapter(tmp_path / "peft", config, seed=3, rank=RANK, lora_alpha=ALPHA)
    wanted = read_adapter(saved, shapes_of(config), 8)
    path = write(tmp_path / "a.gguf", name, pairs_of(config, name), kind)
    found = read(path, config)
    assert found.modules == wanted.modules and found.rank == wanted.rank == rank_of(path) == RANK
    for module in wanted.modules:
        for mine, theirs in zip(found.matrices(module), wanted.matrices(module), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0 if kind == "F32" else 2**-8, atol=0)
    assert found.digest != read(write(tmp_path / "b.gguf", name, pairs_of(config, name), **{"x": 1.0}), config).digest


def test_no_alpha_is_no_scale(tmp_path: Path) -> None:
    config = tiny("qwen2")
    once, scaled = (
        read(write(tmp_path / f"{alpha}.gguf", "qwen2", _one({}), **{"adapter.lora.alpha": alpha}), config)
        for alpha in (0.0, 2.0 * RANK)
    )
    module = "model.layers.0.self_attn.q_proj"
    np.testing.assert_array_equal(2 * once.matrices(module)[1], scaled.matrices(module)[1])


def _one(changes: dict[str, Any]) -> Pairs:
    pairs = pairs_of(tiny("qwen2"), "qwen2")
    return {"blk.0.attn_q.weight": pairs["blk.0.attn_q.weight"]} | changes


@pytest.mark.parametrize(
    ("arch", "changes", "keys", "error", "message"),
    [
        ("qwen2", {"blk.0.attn_k.weight": (ONES,)}, {}, WeightMismatch, "k_proj.weight has one half"),
        ("qwen2", {"blk.0.attn_q.weight": (ONES, ONES)}, {}, WeightMismatch, r"q_proj are \[4, 9\]"),
        ("qwen2", {"output.weight": (ONES, ONES)}, {}, UnsupportedModel, "adapter of 'lm_head'"),
        ("qwen35", {}, {}, UnsupportedModel, "general.architecture='qwen35' is not supported; adapters of it are"),
        ("qwen2", {}, {"adapter.type": "control_vector"}, UnsupportedModel, "adapter.type='control_vector'"),
        ("qwen2", {}, {"general.type": "model"}, UnsupportedModel, "general.type='model' is not supported"),
        ("qwen2", {}, {"general.type": [1, 2]}, UnsupportedModel, r"general.type=.* is not supported"),
        (
            "qwen2",
            {"blk.0.attn_q.weight": WHOLE},
            {},
            UnsupportedModel,
            r"q_proj\.weight' has type I32; supported: F32",
        ),
    ],
)
def test_what_is_refused(
    arch: str, changes: dict[str, Any], keys: dict[str, Any], error: type[EngineError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        read(write(tmp_path / "a.gguf", arch, _one(changes), **keys), tiny("qwen2"))
    assert "a.gguf" in str(caught.value)


def test_a_rank_that_slots_have_no_room_for_and_numbers_that_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", "qwen2", _one({}))
    with pytest.raises(UnsupportedModel, match=r"has rank 4, max_lora_rank=2 .*--max-lora-rank 4"):
        read(path, tiny("qwen2"), 2)
    a, b = _one({})["blk.0.attn_q.weight"]
    path = write(tmp_path / "b.gguf", "qwen2", {"blk.0.attn_q.weight": (a * np.float32(np.nan), b)})
    with pytest.raises(WeightMismatch, match=r"q_proj\.weight' holds numbers that are not finite"):
        read(path, tiny("qwen2"))
