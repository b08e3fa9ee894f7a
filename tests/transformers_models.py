"""transformers, with the architectures that its packages lack and checkpoints bring as code: what that code says.

Imported by tests that take transformers as their oracle. MiMo is Qwen 2, but for layers that guess further tokens;
Kimi K2 is DeepSeek V3.
"""

from __future__ import annotations

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
