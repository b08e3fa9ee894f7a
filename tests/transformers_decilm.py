"""Llama Nemotron Super and Ultra, which transformers has no class of, made of its Llama: each layer is one of a model
with that layer's KV heads and FFN, and adds nothing where it has none.

Imported by transformers_models.py.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from transformers_stand_ins import stand_in, transformers

llama = pytest.importorskip("transformers.models.llama.modeling_llama")
torch = pytest.importorskip("torch")


class DeciLMConfig(transformers.LlamaConfig):
    model_type = "nemotron-nas"

    def __init__(self, **said: Any) -> None:
        super().__init__(**{**said, "intermediate_size": said.get("intermediate_size") or 1})

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "intermediate_size": None, "num_key_value_heads": None}

    def of_block(self, block: dict[str, Any]) -> Any:
        found = copy.copy(self)
        found.num_key_value_heads = self.num_attention_heads // (block["attention"].get("n_heads_in_group") or 1)
        factor = block["ffn"].get("ffn_mult")
        width = int(2 * (factor or 0.0) * self.hidden_size / 3)
        found.intermediate_size = block["ffn"].get("intermediate_size") or (width + 255) // 256 * 256 or 1
        return found


class _NoAttention(torch.nn.Module):
    def forward(self, hidden_states: Any, **_: Any) -> tuple[Any, None]:
        return torch.zeros_like(hidden_states), None


class _NoFFN(torch.nn.Module):
    def forward(self, hidden_states: Any) -> Any:
        return torch.zeros_like(hidden_states)


class DeciLMModel(transformers.LlamaModel):
    config_class = DeciLMConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for i, block in enumerate(config.block_configs):
            layer = llama.LlamaDecoderLayer(config.of_block(block), i)
            if block["attention"].get("no_op"):
                layer.self_attn, layer.input_layernorm = _NoAttention(), torch.nn.Identity()
            if block["ffn"].get("no_op"):
                layer.mlp, layer.post_attention_layernorm = _NoFFN(), torch.nn.Identity()
            self.layers[i] = layer


class DeciLMForCausalLM(transformers.LlamaForCausalLM):
    config_class = DeciLMConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = DeciLMModel(config)


stand_in("DeciLM", "nemotron-nas", "Llama", config=DeciLMConfig, model=DeciLMModel, writer=DeciLMForCausalLM)
