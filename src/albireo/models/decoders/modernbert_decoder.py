"""ModernBERT that writes text (Ettin's decoders): its layers, seeing what is before a token alone; a linear and a norm
behind the last one, and a head with a bias.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends, ending, head_weight, linear, norm, pooled_states, unrounded_norm
from albireo.models.blocks.modernbert_layers import modernbert_states
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS, layer_kinds
from albireo.models.settings.rope_settings import MAX_POSITIONS

#: Two of four layers have a window of 13, half of what is said.
TINY = {
    "architectures": ["ModernBertDecoderForCausalLM"],
    "model_type": "modernbert-decoder",
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "max_position_embeddings": 128,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "global_attn_every_n_layers": 3,
    "local_attention": 26,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "decoder_bias": True,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
_KINDS = ("full_attention", "sliding_attention")


def _blocks(fields: Fields) -> BlockSettings:
    classes, bias = fields.texts("architectures"), fields.flag("attention_bias", False)
    if any(name.endswith(("ForSequenceClassification", "ForTokenClassification")) for name in classes):
        fields.unsupported("architectures", list(classes), "a model_type modernbert-decoder writes text, or embeds")
    return BlockSettings(
        is_layer_norm=True,
        has_norm_bias=fields.flag("norm_bias", False),
        has_head_bias=fields.flag("decoder_bias", True),
        qkv_bias=bias,
        o_bias=bias,
        ffn_bias=fields.flag("mlp_bias", False),
        layer_windows=_windows(fields),
    )


def _windows(fields: Fields) -> tuple[int | None, ...]:
    """Of local_attention a token sees the half that is before it, itself included."""
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    window = fields.integer("local_attention", 2, MAX_POSITIONS, default=128) // 2
    said = fields.raw("sliding_window")
    if said not in (None, window):
        fields.fail("sliding_window", said, f"must be half of local_attention: {window}")
    period = fields.integer("global_attn_every_n_layers", 1, MAX_LAYERS, default=3)
    kinds = layer_kinds(fields, layers, _KINDS) or tuple(_KINDS[bool(i % period)] for i in range(layers))
    return tuple(window if kind == _KINDS[1] else None for kind in kinds)


CONFIG = ConfigRules(
    names={"rms_norm_eps": "norm_eps", "rope_theta": "global_rope_theta", "rope_local_base_freq": "local_rope_theta"},
    blocks=_blocks,
    windows="read_elsewhere",
    has_local_rope=True,
    activation="exact_gate",
    defaults={
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "vocab_size": 50368,
        "max_position_embeddings": 8192,
        "norm_eps": 1e-5,
        "global_rope_theta": 160000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 50281,
        "eos_token_id": 50282,
    },
    built_in={"classifier_activation": "gelu", "causal_mask": True},
    ignorable=keys(
        "initializer_cutoff_factor embedding_dropout mlp_dropout classifier_dropout classifier_pooling",
        "deterministic_flash_attn sparse_prediction sparse_pred_ignore_index reference_compile repad_logits_with_grad",
        "layer_norm_eps position_embedding_type",
    ),
    class_names=("ModernBertDecoderForCausalLM",),
)
_ENDS = Ends("model.embeddings.tok_embeddings.weight", "model.final_norm", "decoder")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    with b.part("embed"):
        table = b.weight(_ENDS.table, (c.vocab_size, c.hidden_size), c.dtype)
        x = b.embed(b.token_ids, table)
    x = modernbert_states(b, c, max_model_len, x, "model.", None)
    with b.part("head"):
        if c.pooling is not None:
            return pooled_states(b, unrounded_norm(b, c, x, f"{_ENDS.norm}.weight"))
        h = norm(b, c, x, f"{_ENDS.norm}.weight", "norm")
        y = linear(b, c, h, "lm_head.dense", c.hidden_size, "dense", False, None)
        with b.part("dense"):
            y = b.unary(y, "gelu")
        y = norm(b, c, y, "lm_head.norm.weight", "dense_norm")
        weight = head_weight(b, c, _ENDS)
        bias = b.weight(f"{_ENDS.head}.bias", (c.vocab_size,), "float32") if c.blocks.has_head_bias else None
    return ending(b, c, y, weight, bias)
