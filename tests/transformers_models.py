"""transformers, with the architectures that its packages lack and checkpoints bring as code: what that code says.

Imported by tests that take transformers as their oracle. MiMo is Qwen 2, but for layers that guess further tokens;
Kimi K2 is DeepSeek V3; Ling 2.0 is Sarvam 30B, with groups of experts; MiniCPM is Granite under other names of its
numbers; InternLM 2 is Llama, with rows of queries, keys and values in one matrix, of each group of heads behind the
other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from transformers_stand_ins import WithHead, stand_in, transformers

conversion = pytest.importorskip("transformers.conversion_mapping")
pytest.importorskip("transformers_minimax")
pytest.importorskip("transformers_step")
pytest.importorskip("transformers_decilm")
pytest.importorskip("transformers_llamas")
pytest.importorskip("published_families")


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


class InternLM2Config(transformers.LlamaConfig):
    model_type = "internlm2"
    vocab_size: int = 103168

    def __post_init__(self, **said: Any) -> None:
        super().__post_init__(**said)
        self.attention_bias = bool(said.get("bias", True))


class BailingMoeConfig(transformers.SarvamMoEConfig):
    model_type = "bailing_moe"


class Param2MoEConfig(transformers.SarvamMoEConfig):
    model_type = "param2moe"
    n_group: int = 8
    topk_group: int = 4
    head_dim: int = 128
    routed_scaling_factor: float = 1.0
    max_position_embeddings: int = 32768
    default_theta = 600000.0


class InternLM2ForCausalLM(transformers.LlamaForCausalLM):
    config_class = InternLM2Config

    @classmethod
    def from_pretrained(cls, directory: Any, *_: Any, config: Any, dtype: Any = None, **options: Any) -> Any:
        import torch
        from safetensors.torch import load_file

        model, found = cls(config), {}
        stored = [load_file(path) for path in sorted(Path(directory).glob("*.safetensors"))]
        for name, value in (each for file in stored for each in file.items()):
            if ".qkv_proj." not in name:
                found[name] = value
                continue
            groups = value.unflatten(0, (config.num_key_value_heads, -1, config.head_dim))
            for part, rows in (("q", groups[:, :-2]), ("k", groups[:, -2]), ("v", groups[:, -1])):
                found[name.replace("qkv", part)] = rows.reshape(-1, *value.shape[1:])
        lost = model.load_state_dict(found, strict=False)
        info = {"missing_keys": lost.missing_keys, "unexpected_keys": lost.unexpected_keys, "mismatched_keys": []}
        made = model.to(dtype or torch.float32).eval()
        return (made, info) if options.get("output_loading_info") else made

    def save_pretrained(self, directory: Any, **options: Any) -> None:
        import torch

        parts, heads = dict(self.state_dict()), (self.config.num_key_value_heads, -1, self.config.head_dim)
        for name in [name for name in parts if ".q_proj." in name]:
            rows = [parts.pop(name.replace("q_proj", f"{part}_proj")).unflatten(0, heads) for part in "qkv"]
            parts[name.replace("q_proj", "qkv_proj")] = torch.cat(rows, 1).flatten(0, 2)
        super().save_pretrained(directory, state_dict=parts, **options)


@contextlib.contextmanager
def _named_as_in_memory() -> Iterator[None]:
    """Mistral Large 4's text part by the names of DeepSeek V3, as its authors' are those of a whole."""
    kind, known = "mistral_large4_text", conversion.get_checkpoint_conversion_mapping("mistral_large4_text")
    of_text = conversion.get_checkpoint_conversion_mapping("deepseek_v3")
    conversion.register_checkpoint_conversion_mapping(kind, of_text, overwrite=True)
    try:
        yield
    finally:
        conversion.register_checkpoint_conversion_mapping(kind, known, overwrite=True)


large4 = pytest.importorskip("transformers.models.mistral_large4.modeling_mistral_large4")


class MistralLarge4ForCausalLM(WithHead, large4.MistralLarge4PreTrainedModel, transformers.GenerationMixin):
    config_class = transformers.MistralLarge4TextConfig
    text_model = large4.MistralLarge4TextModel

    @classmethod
    def from_pretrained(cls, *given: Any, **options: Any) -> Any:
        with _named_as_in_memory():
            return super().from_pretrained(*given, **options)

    def save_pretrained(self, *given: Any, **options: Any) -> None:
        with _named_as_in_memory():
            super().save_pretrained(*given, **options)

    def forward(self, input_ids: Any, **given: Any) -> Any:
        import torch

        cap = self.config.final_logit_softcapping
        logits = self.lm_head(self.model(input_ids=input_ids, **given).last_hidden_state)
        return transformers.modeling_outputs.CausalLMOutput(logits=torch.tanh(logits / cap) * cap)


glm5 = pytest.importorskip("transformers.models.glm5_next.modeling_glm5_next")


class Glm5NextForCausalLM(WithHead, glm5.Glm5NextPreTrainedModel, transformers.GenerationMixin):
    config_class = transformers.Glm5NextTextConfig
    text_model = glm5.Glm5NextTextModel


def _is_of_whole(conversion: Any) -> bool:
    """Whether it names parts beside text."""
    return any(str(source).startswith("^") for source in conversion.source_patterns)


stand_in("MiMo", "mimo", "Qwen2")
stand_in("KimiK2", "kimi_k2", "DeepseekV3")
stand_in("MiniCPM", "minicpm", "Granite", config=MiniCPMConfig)
stand_in("InternLM2", "internlm2", "Llama", config=InternLM2Config, writer=InternLM2ForCausalLM)
stand_in("BailingMoeV2", "bailing_moe", "Glm4Moe", config=BailingMoeConfig)
stand_in("Param2MoE", "param2moe", "Glm4Moe", config=Param2MoEConfig)
conversion.register_checkpoint_conversion_mapping(
    "param2moe", conversion.get_checkpoint_conversion_mapping("sarvam_moe")
)
conversion.register_checkpoint_conversion_mapping(
    "bailing_moe", conversion.get_checkpoint_conversion_mapping("sarvam_moe")
)
# as each expert lies in a file by itself
conversion.register_checkpoint_conversion_mapping(
    "kimi_k2", conversion.get_checkpoint_conversion_mapping("deepseek_v3"), overwrite=True
)
# which has a class for it, but no way to it but by the model that reads images
transformers.AutoModelForCausalLM.register(transformers.Mistral4Config, transformers.Mistral4ForCausalLM, exist_ok=True)
conversion.register_checkpoint_conversion_mapping(
    "mistral4", conversion.get_checkpoint_conversion_mapping("deepseek_v3"), overwrite=True
)
# likewise, and which is not said to be one of those that read pictures
transformers.AutoModelForCausalLM.register(
    transformers.MiniMaxM3VLTextConfig, transformers.MiniMaxM3VLForCausalLM, exist_ok=True
)
conversion.register_checkpoint_conversion_mapping(
    "minimax_m3_vl_text",
    [each for each in conversion.get_checkpoint_conversion_mapping("minimax_m3_vl") if not _is_of_whole(each)],
    overwrite=True,
)
# which have none of text alone
transformers.AutoModelForCausalLM.register(transformers.Glm5NextTextConfig, Glm5NextForCausalLM, exist_ok=True)
transformers.AutoModelForCausalLM.register(
    transformers.MistralLarge4TextConfig, MistralLarge4ForCausalLM, exist_ok=True
)
