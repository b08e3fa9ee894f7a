"""Mistral Large 4, text: latent attention of which positions are chosen; queries that grow with the position by numbers
of each head, frequencies that weights say; layers that do not rotate, and layers that read the latents of another.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.blocks.indexer import EPS, Indexer, indexed_blocks
from albireo.models.blocks.latent_attention import UNREAD, latent_attention
from albireo.models.blocks.layers import embedding, head, unrounded_norm
from albireo.models.blocks.rope import latent_rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS, parse_rotates
from albireo.models.settings.tiny import TINY_LLAMA

#: Of five layers two do not rotate; the last two read what others wrote, one chooses for itself all the same.
TINY = TINY_LLAMA | {
    "architectures": ["MistralLarge4ForCausalLM"],
    "model_type": "mistral_large4_text",
    "vocab_size": 131,
    "hidden_size": 40,
    "intermediate_size": 60,
    "num_hidden_layers": 5,
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "head_dim": 8,
    "no_rope_layers": [1, 1, 0, 1, 0],
    "kv_source_layers": [0, 1, 2, 1, 2],
    "indexer_types": ["full", "full", "shared", "full", "shared"],
    "index_topk": 12,
    "index_n_heads": 24,
    "index_head_dim": 12,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "attention_factor": 1.0,
    },
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.5,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse", "sparse"],
    "final_logit_softcapping": 5.0,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value; UnsupportedModel for queries of a latent."""
    if fields.raw("q_lora_rank") is not None:
        fields.unsupported("q_lora_rank", fields.raw("q_lora_rank"), "queries are made of the residual stream")
    if not fields.flag("norm_topk_prob", True):
        fields.unsupported("norm_topk_prob", False, "weights of a token's experts are divided by their sum")
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    blocks = indexed_blocks(fields, shares=True, heads=32, has_pairs_side_by_side=True, grows=True)
    assert blocks.latent is not None
    latent = replace(blocks.latent, eps=fields.number("rms_norm_eps", 1e-30, 1.0), grows=True)
    if latent.plain % 2:
        fields.fail("qk_nope_head_dim", latent.plain, "must be even")
    rotates = parse_rotates(fields, layers)
    return replace(
        blocks,
        latent=latent,
        still_latent=replace(latent, rotary=0, plain=latent.plain + latent.rotary),
        cache_sources=_sources(fields, rotates),
    )


def _sources(fields: Fields, rotates: tuple[bool, ...]) -> tuple[int, ...]:
    """Of each layer, whose latents it reads: of the same kind, which another layer did not leave there."""
    said, layers = fields.raw("kv_source_layers"), len(rotates)
    if said is None:
        return tuple(range(layers))
    if not isinstance(said, list) or len(said) != layers or any(type(each) is not int for each in said):
        fields.fail("kv_source_layers", said, f"must be a list of layers, one for each of {layers}")
    for layer, source in enumerate(said):
        if not 0 <= source <= layer or said[source] != source:
            fields.fail("kv_source_layers", said, f"must say of layer {layer} itself, or one before it that says so")
        if rotates[source] != rotates[layer]:
            fields.fail("kv_source_layers", said, f"must not say {source} of layer {layer}: one of them alone rotates")
        # of each kind the last that others share is what they share
        between = [
            i for i in set(said) - {layer} if source < i < layer and said.count(i) > 1 and rotates[i] == rotates[layer]
        ]
        if source != layer and between:
            what = f"must say {max(between)} of layer {layer}, the last of its kind that others share"
            fields.fail("kv_source_layers", said, what)
    return tuple(said)


CONFIG = ConfigRules(
    keys=keys("attention_bias final_logit_softcapping log_factors"),
    blocks=_blocks,
    experts="mistral4",
    windows="seeing_all",
    has_layers_without_rope=True,
    has_pairs_side_by_side=True,
    class_names=("MistralLarge4ForCausalLM", "MistralLarge4TextForCausalLM"),
    older_names={"num_experts": "n_routed_experts", "num_local_experts": "n_routed_experts"},
    deciding=frozenset({"num_experts", "num_local_experts"}),
    frequencies="model.rotary_emb.alpha",
    defaults={
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 1048576,
        "final_logit_softcapping": 30.0,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 2048.0,
            "original_max_position_embeddings": 512,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "attention_factor": 1.0,
        },
        "n_routed_experts": 128,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 6144,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    },
    built_in={"rope_interleave": True, "indexer_rope_interleave": True, "scoring_func": "softmax"},
    ignorable=UNREAD,
)
#: What chooses among more positions than a sequence has; what is read with config.json, see opening.py; what guesses.
IGNORABLE_WEIGHTS = ("model.layers.*.self_attn.indexer.*", CONFIG.frequencies, "mtp_dspark.*")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    rope = latent_rope_spec(c, max_model_len)
    indexer = Indexer(b, c, rope)
    x = embedding(b, c)
    for layer in range(c.num_layers):
        name = f"model.layers.{layer}"
        with b.part(f"layers.{layer}.attn"):
            with b.part("norm"):
                whole = unrounded_norm(b, c, x, f"{name}.input_layernorm.weight")
                h = b.cast(whole, c.dtype)

            def choose(h: Value, _: Value, layer: int, whole: Value = whole) -> Value | None:
                return indexer.choose(h, _source_of_choice(b, c, whole, layer) or h, layer)

            cache, writes = c.cache_of(layer), not c.shares(layer)
            o = latent_attention(b, c.of_layer(layer), h, layer, rope, cache=cache, choose=choose, writes=writes)
            with b.part("o"):
                x = b.add(x, o)
        x = moe_block(b, c, x, layer, DEEPSEEK)
    return head(b, c, x)


def _source_of_choice(b: GraphBuilder, c: ModelConfig, whole: Value, layer: int) -> Value | None:
    """What queries are made of that choose positions: a norm of what attention reads; None: the layer chooses none."""
    index, name = c.blocks.index, f"model.layers.{layer}.self_attn.indexer.q_input_norm"
    if index is None or not index.own[layer] or c.max_position_embeddings <= index.count:
        return None
    with b.part("indexer"), b.part("q_norm"):
        weight, bias = (b.weight(f"{name}.{each}", (c.hidden_size,), "float32") for each in ("weight", "bias"))
        return b.cast(b.layer_norm(whole, weight, bias, EPS), c.dtype)
