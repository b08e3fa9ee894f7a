"""JetMoE: queries, and what becomes of what attention gives, are experts' too: a token's experts each have a query of
every KV head. A bias behind both blocks.

A token's experts are told apart by their rank: combine takes those of one rank where its weights are ones and zeros. So
each rank is an attention of its own over the same cache, with a query to each KV head.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import Names, route
from albireo.models.blocks.head_rows import RowsOf
from albireo.models.blocks.layers import attention, embedding, head, linear, norm
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEADS
from albireo.models.settings.block_settings import BlockSettings

#: Five experts of 40 channels, three a token, each with a query of two KV heads.
TINY = {
    "architectures": ["JetMoeForCausalLM"],
    "model_type": "jetmoe",
    "vocab_size": 127,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "kv_channels": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "activation_function": "silu",
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "num_local_experts": 5,
    "num_experts_per_tok": 3,
    "output_router_logits": False,
    "aux_loss_coef": 0.01,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
#: Of the norms of layers, whatever rms_norm_eps says, which is of the last norm.
_EPS = 1e-6


def _blocks(fields: Fields) -> BlockSettings:
    heads, kv = (fields.integer(f"num_{of}_heads", 1, MAX_HEADS) for of in ("attention", "key_value"))
    chosen = fields.integer("num_experts_per_tok", 1, MAX_HEADS)
    if heads != kv * chosen:
        fields.fail("num_attention_heads", heads, f"must be {kv} of each of the {chosen} experts of a token")
    return BlockSettings()


CONFIG = ConfigRules(
    experts="mixtral",
    head_dim=128,
    blocks=_blocks,
    names={"hidden_act": "activation_function", "head_dim": "kv_channels"},
    defaults={"num_experts_per_tok": 2, "tie_word_embeddings": True, "max_position_embeddings": 4096},
    ignorable=keys("aux_loss_coef"),
)
_QUERIES = Names("self_attention.experts", "", "q_proj", "o_proj", router="router.layer")
_FFN = Names(router="router.layer")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b = GraphBuilder()
    # of one rank of a token's experts
    c, rope = replace(config, num_heads=config.num_kv_heads, rms_norm_eps=_EPS), rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        name = f"model.layers.{layer}"
        x = _attention(b, c, x, layer, rope)
        with b.part(f"layers.{layer}.moe"):
            h = norm(b, c, x, f"{name}.post_attention_layernorm.weight", "norm")
            ids, weights = route(b, c, h, f"{name}.{_FFN.block}", _FFN)
            with b.part("experts"):
                block, width = f"{name}.mlp.experts", config.intermediate_size
                gate, up = (_of_experts(b, c, h, ids, f"{block}.{p}_proj", width, "ffn") for p in ("gate", "up"))
                with b.part("act"):
                    m = b.cast(b.mul(b.unary(gate, c.hidden_act), up), c.dtype)
                pairs = _of_experts(b, c, m, ids, f"{block}.down_proj", c.hidden_size, "row", f"{name}.mlp.bias")
            with b.part("combine"):
                x = b.add(x, b.combine(pairs, weights))
    return head(b, config, x)


def _attention(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, rope: RopeSpec) -> Value:
    """x + what a token's experts make of attention to norm(x), of one layer, [T, E] float32."""
    name, width = f"model.layers.{layer}", c.num_heads * c.head_dim
    block = f"{name}.self_attention.experts"
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"{name}.input_layernorm.weight", "norm")
        parts = {}
        for place, p in enumerate("kv"):
            rows = RowsOf(f"{name}.self_attention.kv_proj", ((place * width, (place + 1) * width),))
            parts[p] = linear(b, c, h, f"{name}.self_attention.{p}_proj", width, p, False, None, rows)
        ids, weights = route(b, c, h, block, _QUERIES)
        queries = _of_experts(b, c, h, ids, f"{block}.q_proj", width, None)
        for rank, (one, weight) in enumerate(_by_rank(b, weights)):
            with b.part("q"):
                parts["q"] = b.combine(queries, one)
            a = attention(b, c, parts if rank == 0 else {"q": parts["q"]}, layer, rope, None)
            pairs = _of_experts(b, c, a, ids, f"{block}.o_proj", c.hidden_size, None, f"{block}.bias")
            with b.part("o"):
                x = b.add(x, b.combine(pairs, weight))
    return x


def _by_rank(b: GraphBuilder, weights: Value) -> list[tuple[Value, Value]]:
    """Of each rank among a token's experts 1 where the others are 0, and its weight likewise; both [T, k] float32."""
    with b.part("ranks"):
        each = b.split(weights, (1,) * int(weights.type.dims[1]))
        zero = b.scale(each[0], 0.0)
        one = b.scale(b.unary(zero, "sigmoid"), 2.0)
        k = len(each)
        return [(_alone(b, one, rank, k, zero), _alone(b, w, rank, k, zero)) for rank, w in enumerate(each)]


def _alone(b: GraphBuilder, value: Value, place: int, count: int, zero: Value) -> Value:
    found = value if place == 0 else zero
    for other in range(1, count):
        found = b.join_heads(found, value if other == place else zero, 1)
    return found


def _of_experts(
    b: GraphBuilder,
    c: ModelConfig,
    x: Value,
    ids: Value,
    matrix: str,
    rows: int,
    role: str | None,
    bias: str | None = None,
) -> Value:
    """[P, rows] float32. Args: bias: one vector for all experts: weights of a token add up to 1."""
    assert c.experts is not None
    (block, _, called), count, columns = matrix.rpartition("."), c.experts.count, x.type.dims[-1]
    assert isinstance(columns, int)
    with b.part(called.removesuffix("_proj")):
        sources = tuple(f"{block}.{i}.{called}.weight" for i in range(count))
        weight = b.experts(sources, f"{matrix}.weight", (rows, columns), c.dtype)
        added = None if bias is None else b.experts((bias,) * count, f"{matrix}.bias", (rows,), "float32")
        return b.expert_linear(x, ids, weight, count, role, added)
