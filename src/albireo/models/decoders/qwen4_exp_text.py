"""Qwen 4 (experimental), text: residual streams that blocks read through gates of channels; the gated delta rule in
three layers of four, in the fourth attention to positions that are chosen several together; experts of Qwen 3.5.
"""

from __future__ import annotations

from functools import partial

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.op_numbers import MAX_STREAMS
from albireo.json_file import Fields, keys
from albireo.models.blocks.entry_indexer import EntryIndexer, parse_entries
from albireo.models.blocks.experts import QWEN, mixture
from albireo.models.blocks.gated_delta import gated_delta
from albireo.models.blocks.hyper_connections import gated_mean, streams_of, through
from albireo.models.blocks.layers import attended, embedding, ending, head_weight
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEAD_DIM, MAX_WIDTH
from albireo.models.decoders.qwen3_5_text import GUESSING
from albireo.models.settings.block_settings import BlockSettings, Hyper
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.multipliers import Multipliers
from albireo.models.settings.recurrent_settings import parse_recurrent
from albireo.models.settings.tiny import TINY_LLAMA

_STATE, _CHOOSING = "linear_attention", "indexed_attention"
#: Three streams; heads of 16 of which a quarter turns; four positions have one key.
TINY = TINY_LLAMA | {
    "architectures": ["Qwen4ExpForCausalLM"],
    "model_type": "qwen4_exp_text",
    "vocab_size": 133,
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "layer_types": [_STATE, _CHOOSING, _STATE],
    "linear_conv_kernel_dim": 3,
    "linear_key_head_dim": 16,
    "linear_num_key_heads": 3,
    "linear_num_value_heads": 3,
    "linear_value_head_dim": 24,
    "output_gate_type": "sigmoid",
    "indexer_n_heads": 24,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 12,
    "indexer_budget": 12,
    "indexer_compress_ratio": 4,
    "hc_count": 3,
    "hc_lowrank": 10,
    "ple_layer_ids": [],
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 28,
    "shared_expert_intermediate_size": 36,
    "norm_topk_prob": True,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value; UnsupportedModel for embeddings of several tokens."""
    if fields.raw("ple_layer_ids") not in (None, []):
        what = "embeddings of several tokens together, of which layers have some, are not computed"
        fields.unsupported("ple_layer_ids", fields.raw("ple_layer_ids"), what)
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    states = parse_recurrent(fields, "qwen4", layers, fields.integer("hidden_size", 1, MAX_WIDTH))
    own = tuple(not state for state in (states.layers if states is not None else ()))
    ropes = fields.table("rope_parameters") or {}
    part = Fields(ropes, f"{fields.where}: rope_parameters").number("partial_rotary_factor", 0.0, 1.0, default=1.0)
    part = fields.number("partial_rotary_factor", 0.0, 1.0, default=part)
    rotary = int(fields.integer("head_dim", 2, MAX_HEAD_DIM, default=256) * part)
    return BlockSettings(
        has_output_gate=True,
        index=parse_entries(fields, own, rotary) if any(own) else None,
        hyper=Hyper(
            fields.integer("hc_count", 2, MAX_STREAMS, default=4),
            2.0,
            0.0,
            rank=fields.integer("hc_lowrank", 1, MAX_WIDTH, default=320),
        ),
    )


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "partial_rotary_factor"}),
    head_dim=256,
    experts="qwen3_5",
    built_in={
        "norm_topk_prob": True,
        "attn_output_gate": True,
        "mamba_ssm_dtype": "float32",
        "number_of_conv_states": 1,
    },
    defaults={
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
    },
    multipliers=Multipliers(norm_plus=1.0),
    blocks=_blocks,
    recurrent="qwen4",
    # of embeddings that no layer has
    ignorable=GUESSING
    | keys(
        "ple_embed_dim ple_conv_kernel_size ngram_size heads_per_ngram ngram_vocab_size_base seed split_ngram_parts",
        "make_ngram_vocab_size_divisible_by",
    ),
    class_names=("Qwen4ExpForCausalLM",),
    # nothing has this width: every layer has experts
    ffn_factor=1,
)
#: What chooses among more positions than a sequence has is not read; towers lie beside text.
IGNORABLE_WEIGHTS = ("model.layers.*.self_attn.indexer.*", "model.visual.*")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c, rope = GraphBuilder(), config, rope_spec(config, max_model_len)
    choose = EntryIndexer(b, c, rope).choose if c.blocks.index is not None else None

    def attention(layer: int, x: Value) -> Value:
        h = b.cast(x, c.dtype)
        if layer not in c.cached_layers:
            return gated_delta(b, c, h, layer)
        return attended(b, c, h, layer, rope, qk_norm=True, choose=choose)

    def experts(layer: int, x: Value) -> Value:
        return mixture(b, c, b.cast(x, c.dtype), f"model.layers.{layer}.mlp", QWEN)

    streams = streams_of(b, c, embedding(b, c))
    for layer in range(c.num_layers):
        name = f"model.layers.{layer}"
        with b.part(f"layers.{layer}.attn"):
            streams = through(b, c, streams, f"{name}.attn_hyper_connection", partial(attention, layer))
        with b.part(f"layers.{layer}.moe"):
            streams = through(b, c, streams, f"{name}.mlp_hyper_connection", partial(experts, layer))
    x = gated_mean(b, c, streams, "model.hyper_connection_mixer")
    with b.part("head.norm"):
        y = b.cast(x, c.dtype)
    return ending(b, c, y, head_weight(b, c))
