"""What a masked language model has behind its layers: of each token a number for every entry of the vocabulary.

Called by the architecture files of encoders, for those whose embeddings are such numbers (SPLADE). A linear, its
activation and a norm, then the table of embeddings as the last linear.
"""

from __future__ import annotations

from typing import NamedTuple

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.models.blocks.layers import linear, norm
from albireo.models.config import ModelConfig


class VocabularyHead(NamedTuple):
    """What a checkpoint calls its parts. act: of the first linear; empty: the model's."""

    dense: str
    norm: str
    bias: str
    table: str = "embeddings.word_embeddings.weight"
    act: str = ""
    has_dense_bias: bool = True


def vocabulary_numbers(b: GraphBuilder, c: ModelConfig, x: Value, head: VocabularyHead) -> Value:
    """[T, V] float32. Args: x: [T, E] what the last layer gave."""
    with b.part("head"):
        y = linear(b, c, b.cast(x, c.dtype), head.dense, c.hidden_size, "dense", head.has_dense_bias, None)
        with b.part("dense"):
            y = b.unary(y, head.act or c.hidden_act)
        y = norm(b, c, y, f"{head.norm}.weight", "dense_norm")
        with b.part("logits"):
            table = b.weight(head.table, (c.vocab_size, c.hidden_size), c.dtype)
            return b.linear(y, table, b.weight(head.bias, (c.vocab_size,), "float32"), role="vocab")
