"""transformers, with the architectures that its packages lack and checkpoints bring as code: what that code says.

Imported by tests that take transformers as their oracle. MiMo is Qwen 2, but for layers that guess further tokens;
Kimi K2 is DeepSeek V3; Ling 2.0 is Sarvam 30B, with groups of experts; MiniCPM is Granite under other names of its
numbers.
"""

from __future__ import annotations

from typing import Any

import pytest

transformers = pytest.importorskip("transformers")
conversion = pytest.importorskip("transformers.conversion_mapping")


class MiMoConfig(transformers.Qwen2Config):
    model_type = "mimo"


class MiMoModel(transformers.Qwen2Model):
    config_class = MiMoConfig


class MiMoForCausalLM(transformers.Qwen2ForCausalLM):
    config_class = MiMoConfig


class KimiK2Config(transformers.DeepseekV3Config):
    model_type = "kimi_k2"


class KimiK2Model(transformers.DeepseekV3Model):
    config_class = KimiK2Config


class KimiK2ForCausalLM(transformers.DeepseekV3ForCausalLM):
    config_class = KimiK2Config


class MiniCPMConfig(transformers.GraniteConfig):
    """Its own names of three of Granite's numbers; the fourth is that of most models."""

    model_type = "minicpm"

    def __post_init__(self, **said: Any) -> None:
        super().__post_init__(**said)
        self.embedding_multiplier = said["scale_emb"]
        self.residual_multiplier = said["scale_depth"] / self.num_hidden_layers**0.5
        self.logits_scaling = self.hidden_size / said["dim_model_base"]
        self.attention_multiplier = (self.hidden_size // self.num_attention_heads) ** -0.5

    def to_dict(self) -> dict[str, Any]:
        ours = ("embedding_multiplier", "residual_multiplier", "logits_scaling", "attention_multiplier")
        return {key: value for key, value in super().to_dict().items() if key not in ours}


class MiniCPMModel(transformers.GraniteModel):
    config_class = MiniCPMConfig


class MiniCPMForCausalLM(transformers.GraniteForCausalLM):
    config_class = MiniCPMConfig


class BailingMoeConfig(transformers.SarvamMoEConfig):
    model_type = "bailing_moe"


class BailingMoeModel(transformers.Glm4MoeModel):
    config_class = BailingMoeConfig


class BailingMoeV2ForCausalLM(transformers.Glm4MoeForCausalLM):
    config_class = BailingMoeConfig


conversion.register_checkpoint_conversion_mapping(
    "bailing_moe", conversion.get_checkpoint_conversion_mapping("sarvam_moe")
)
transformers.AutoConfig.register("bailing_moe", BailingMoeConfig)
transformers.AutoModel.register(BailingMoeConfig, BailingMoeModel)
transformers.AutoModelForCausalLM.register(BailingMoeConfig, BailingMoeV2ForCausalLM)
transformers.AutoConfig.register("minicpm", MiniCPMConfig)
transformers.AutoModel.register(MiniCPMConfig, MiniCPMModel)
transformers.AutoModelForCausalLM.register(MiniCPMConfig, MiniCPMForCausalLM)
transformers.AutoConfig.register("mimo", MiMoConfig)
transformers.AutoModel.register(MiMoConfig, MiMoModel)
transformers.AutoModelForCausalLM.register(MiMoConfig, MiMoForCausalLM)
transformers.AutoConfig.register("kimi_k2", KimiK2Config)
transformers.AutoModel.register(KimiK2Config, KimiK2Model)
transformers.AutoModelForCausalLM.register(KimiK2Config, KimiK2ForCausalLM)
# as each expert lies in a file by itself
conversion.register_checkpoint_conversion_mapping(
    "kimi_k2", conversion.get_checkpoint_conversion_mapping("deepseek_v3"), overwrite=True
)
# which has a class for it, but no way to it but by the model that reads images
transformers.AutoModelForCausalLM.register(transformers.Mistral4Config, transformers.Mistral4ForCausalLM, exist_ok=True)
conversion.register_checkpoint_conversion_mapping(
    "mistral4", conversion.get_checkpoint_conversion_mapping("deepseek_v3"), overwrite=True
)
