"""Random adapters (LoRA) for the models of tiny_models.py, in directories as PEFT writes them; made from a seed.

Used by the tests of every room. Written out here, independently of albireo.models.checkpoint.peft.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_models import weight_shapes, write_safetensors

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_adapter(
    path: Path,
    config: Mapping[str, Any],
    seed: int = 0,
    *,
    rank: int = 4,
    targets: Sequence[str] = ALL_LINEAR,
    ranks: Mapping[str, int] | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> Path:
    """Write adapter_config.json and adapter_model.safetensors.

    Args:
        config: of the model, as in its config.json.
        ranks: target -> another rank than rank.
        settings: keys of adapter_config.json.
    Returns: path.
    """
    path.mkdir(parents=True, exist_ok=True)
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.05,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": list(targets),
        "inference_mode": True,
    }
    if ranks:
        said["rank_pattern"] = dict(ranks)
    (path / "adapter_config.json").write_text(json.dumps(said | settings))
    tensors = adapter_tensors(config, seed, rank, targets, ranks)
    write_safetensors(path / "adapter_model.safetensors", tensors, dtype)
    return path


def adapter_tensors(
    config: Mapping[str, Any],
    seed: int,
    rank: int,
    targets: Sequence[str] = ALL_LINEAR,
    ranks: Mapping[str, int] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """A and B by the names that PEFT gives them, large enough to change what is said."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in weight_shapes(config).items():
        module, target = name.removesuffix(".weight"), name.split(".")[-2]
        if target not in targets or not name.endswith(".weight") or ".experts." in name:
            continue
        r = (ranks or {}).get(target, rank)
        a = rng.standard_normal((r, shape[1]), np.float32) / np.float32(shape[1] ** 0.5)
        b = rng.standard_normal((shape[0], r), np.float32) * np.float32(0.3 / r**0.5)
        found[f"base_model.model.{module}.lora_A.weight"] = a
        found[f"base_model.model.{module}.lora_B.weight"] = b
    return found
