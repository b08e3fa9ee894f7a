"""dots.llm1: Qwen 3's attention; experts chosen by sigmoids and a bias, beside a shared one."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.expert_settings import SIGMOIDS
from albireo.models.settings.tiny import TINY_LLAMA

#: Ten experts of 28 channels in five groups, of which three are open to a token; the first layer is dense.
TINY = TINY_LLAMA | {
    "architectures": ["Dots1ForCausalLM"],
    "model_type": "dots1",
    "vocab_size": 133,
    "hidden_size": 36,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "head_dim": 12,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 3,
    "n_routed_experts": 10,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 28,
    "n_shared_experts": 2,
    "n_group": 5,
    "topk_group": 3,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel for scores that are no sigmoids; published files call them as the choice among them."""
    fields.one_of("scoring_func", ("sigmoid", "noaux_tc"), "sigmoid")
    return BlockSettings()


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    blocks=_blocks,
    windows="by_layer",
    experts="deepseek",
    defaults={
        "use_sliding_window": True,
        "max_window_layers": 62,
        "norm_topk_prob": False,
        "num_key_value_heads": 32,
        "topk_group": 1,
    },
    built_in=SIGMOIDS,
    ignorable=keys("ep_size seq_aux aux_loss_alpha"),
)
build = partial(decoder, ffn=partial(moe_block, names=DEEPSEEK), qk_norm=True)
