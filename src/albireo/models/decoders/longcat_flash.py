"""LongCat-Flash: layers in pairs, each of latent attention and an FFN; experts read what the first one's FFN reads, and
are added behind the second. Some experts give back what they read.

Source: Meituan 2025, LongCat-Flash Technical Report, section 2.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import Names, experts, route
from albireo.models.blocks.feed_forward import gated_mlp
from albireo.models.blocks.latent_attention import UNREAD, LatentNames, latent_attention, latent_blocks
from albireo.models.blocks.layers import embedding, head, norm, unrounded_norm
from albireo.models.blocks.rope import latent_rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS

#: Layers of one that is told in files.
_PAIR = 2
#: Two pairs; of fifteen experts that are chosen among five give back what they read.
TINY = {
    "architectures": ["LongcatFlashForCausalLM"],
    "model_type": "longcat_flash",
    "vocab_size": 131,
    "hidden_size": 40,
    "ffn_hidden_size": 60,
    "expert_ffn_hidden_size": 36,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 20,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
    "rope_theta": 10000000.0,
    "n_routed_experts": 10,
    "zero_expert_num": 5,
    "zero_expert_type": "identity",
    "moe_topk": 4,
    "routed_scaling_factor": 6.0,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value."""
    told = fields.optional_integer("num_hidden_layers", _PAIR, MAX_LAYERS)
    pairs = fields.integer("num_layers", 1, MAX_LAYERS // _PAIR, default=(told or 2 * 28) // _PAIR)
    if told not in (None, _PAIR * pairs):
        fields.fail("num_hidden_layers", told, f"must be {_PAIR} for each of num_layers={pairs}")
    blocks = latent_blocks(fields)
    assert blocks.latent is not None
    if blocks.latent.query_rank is None:
        fields.fail("q_lora_rank", None, "must be given: what queries are made of is as long as the residual stream")
    width, whole = fields.raw("qk_head_dim"), blocks.latent.plain + blocks.latent.rotary
    if width not in (None, whole):
        fields.fail("qk_head_dim", width, f"must be {whole}, what qk_nope_head_dim and qk_rope_head_dim are together")
    return replace(blocks, num_layers=_PAIR * pairs, latent=replace(blocks.latent, is_lengthened=True))


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    blocks=_blocks,
    experts="longcat",
    has_pairs_side_by_side=True,
    older_names={
        "ffn_hidden_size": "intermediate_size",
        "expert_ffn_hidden_size": "moe_intermediate_size",
        "moe_topk": "num_experts_per_tok",
        "num_local_experts": "n_routed_experts",
    },
    deciding=frozenset({"num_local_experts"}),
    defaults={
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000000.0,
        "max_position_embeddings": 131072,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    },
    built_in={
        "attention_method": "MLA",
        "mla_scale_q_lora": True,
        "mla_scale_kv_lora": True,
        "norm_topk_prob": False,
        "router_bias": False,
    },
    ignorable=UNREAD | keys("router_dtype"),
)
#: Layers that guess further tokens; gates and ups of experts that give back what they read, as transformers has them.
IGNORABLE_WEIGHTS = ("model.mtp.*", *(f"model.layers.*.mlp.experts.*.{each}_proj.weight" for each in ("gate", "up")))
_EXPERTS = Names(router="router.classifier", bias="router.e_score_correction_bias")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    rope = latent_rope_spec(c, max_model_len)
    x = embedding(b, c)
    beside: Value | None = None
    for layer in range(c.num_layers):
        x = _attention(b, c, x, layer, rope)
        pair, place = divmod(layer, _PAIR)
        name = f"model.layers.{pair}"
        behind = f"{name}.post_attention_layernorm.{place}.weight"
        if place == 0:
            beside = _mixture(b, c, x, layer, f"{name}.mlp", behind)
        with b.part(f"layers.{layer}.mlp"):
            h = norm(b, c, x, behind, "norm")
            x = b.add(x, gated_mlp(b, c, h, f"{name}.mlps.{place}", c.intermediate_size))
        if place == _PAIR - 1 and beside is not None:
            with b.part(f"layers.{layer}.mlp"), b.part("beside"):
                x = b.add(x, beside)
    return head(b, c, x)


def _attention(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, rope: RopeSpec) -> Value:
    """x + attention(norm(x))."""
    pair, place = divmod(layer, _PAIR)
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"model.layers.{pair}.input_layernorm.{place}.weight", "norm")
        o = latent_attention(b, c, h, pair, rope, cache=layer, names=LatentNames(f"self_attn.{place}"))
        with b.part("o"):
            return b.add(x, o)


def _mixture(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, name: str, before: str) -> Value:
    """What a token's experts make of norm(x), those that give it back too, [T, E] float32."""
    assert c.experts is not None
    with b.part(f"layers.{layer}.moe"):
        with b.part("norm"):
            whole = unrounded_norm(b, c, x, before)
            h = b.cast(whole, c.dtype)
        ids, weights = route(b, c, h, name, _EXPERTS)
        pairs = experts(b, c, h, ids, f"{name}.experts", _EXPERTS)
        with b.part("combine"):
            back = b.given_back(whole, weights, ids, c.experts.count)
            return b.add(back, b.combine(pairs, weights))
