"""Models that transformers has no class of and that are its Llama, but for biases (InternLM 1) or norms (Orion).

Imported by transformers_models.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from transformers_stand_ins import nn, stand_in, transformers

llama = pytest.importorskip("transformers.models.llama.modeling_llama")


class InternLMConfig(transformers.LlamaConfig):
    model_type = "internlm"

    def __post_init__(self, **said: Any) -> None:
        rotary = said.get("rotary") or {}
        if "base" in rotary:
            said["rope_theta"] = rotary["base"]
        super().__post_init__(**said)
        self.attention_bias = bool(said.get("bias", self.attention_bias))


class OrionConfig(transformers.LlamaConfig):
    model_type = "orion"


class OrionModel(transformers.LlamaModel):
    config_class = OrionConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for name, module in list(self.named_modules()):
            if isinstance(module, llama.LlamaRMSNorm):
                parent = self.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], nn.LayerNorm(config.hidden_size, config.rms_norm_eps))


class OrionForCausalLM(transformers.LlamaForCausalLM):
    config_class = OrionConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = OrionModel(config)


stand_in("Xverse", "xverse", "Llama")
stand_in("InternLM", "internlm", "Llama", config=InternLMConfig)
stand_in("Orion", "orion", "Llama", config=OrionConfig, model=OrionModel, writer=OrionForCausalLM)
