"""Mixture of experts as config.json says it: how many experts, how many a token has, which layers have them.

Called by config.py. Does not know weights or graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from albireo.graph.ops import MAX_CHOSEN
from albireo.json_file import Fields

MAX_EXPERTS = 2**12
_MAX_WIDTH = 2**20

#: Whose keys: mixtral's (every layer has experts of intermediate_size, weights are renormalized), olmoe's (the same,
#: but for whether they are), or those of Qwen's models, with a shared expert or without.
Keys = Literal["none", "mixtral", "olmoe", "qwen", "qwen_shared"]


@dataclass(frozen=True, slots=True)
class ExpertSettings:
    """The experts of a model.

    Fields:
        count: of one layer; top_k: of one token; width: channels of one.
        renormalize: weights of a token's experts are divided by their sum.
        shared_width: channels of an expert that every token has, gated by a sigmoid; 0: there is none.
        layers: of each layer, whether it has experts; the others have an ordinary MLP.
    """

    count: int
    top_k: int
    width: int
    renormalize: bool
    shared_width: int
    layers: tuple[bool, ...]


def parse_experts(fields: Fields, keys: Keys, layers: int, width: int) -> ExpertSettings | None:
    """Args: width: intermediate_size. Returns: None for an architecture without experts.

    Raises: ModelError for a missing or impossible value; UnsupportedModel for a model without a layer that has experts.
    """
    if keys == "none":
        return None
    count_key = "num_local_experts"
    if keys != "mixtral" and fields.has("num_experts"):  # transformers writes either name
        count_key = "num_experts"
    count = fields.integer(count_key, 1, MAX_EXPERTS)
    top_k = fields.integer("num_experts_per_tok", 1, min(count, MAX_CHOSEN))
    if keys in ("mixtral", "olmoe"):
        renormalize = keys == "mixtral" or fields.flag("norm_topk_prob", False)
        return ExpertSettings(count, top_k, width, renormalize, 0, (True,) * layers)
    settings = ExpertSettings(
        count,
        top_k,
        fields.integer("moe_intermediate_size", 1, _MAX_WIDTH),
        fields.flag("norm_topk_prob", False),
        fields.integer("shared_expert_intermediate_size", 1, _MAX_WIDTH) if keys == "qwen_shared" else 0,
        _sparse_layers(fields, layers),
    )
    if not any(settings.layers):
        fields.unsupported(
            "mlp_only_layers", fields.raw("mlp_only_layers"), "no layer has experts; give the dense architecture's name"
        )
    return settings


def _sparse_layers(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Every decoder_sparse_step-th layer but those of mlp_only_layers."""
    step = fields.integer("decoder_sparse_step", 1, 2**20, default=1)
    dense = fields.raw("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(type(i) is int and 0 <= i < layers for i in dense):
        fields.fail("mlp_only_layers", dense, f"must be a list of layers, from 0 to {layers - 1}")
    return tuple(i not in dense and (i + 1) % step == 0 for i in range(layers))
