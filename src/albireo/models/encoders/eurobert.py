"""EuroBERT: llama whose tokens see what comes behind them, too."""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.layers import attention_block, embedding, linear, pooled_states, unrounded_norm
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.class_sizes import sizes
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, classifier

TINY = {
    "architectures": ["EuroBertModel"],
    "model_type": "eurobert",
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 250000.0},
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "mask_token_id": 3,
    "torch_dtype": "float32",
}
IGNORABLE_WEIGHTS = ("lm_head.*", "dense.*", "classifier.*")
_DENSE, _SCORES = HeadStep("dense", "gelu"), HeadStep("classifier")


def _pooled(fields: Fields, name: str) -> PoolingRule:
    """Late: what a classifier makes of each token is pooled; its last linear is behind the mean, which is the same."""
    kind = fields.text("classifier_pooling", "late")
    if name != "EuroBertForSequenceClassification":
        return PoolingRule(pooling_type="cls")
    if kind not in ("bos", "mean", "late"):
        fields.fail("classifier_pooling", kind, "must be bos, mean or late")
    steps = (_SCORES,) if kind == "late" else (_DENSE, _SCORES)
    return classifier(fields, "cls" if kind == "bos" else "mean", steps)


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias"}),
    blocks=BlockSettings(sees_both_ways=True),
    pooled=_pooled,
    older_names={"clf_pooling": "classifier_pooling"},
    defaults=sizes(768, 3072, 12, 12, vocab_size=128256, max_position_embeddings=8192, rms_norm_eps=1e-5),
    # code of the directory, which is never run; and tokens by their texts, as the tokenizer has them
    ignorable=keys("auto_map bos_token eos_token pad_token mask_token"),
    class_names=("EuroBertModel", "EuroBertForSequenceClassification", "EuroBertForMaskedLM"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    rope = rope_spec(c, max_model_len)
    x = embedding(b, c)
    for layer in range(c.num_layers):
        x = attention_block(b, c, x, layer, rope)
        x = mlp_block(b, c, x, layer)
    with b.part("head"):
        x = unrounded_norm(b, c, x, "model.norm.weight")
        if c.pooling is not None and c.pooling.pooling_type != "all" and c.pooling.head == (_SCORES,):
            y = linear(b, c, b.cast(x, c.dtype), _DENSE.name, c.hidden_size, "dense", True, None)
            x = b.unary(y, "gelu")
    return pooled_states(b, x)
