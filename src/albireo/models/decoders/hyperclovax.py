"""HyperCLOVA X SEED: Granite with norms of what is added, too; logits are multiplied where Granite's are divided."""

from __future__ import annotations

from functools import partial

from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.layers import Norms
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["HyperCLOVAXForCausalLM"],
    "model_type": "hyperclovax",
    "vocab_size": 127,
    "intermediate_size": 72,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 100000.0,
    "embedding_multiplier": 5.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.4,
    "logits_scaling": 0.3,
    "use_post_norm": True,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    return BlockSettings(has_norm_behind=fields.flag("use_post_norm", True))


CONFIG = ConfigRules(
    keys=frozenset(
        {
            "attention_bias",
            "mlp_bias",
            "embedding_multiplier",
            "residual_multiplier",
            "attention_multiplier",
            "logit_scale",
        }
    ),
    names={"logit_scale": "logits_scaling"},
    blocks=_blocks,
    defaults={"max_position_embeddings": 2048},
    class_names=("HyperCLOVAXForCausalLM",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    behind = ("post_norm1", "post_norm2") if config.blocks.has_norm_behind else (None, None)
    ffn = partial(mlp_block, norms=Norms("post_attention_layernorm", behind[1]))
    return decoder(config, max_model_len, ffn=ffn, norms=Norms("input_layernorm", behind[0]))
