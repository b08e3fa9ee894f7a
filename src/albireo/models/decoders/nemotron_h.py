"""Nemotron H, Nemotron Nano 2, and Nemotron 3: each layer is one norm and one of Mamba 2, attention that does not
rotate, an FFN without a gate, and experts without one, which may be of a latent.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import Names, experts, route
from albireo.models.blocks.feed_forward import plain_mlp
from albireo.models.blocks.layers import Ends, attention, embedding, head, linear, norm, queries_keys_values
from albireo.models.blocks.mamba2_mixer import mamba_mixer
from albireo.models.blocks.rope import no_rotation
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEADS
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import parse_mixers
from albireo.models.settings.mamba_settings import MambaKeys, MambaSettings, parse_mamba

#: Four heads of 20 share two of 12. transformers holds back how little a token may count (time_step_min, which is of
#: training), where its weights were published with code that does not.
TINY = {
    "architectures": ["NemotronHForCausalLM"],
    "model_type": "nemotron_h",
    "vocab_size": 139,
    "hidden_size": 40,
    "intermediate_size": 52,
    "num_hidden_layers": 6,
    "hybrid_override_pattern": "MEME*-",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "layer_norm_epsilon": 1e-5,
    "mlp_hidden_act": "relu2",
    "mamba_hidden_act": "silu",
    "mamba_num_heads": 4,
    "mamba_head_dim": 20,
    "n_groups": 2,
    "ssm_state_size": 12,
    "conv_kernel": 4,
    "use_conv_bias": True,
    "use_bias": False,
    "time_step_min": 1e-9,
    "time_step_limit": [0.0, float("inf")],
    "attention_bias": False,
    "mlp_bias": True,
    "tie_word_embeddings": False,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 28,
    "n_shared_experts": 1,
    "moe_shared_expert_intermediate_size": 36,
    "n_group": 2,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    groups = fields.raw("num_query_groups")
    if groups is not None and groups != (kv_heads := fields.integer("num_key_value_heads", 1, MAX_HEADS)):  # said twice
        fields.unsupported("num_query_groups", groups, f"it must be num_key_value_heads={kv_heads}")
    return BlockSettings(mixers=parse_mixers(fields))


_KEYS = MambaKeys(
    "mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel", "use_conv_bias", "use_bias"
)
_DEFAULTS = MambaSettings((), 128, 64, 8, 128, 4, True, False)


def _mamba(fields: Fields) -> MambaSettings | None:
    return parse_mamba(fields, _KEYS, tuple(mixer == "state" for mixer in parse_mixers(fields)), _DEFAULTS)


CONFIG = ConfigRules(
    keys=keys("mlp_bias"),
    names={"rms_norm_eps": "layer_norm_epsilon", "hidden_act": "mlp_hidden_act"},
    defaults={
        "topk_group": 1,
        "layer_norm_epsilon": 1e-5,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 21504,
        "max_position_embeddings": 4096,
    },
    head_dim=128,
    activation="relu2",
    experts="nemotron_h",
    blocks=_blocks,
    mamba=_mamba,
    has_rope=False,
    # the other names of numbers that these files say more than once, or that nothing else is computed for
    built_in={
        "attention_head_dim": 128,
        "rms_norm_eps": 1e-5,
        "norm_eps": 1e-5,
        "mamba_hidden_act": "silu",
        "mamba_ssm_cache_dtype": "float32",
        "n_shared_experts": 1,
    },
    # of training, of how others run it, of rotations that there are none of, and of layers that guess further tokens
    ignorable=keys(
        "time_step_min time_step_max time_step_floor time_step_rank rescale_prenorm_residual residual_in_fp32",
        "chunk_size expand num_logits_to_keep use_mamba_kernels moe_shared_expert_overlap auto_map",
        "rope_theta num_nextn_predict_layers mtp_layers_block_type mtp_hybrid_override_pattern",
    ),
    class_names=("NemotronHForCausalLM",),
)
_ENDS = Ends("backbone.embeddings.weight", "backbone.norm_f", "lm_head")
_NAMES = Names("mixer", "", "up_proj", "down_proj", shared="shared_experts")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, rope = GraphBuilder(), no_rotation(config)
    x = embedding(b, config, _ENDS)
    for layer, mixer in enumerate(config.blocks.mixers):
        part = {"ffn": "mlp", "experts": "moe"}.get(mixer, "attn")
        name = f"backbone.layers.{layer}"
        with b.part(f"layers.{layer}.{part}"):
            h = norm(b, config, x, f"{name}.norm.weight", "norm")
            if mixer == "experts":
                x = _with_experts(b, config, x, h, f"{name}.mixer")
                continue
            if mixer == "state":
                y = mamba_mixer(b, config, h, f"{name}.mixer")
            elif mixer == "attention":
                y = _attention(b, config, h, f"{name}.mixer", config.cached_layers.index(layer), rope)
            else:
                y = _ffn(b, config, h, f"{name}.mixer", config.intermediate_size)
            with b.part("out"):
                x = b.add(x, y)
    return head(b, config, x, _ENDS)


def _attention(b: GraphBuilder, c: ModelConfig, h: Value, name: str, cache: int, rope: RopeSpec) -> Value:
    parts = queries_keys_values(b, c, h, name, bias=False)
    return linear(b, c, attention(b, c, parts, cache, rope, None), f"{name}.o_proj", c.hidden_size, "o", False, "row")


def _ffn(b: GraphBuilder, c: ModelConfig, h: Value, name: str, width: int) -> Value:
    return plain_mlp(b, c, h, name, width, bias=c.mlp_bias, up=_NAMES.up, down=_NAMES.down)


def _with_experts(b: GraphBuilder, c: ModelConfig, x: Value, h: Value, name: str) -> Value:
    """x + the weighed sum of what a token's experts make of h, or of fewer channels of it, + the shared expert's."""
    settings = c.experts
    assert settings is not None, "there are layers of experts"
    ids, weights = route(b, c, h, name, _NAMES)
    rows = h
    if settings.latent:
        rows = linear(b, c, h, f"{name}.fc1_latent_proj", settings.latent, "to_latent", c.mlp_bias, None)
        with b.part("to_latent"):
            rows = b.cast(rows, c.dtype)
    pairs = experts(b, c, rows, ids, f"{name}.experts", _NAMES)
    with b.part("combine"):
        y = b.combine(pairs, weights)
        if settings.latent:
            y = b.cast(y, c.dtype)
    if settings.latent:
        y = linear(b, c, y, f"{name}.fc2_latent_proj", c.hidden_size, "from_latent", c.mlp_bias, None)
    with b.part("combine"):
        x = b.add(x, y)
    with b.part("shared"):
        return b.add(x, _ffn(b, c, h, f"{name}.{_NAMES.shared}", settings.shared_width))
