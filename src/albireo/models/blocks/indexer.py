"""What chooses the positions that attention sees (DeepSeek sparse attention): a few narrow heads of queries score every
position by a key of its own, and the best so many are seen.

Called by the architecture files. What config.json says of it, and the graph of it; which channels are rotated is as in
head_rows.py. Several positions may have one key (GLM-5.3), and are then chosen together. Source: DeepSeek-AI 2025,
DeepSeek-V3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import RowSegment, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields
from albireo.models.blocks.head_rows import RowsOf
from albireo.models.blocks.latent_attention import growth_of_heads, latent_blocks
from albireo.models.blocks.layers import linear
from albireo.models.config import ModelConfig
from albireo.models.config_keys import MAX_HEAD_DIM, MAX_HEADS
from albireo.models.settings.block_settings import BlockSettings, Index
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.rope_settings import MAX_POSITIONS

#: Under the root by which keys are normed, unless a model says otherwise.
EPS = 1e-6
_FULL, _SHARED = "full", "shared"


def indexed_blocks(
    fields: Fields, *, shares: bool = False, heads: int = 64, turns: bool = True, **rules: Any
) -> BlockSettings:
    """Latent attention of which an indexer chooses the positions.

    Args:
        shares: layers may see what a layer before them has chosen.
        heads: where config.json does not say how many the indexer has.
        turns: see latent_blocks().
        rules: fields of Index that differ.
    Raises: ModelError for a missing or impossible value.
    """
    blocks = latent_blocks(fields, turns=turns)
    assert blocks.latent is not None
    if blocks.latent.query_rank is None and not rules.get("grows"):
        fields.fail("q_lora_rank", None, "must be given: queries of the indexer are made of the latent of queries")
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    index = Index(
        fields.integer("index_n_heads", 1, MAX_HEADS, default=heads),
        fields.integer("index_head_dim", max(blocks.latent.rotary, 2), MAX_HEAD_DIM, default=128),
        fields.integer("index_topk", 1, MAX_POSITIONS, default=2048),
        own=_own_layers(fields, layers) if shares else (True,) * layers,
        **rules,
    )
    if index.head_dim % 2:
        fields.fail("index_head_dim", index.head_dim, "must be even, for rotary pairs")
    return replace(blocks, index=index)


def _own_layers(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Of each layer whether it chooses for itself: words, or a letter each, or each so many-th from an offset on."""
    pattern = fields.raw("index_topk_pattern")
    spelled = {"F": _FULL, "S": _SHARED}
    words = tuple(spelled.get(letter, letter) for letter in pattern) if isinstance(pattern, str) else ()
    if pattern is not None and not isinstance(pattern, str):
        words = fields.texts("index_topk_pattern")
    every = max(1, fields.integer("index_topk_freq", 0, MAX_LAYERS, default=1))
    offset = fields.integer("index_skip_topk_offset", 0, MAX_LAYERS, default=2)
    stepped = tuple(_SHARED if max(layer - offset + 1, 0) % every else _FULL for layer in range(layers))
    kinds = fields.texts("indexer_types") or words or stepped
    if not set(kinds) <= {_FULL, _SHARED} or len(kinds) != layers or kinds[0] != _FULL:
        wanted = f"must say {_FULL} or {_SHARED} of each of {layers} layers, and {_FULL} of the first"
        fields.fail("indexer_types", list(kinds), wanted)
    return tuple(kind == _FULL for kind in kinds)


class Indexer:
    """The choices of one graph's layers, made as the layers come.

    Keys lie in KV caches behind those of all layers, one for each layer that chooses for itself.
    """

    def __init__(self, b: GraphBuilder, c: ModelConfig, rope: RopeSpec | None) -> None:
        """Args: rope: of the channels that are rotated; None: there are none."""
        assert c.blocks.index is not None and c.blocks.latent is not None, "the architecture's rules read them"
        self._b, self._c, self._index, self._rotary = b, c, c.blocks.index, c.blocks.latent.rotary
        still = (self._index.head_dim - self._rotary) // 2
        self._rope = None if rope is None else RopeSpec((*rope.inv_freq, *(0.0,) * still), rope.attention_factor)
        self._still = None if rope is None else RopeSpec((0.0,) * (self._index.head_dim // 2))
        self._chosen: Value | None = None

    def choose(self, h: Value, low: Value, layer: int) -> Value | None:
        """Positions that rows of a layer see, [T, count] int32; None: no sequence has more.

        Args: h: what attention reads. low: the latent of its queries.
        """
        index = self._index
        if self._c.max_position_embeddings <= index.count:
            return None
        if index.own[layer]:
            self._chosen = self._choice(h, low, layer)
        return self._chosen

    def _choice(self, h: Value, low: Value, layer: int) -> Value:
        b, c, index = self._b, self._c, self._index
        name, cache = f"model.layers.{layer}.self_attn.indexer", len(c.cached_layers) + sum(index.own[:layer])
        rope = self._rope if c.rotates[layer] else self._still
        heads = [head * index.head_dim for head in range(index.num_heads)]
        with b.part("indexer"):
            q = linear(
                b,
                c,
                low,
                f"{name}.wq_b",
                len(heads) * index.head_dim,
                "q",
                False,
                None,
                self._rows(name, "wq_b", heads),
            )
            k = linear(b, c, h, f"{name}.wk", index.head_dim, "k", False, None, self._rows(name, "wk", [0]))
            with b.part("k_norm"):
                k = b.layer_norm(k, self._of_norm(name, "weight"), self._of_norm(name, "bias"), index.eps)
            grown = growth_of_heads(b, name, index.num_heads) if index.grows else None
            with b.part("rope"):
                q = q if rope is None else b.rope(q, rope, index.num_heads, index.head_dim, grown)
                q = b.cast(q, c.dtype)
                k = k if rope is None or not c.rotates[layer] else b.rope(k, rope, 1, index.head_dim)
            k = k if index.every == 1 else self._pooled(h, k, name)
            with b.part("kv"):
                b.kv_write(k, None, cache, 1, index.head_dim, index.every)
            weights = linear(b, c, h, f"{name}.weights_proj", index.num_heads, "weights", False, "router")
            with b.part("choice"):
                return b.choose_keys(
                    q,
                    b.scale(weights, (index.num_heads * index.head_dim) ** -0.5),
                    layer=cache,
                    num_heads=index.num_heads,
                    head_dim=index.head_dim,
                    count=index.count,
                    **({"every": index.every, "as_positions": True} if index.every > 1 else {}),
                )

    def _pooled(self, h: Value, k: Value, name: str) -> Value:
        """Keys of several positions: their mean, channel by channel, by a softmax of what a linear of h gives and of
        numbers of each place."""
        b, c, width, every = self._b, self._c, self._index.head_dim, self._index.every
        with b.part("pool"):
            matrix, places = f"{name}.index_kpool_compress_gate", f"{name}.index_kpool_compress_ape"
            segments = (RowSegment(matrix, 0, width),)
            weight = b.weight(f"{matrix}.weight", (width, c.hidden_size), c.dtype, segments=segments)
            gates = b.linear(h, weight, role="router")
            return b.pool_rows(k, (gates, b.weight(places, (every, width), "float32")), every)

    def _rows(self, name: str, module: str, starts: list[int]) -> RowsOf:
        return RowsOf(f"{name}.{module}", tuple(piece for start in starts for piece in self._paired(start)))

    def _of_norm(self, name: str, kind: str) -> Value:
        rows, width = self._rows(name, "k_norm", [0]), self._index.head_dim
        return self._b.weight(f"{name}.k_norm.{kind}", (width,), "float32", segments=rows.segments(kind))

    def _paired(self, start: int) -> Iterator[tuple[int, int]]:
        """The rows of a head that begin at start, in pairs (i, i + D/2): those that are rotated before the others."""
        index, half = self._index, self._rotary // 2
        still = (index.head_dim - self._rotary) // 2
        turning = start if index.rotates_first else start + 2 * still
        staying = start + self._rotary if index.rotates_first else start
        for side in range(2):
            if not half:
                pass
            elif index.has_pairs_side_by_side:
                yield from ((row, row + 1) for row in range(turning + side, turning + self._rotary, 2))
            else:
                yield turning + side * half, turning + (side + 1) * half
            if still:
                yield staying + side * still, staying + (side + 1) * still
