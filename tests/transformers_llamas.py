"""Models that transformers has no class of and that are its Llama, but for biases (InternLM 1) or norms (Orion).

Imported by transformers_models.py.
"""

from __future__ import annotations

from typing import Any

import pytest

transformers = pytest.importorskip("transformers")
llama = pytest.importorskip("transformers.models.llama.modeling_llama")
nn = pytest.importorskip("torch").nn


class XverseConfig(transformers.LlamaConfig):
    model_type = "xverse"


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


class XverseModel(transformers.LlamaModel):
    config_class = XverseConfig


class InternLMModel(transformers.LlamaModel):
    config_class = InternLMConfig


class OrionModel(transformers.LlamaModel):
    config_class = OrionConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for name, module in list(self.named_modules()):
            if isinstance(module, llama.LlamaRMSNorm):
                parent = self.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], nn.LayerNorm(config.hidden_size, config.rms_norm_eps))


class XverseForCausalLM(transformers.LlamaForCausalLM):
    config_class = XverseConfig


class InternLMForCausalLM(transformers.LlamaForCausalLM):
    config_class = InternLMConfig


class OrionForCausalLM(transformers.LlamaForCausalLM):
    config_class = OrionConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = OrionModel(config)


for _config, _model, _writer in (
    (XverseConfig, XverseModel, XverseForCausalLM),
    (InternLMConfig, InternLMModel, InternLMForCausalLM),
    (OrionConfig, OrionModel, OrionForCausalLM),
):
    transformers.AutoConfig.register(_config.model_type, _config)
    transformers.AutoModel.register(_config, _model)
    transformers.AutoModelForCausalLM.register(_config, _writer)
