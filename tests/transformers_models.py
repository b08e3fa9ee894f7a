"""transformers, with the architectures that its packages lack and checkpoints bring as code: what that code says.

Imported by tests that take transformers as their oracle. MiMo is Qwen 2, but for layers that guess further tokens.
"""

from __future__ import annotations

import pytest

transformers = pytest.importorskip("transformers")


class MiMoConfig(transformers.Qwen2Config):
    model_type = "mimo"


class MiMoModel(transformers.Qwen2Model):
    config_class = MiMoConfig


class MiMoForCausalLM(transformers.Qwen2ForCausalLM):
    config_class = MiMoConfig


transformers.AutoConfig.register("mimo", MiMoConfig)
transformers.AutoModel.register(MiMoConfig, MiMoModel)
transformers.AutoModelForCausalLM.register(MiMoConfig, MiMoForCausalLM)
