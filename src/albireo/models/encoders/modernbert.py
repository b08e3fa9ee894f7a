"""ModernBERT: norms of what is read, rotations, a gate in the FFN, and in two of three layers a window of both
sides.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states, unrounded_norm
from albireo.models.blocks.modernbert_layers import modernbert_states
from albireo.models.blocks.vocabulary_head import VocabularyHead, vocabulary_numbers
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.class_sizes import sizes
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, classifier

TINY = {
    "architectures": ["ModernBertModel"],
    "model_type": "modernbert",
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "max_position_embeddings": 128,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "global_attn_every_n_layers": 3,
    "local_attention": 24,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "torch_dtype": "float32",
}
VOCABULARY = VocabularyHead(
    "head.dense", "head.norm", "decoder.bias", "embeddings.tok_embeddings.weight", "gelu", has_dense_bias=False
)
IGNORABLE_WEIGHTS = ("head.*", "decoder.*", "classifier.*")


def _blocks(fields: Fields) -> BlockSettings:
    bias = fields.flag("attention_bias", False)
    return BlockSettings(
        is_layer_norm=True,
        has_norm_bias=fields.flag("norm_bias", False),
        qkv_bias=bias,
        o_bias=bias,
        ffn_bias=fields.flag("mlp_bias", False),
        sees_both_ways=True,
    )


def _head(fields: Fields) -> tuple[HeadStep, ...]:
    """What a classifier has behind a hidden state, of a text or of a token."""
    eps = fields.number("norm_eps", 1e-30, 1.0, default=1e-5)
    return HeadStep("head.dense", "gelu"), HeadStep("head.norm", eps=eps), HeadStep("classifier")


def _pooled(fields: Fields, name: str) -> PoolingRule:
    kind, act = fields.text("classifier_pooling", "cls"), fields.text("classifier_activation", "gelu")
    if name != "ModernBertForSequenceClassification":
        return PoolingRule(pooling_type="cls")
    if kind not in ("cls", "mean"):
        fields.fail("classifier_pooling", kind, "must be cls or mean")
    if act != "gelu":
        fields.unsupported("classifier_activation", act, "supported: gelu")
    return classifier(fields, "cls" if kind == "cls" else "mean", _head(fields))


CONFIG = ConfigRules(
    names={"rms_norm_eps": "norm_eps", "rope_theta": "global_rope_theta", "rope_local_base_freq": "local_rope_theta"},
    blocks=_blocks,
    pooled=_pooled,
    has_vocabulary=True,
    token_head=_head,
    windows="both_sides",
    has_local_rope=True,
    activation="exact_gate",
    defaults=sizes(
        768, 1152, 22, 12, vocab_size=50368, max_position_embeddings=8192, norm_eps=1e-5, global_rope_theta=160000.0
    ),
    ignorable=keys(
        "initializer_cutoff_factor embedding_dropout mlp_dropout classifier_dropout classifier_bias decoder_bias",
        "deterministic_flash_attn sparse_prediction sparse_pred_ignore_index reference_compile repad_logits_with_grad",
        "layer_norm_eps position_embedding_type",
    ),
    class_names=("ModernBertModel", "ModernBertForSequenceClassification", "ModernBertForMaskedLM"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    with b.part("embed"):
        table = b.weight("embeddings.tok_embeddings.weight", (c.vocab_size, c.hidden_size), c.dtype)
        x = b.embed(b.token_ids, table)
    x = modernbert_states(b, c, max_model_len, x, "", "Wqkv")
    with b.part("head"):
        x = unrounded_norm(b, c, x, "final_norm.weight")
    if c.pooling is not None and c.pooling.vocabulary:
        x = vocabulary_numbers(b, c, x, VOCABULARY)
    return pooled_states(b, x)
