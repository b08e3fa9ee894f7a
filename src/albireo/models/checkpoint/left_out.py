"""Tensors that checkpoints may hold and graphs do not read, whatever the architecture.

Called by opening.py, and by whoever has a graph in place of a checkpoint. Does not know architectures.
"""

from __future__ import annotations

from albireo.graph.node import Graph
from albireo.models.config import ModelConfig

#: Tensors some checkpoints carry that are computed from config.json instead, or that guess tokens behind the next; and
#: masks of causal attention.
IGNORABLE_WEIGHTS = (
    "*.rotary_emb.inv_freq",
    "model.mtp_*",
    "mtp.*",
    # of GGUF files of EmbeddingGemma, what is behind pooling
    "dense_2.weight",
    "dense_3.weight",
    *(
        f"{attention}.{mask}"
        for attention in ("transformer.h.*.attn", "*.attention")
        for mask in ("bias", "masked_bias", "causal_mask")
    ),
)
#: A tied checkpoint may hold the head a second time: table -> head.
TIED_WEIGHTS = {
    "model.embed_tokens.weight": "lm_head.weight",
    "model.decoder.embed_tokens.weight": "lm_head.weight",
    "transformer.wte.weight": "lm_head.weight",
    "transformer.word_embeddings.weight": "lm_head.weight",
    "transformer.tokens_embed.weight": "lm_head.weight",
    "gpt_neox.embed_in.weight": "embed_out.weight",
    "backbone.embeddings.weight": "lm_head.weight",
    "biogpt.embed_tokens.weight": "output_projection.weight",
    "model.embeddings.tok_embeddings.weight": "decoder.weight",
}


def is_tied(graph: Graph, config: ModelConfig) -> bool:
    """Whether a model's head is its embeddings, of a graph that was built with the weights: it may read a head although
    config.json, which has no weights beside it, implies that there is none."""
    constants = (value.constant for value in graph.constants.values())
    sources = {segment.source for constant in constants if constant is not None for segment in constant.segments}
    return config.tie_word_embeddings and not sources & set(TIED_WEIGHTS.values())
