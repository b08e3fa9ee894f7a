"""Logits by transformers, from a configuration and numbers, and how far others are from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tiny_latent import with_up_projections_joined
from tiny_models import interleaved_experts
from transformers_minimax import RATES
from transformers_models import transformers

torch = pytest.importorskip("torch")


def logits_by_transformers(config: dict[str, Any], numbers: dict[str, np.ndarray], ids: Sequence[int]) -> np.ndarray:
    """[T, V] in float32. Args: numbers: every tensor by its name in a checkpoint; a tied head has none."""
    whole = transformers.AutoConfig.for_model(**config)
    model = transformers.AutoModelForCausalLM.from_config(
        whole, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32
    )
    if "kv_lora_rank" in config:
        numbers = with_up_projections_joined(config, numbers)
    is_in_turn = config["model_type"] == "gpt_oss"
    held = interleaved_experts(config, numbers) if is_in_turn else fused_experts(config, numbers)
    state = {name: torch.tensor(array) for name, array in held.items()}
    state |= {
        name: array[:, None] for name, array in state.items() if name.endswith(("conv1d.weight", "conv.conv.weight"))
    }
    state |= {name: rate for name, rate in model.state_dict().items() if name.endswith(RATES)}
    if config["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    with torch.no_grad():
        return np.asarray(model.eval()(torch.tensor([list(ids)])).logits[0].numpy())


def fused_experts(config: dict[str, Any], numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With the matrices of experts under the names that transformers has for them in memory: gate and up of all as one,
    down of all as one."""
    found, experts = {}, dict[str, list[np.ndarray]]()
    router = ".mlp.router." if config["model_type"] == "phimoe" else ".mlp.gate."
    for name, array in numbers.items():
        name = name.replace(".block_sparse_moe.", ".mlp.").replace(".mlp.gate.", router)
        if config["model_type"] == "axk1":
            name = name.replace(".post_mlp_layernorm.", ".mlp.post_mlp_layernorm.")
        if config["model_type"] == "axk2":
            for published, known in (("q_b_proj", "q_gate_proj"), ("W_down", "mlp.fc1"), ("W_up", "mlp.fc2")):
                name = name.replace(f".{published}.", f".{known}.")
        if name.endswith(".moe_statics.e_score_correction_bias"):  # of one group of experts
            name, array = name.replace(".moe_statics.", ".gate.moe_statics."), array[None]
        if ".experts." not in name:
            found[name] = array
            continue
        block, _, rest = name.partition(".experts.")
        experts.setdefault(f"{block}.experts.{rest.split('.')[1]}", []).append(array)
    for name, parts in experts.items():
        block, _, matrix = name.rpartition(".")
        if matrix in ("down_proj", "w2"):
            found[f"{block}.down_proj"] = np.stack(parts)
        elif matrix in ("gate_proj", "w1"):
            ups = experts[f"{block}.{'up_proj' if matrix == 'gate_proj' else 'w3'}"]
            found[f"{block}.gate_up_proj"] = np.concatenate([np.stack(parts), np.stack(ups)], axis=1)
    return found


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of a from b, as a part of b's length."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
