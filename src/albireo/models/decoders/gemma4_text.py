"""Gemma 4, text only: Gemma 3 whose layers without a window have fewer and wider heads, whose values may be keys, a
factor on the residual stream behind each layer; maybe experts beside its FFN, or an embedding of each layer and last
layers that read the keys and values of earlier ones.
"""

from __future__ import annotations

from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields
from albireo.models.blocks.experts import Names, experts, route
from albireo.models.blocks.feed_forward import AROUND_FFN, gated_mlp, mlp_block
from albireo.models.blocks.layer_inputs import given_to_layers, made_of_given
from albireo.models.blocks.layers import AROUND_ATTENTION, attention_block, embedding, head, norm, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEAD_DIM, MAX_HEADS, MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS, parse_sharing
from albireo.models.settings.multipliers import Multipliers
from albireo.speculative_config import MAX_VOCAB

#: Layers with a window have two KV heads of 16, the others one of 32, of which a quarter turns.
TINY = {
    "architectures": ["Gemma4ForCausalLM"],
    "model_type": "gemma4_text",
    "vocab_size": 139,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 32,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "sliding_window": 21,
    "final_logit_softcapping": 2.5,
    "bos_token_id": 2,
    "eos_token_id": [1, 106],
    "torch_dtype": "float32",
}
#: Layers from one without a window to the next, where layer_types does not say.
_PERIOD = 6
_SLIDING = "sliding_attention"
#: Of the table of embeddings of each layer, where it is not said.
_ENTRIES = 262144
_BEHIND = "post_feedforward_layernorm"
#: Experts and their router lie in the layer itself.
_EXPERTS = Names("", "gate_proj", "up_proj", "down_proj", router="router.proj", gain="router.per_expert_scale")


def _blocks(fields: Fields) -> BlockSettings:
    """Heads of layers without a window. Raises: ModelError for a bad value; UnsupportedModel."""
    width = fields.integer("hidden_size_per_layer_input", 0, MAX_WIDTH, default=256)
    entries = fields.integer("vocab_size_per_layer_input", 1, MAX_VOCAB, default=_ENTRIES)
    if width and entries != fields.integer("vocab_size", 1, MAX_VOCAB):
        fields.unsupported(
            "vocab_size_per_layer_input", entries, "must be vocab_size: each token has such an embedding"
        )
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    kinds = fields.texts("layer_types")
    kinds = kinds or tuple(_SLIDING if (i + 1) % _PERIOD else "full_attention" for i in range(layers))
    if kinds[-1] == _SLIDING:
        fields.unsupported("layer_types", list(kinds), "the last layer must be one of full_attention")
    shares = fields.flag("attention_k_eq_v", False)
    given = fields.raw("per_layer_config")
    if given is None:
        heads = fields.optional_integer("num_global_key_value_heads", 1, MAX_HEADS)
        # transformers reads it only then
        kv_heads, head_dim = heads if shares else None, fields.integer("global_head_dim", 2, MAX_HEAD_DIM, default=512)
    else:
        kv_heads, head_dim = _of_full_layers(fields, given, kinds)
    num_heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    if num_heads % (kv_heads or 1):
        fields.fail("num_attention_heads", num_heads, f"must be a multiple of the {kv_heads} KV heads without a window")
    if head_dim % 2:
        fields.fail("global_head_dim", head_dim, "must be even, for rotary pairs")
    return BlockSettings(
        full_num_kv_heads=kv_heads,
        full_head_dim=head_dim,
        full_values_are_keys=shares,
        layer_width=width,
        num_sharing=parse_sharing(fields, kinds),
        is_wide_where_sharing=fields.flag("use_double_wide_mlp", False),
    )


def _of_full_layers(fields: Fields, given: Any, kinds: tuple[str, ...]) -> tuple[int | None, int]:
    """KV heads and head_dim as newer transformers writes them: for each layer without a window by its number."""
    wanted = {str(layer) for layer, kind in enumerate(kinds) if kind != _SLIDING}
    if not isinstance(given, dict) or given.keys() != wanted:
        fields.fail("per_layer_config", given, "must have an entry for each layer of full_attention, and no other")
    first = given[min(wanted, key=int)]
    if not isinstance(first, dict) or any(each != first for each in given.values()):
        fields.unsupported("per_layer_config", given, "layers of full_attention must be alike")
    inner = Fields(first, f"{fields.where}: per_layer_config")
    found = inner.optional_integer("num_key_value_heads", 1, MAX_HEADS), inner.integer("head_dim", 2, MAX_HEAD_DIM)
    inner.refuse_unread((), {})
    return found


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "final_logit_softcapping"}),
    windows="periodic",
    period=_PERIOD,
    default_window=512,
    head_dim=256,
    # of the text alone: tokens of an image see each other, in layers with a window
    built_in={"use_bidirectional_attention": "vision"},
    defaults={
        "vocab_size": _ENTRIES,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    activation="gelu_said",
    experts="gemma4",
    multipliers=Multipliers(embedding=None, attention=1.0),
    has_local_rope=True,
    blocks=_blocks,
    ignorable=frozenset({"num_experts", "top_k_experts", "moe_intermediate_size"}),
    class_names=("Gemma4ForCausalLM",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, full = GraphBuilder(), config.without_windows
    local_rope, full_rope = rope_spec(config, max_model_len, is_local=True), rope_spec(full, max_model_len)
    x = embedding(b, config)
    given = given_to_layers(b, config, x)
    for layer, window in enumerate(windows(config, max_model_len)):
        is_local = config.windows[layer] is not None
        x = attention_block(
            b,
            config if is_local else full,
            x,
            layer,
            local_rope if is_local else full_rope,
            window=window,
            qk_norm=True,
            v_norm=True,
            linears=_linears(config, layer, is_local),
            norms=AROUND_ATTENTION,
            is_causal=not is_local,
        )
        if config.experts is None:
            x = mlp_block(b, config, x, layer, norms=AROUND_FFN)
        else:
            x = _mlp_and_experts(b, config, x, layer)
        if given:
            x = _with_given(b, config, x, given[layer], layer)
        x = scaled(b, x, layer)
    return head(b, config, x)


def _linears(c: ModelConfig, layer: int, is_local: bool) -> str:
    """See attention_block()."""
    if c.shares(layer):
        return "q"
    return "qk" if c.blocks.full_values_are_keys and not is_local else "qkv"


def _with_given(b: GraphBuilder, c: ModelConfig, x: Value, given: Value, layer: int) -> Value:
    with b.part(f"layers.{layer}.given"):
        return b.add(x, made_of_given(b, c, x, given, layer))


def _mlp_and_experts(b: GraphBuilder, c: ModelConfig, x: Value, layer: int) -> Value:
    """x + norm(norm(FFN(norm(x))) + norm(experts(norm(x)))); each norm has a weight of its own, the router's too."""
    name = f"model.layers.{layer}"
    with b.part(f"layers.{layer}.mlp"):
        h = norm(b, c, x, f"{name}.pre_feedforward_layernorm.weight", "norm")
        of_all = _normed(b, c, gated_mlp(b, c, h, f"{name}.mlp", c.ffn_width(layer)), f"{name}.{_BEHIND}_1")
    with b.part(f"layers.{layer}.moe"):
        # what lies there multiplies rows of length 1, not of length sqrt(E)
        judged = norm(b, c, x, f"{name}.router.scale", "judged", c.hidden_size**-0.5)
        ids, weights = route(b, c, judged, name, _EXPERTS)
        h = norm(b, c, x, f"{name}.pre_feedforward_layernorm_2.weight", "norm")
        pairs = experts(b, c, h, ids, f"{name}.experts", _EXPERTS)
        with b.part("combine"):
            of_some = b.combine(pairs, weights)
        of_some = _normed(b, c, of_some, f"{name}.{_BEHIND}_2")
        with b.part("sum"):
            both = b.add(of_all, of_some)
        with b.part("behind"):
            return b.add(x, _normed(b, c, both, f"{name}.{_BEHIND}"))


def _normed(b: GraphBuilder, c: ModelConfig, x: Value, module: str) -> Value:
    """float32, as what is added next."""
    with b.part("out"):
        return b.rms_norm(x, b.weight(f"{module}.weight", (c.hidden_size,), "float32"), c.rms_norm_eps)


def scaled(b: GraphBuilder, x: Value, layer: int) -> Value:
    """The residual stream times the number that the layer ends with."""
    with b.part(f"layers.{layer}.scalar"):
        return b.scale_by(x, b.weight(f"model.layers.{layer}.layer_scalar", (1,), "float32"))
