"""Mistral Small 4: latent attention, experts chosen by a softmax beside a shared one; queries that grow beyond the
context of pretraining, up to which it is computed.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import Fields
from albireo.models.blocks.latent_attention import latent_blocks
from albireo.models.decoders import deepseek_v3, ministral3
from albireo.models.settings.block_settings import BlockSettings

#: A context no longer than that of pretraining.
TINY = {
    **{key: value for key, value in deepseek_v3.TINY.items() if key not in ("rope_theta", "rope_scaling")},
    "architectures": ["Mistral4ForCausalLM"],
    "model_type": "mistral4",
    "vocab_size": 125,
    "num_hidden_layers": 2,
    "n_routed_experts": 8,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "rope_parameters": {**ministral3.TINY["rope_parameters"], "rope_theta": 10000.0},
    "num_nextn_predict_layers": 0,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel where nothing says how it rotates: its class stretches a context then."""
    if fields.raw("rope_parameters") is None and fields.raw("rope_scaling") is None:
        fields.unsupported("rope_parameters", None, "it must be said, as published files do; rope_type may be default")
    return latent_blocks(fields)


CONFIG = replace(
    deepseek_v3.CONFIG,
    blocks=_blocks,
    keys=frozenset({"attention_bias", "llama_4_scaling_beta", "qk_rope_head_dim"}),
    experts="mistral4",
    built_in={"rope_interleave": True},
    defaults={
        "n_shared_experts": 1,
        "first_k_dense_replace": 0,
        "q_lora_rank": 1024,
        "kv_lora_rank": 256,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    },
)
build = deepseek_v3.build
