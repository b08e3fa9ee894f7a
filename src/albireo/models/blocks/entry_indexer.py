"""What chooses positions that attention sees several together, where attention keeps keys and values (Qwen 4): narrow
heads of queries meet one key of every so many positions, the mean of what these give.

Called by the architecture files. What config.json says of it, and the graph of it. Which channels are rotated, and in
which order they are taken, is as in head_rows.py.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields
from albireo.models.blocks.head_rows import RowsOf, paired_rows
from albireo.models.blocks.layers import linear
from albireo.models.config import ModelConfig
from albireo.models.config_keys import MAX_HEAD_DIM, MAX_HEADS
from albireo.models.settings.block_settings import Index
from albireo.models.settings.rope_settings import MAX_POSITIONS


def parse_entries(fields: Fields, own: tuple[bool, ...], rotary: int) -> Index:
    """What config.json says of it. Args: own: of each layer whether it chooses. rotary: channels that are rotated.

    Raises: ModelError for a missing or impossible value; UnsupportedModel for several keys of an entry, and for entries
        of other than a power of two of positions.
    """
    heads, dim = fields.integer("indexer_n_heads", 1, MAX_HEADS), fields.integer("indexer_head_dim", 2, MAX_HEAD_DIM)
    if (keys := fields.integer("indexer_kv_heads", 1, MAX_HEADS)) != 1:
        fields.unsupported("indexer_kv_heads", keys, "one key for all heads")
    if dim < rotary or dim % 2:
        fields.fail("indexer_head_dim", dim, f"must be even, and at least the {rotary} channels that are rotated")
    every, count = (fields.integer(f"indexer_{key}", 1, MAX_POSITIONS) for key in ("compress_ratio", "budget"))
    if every < 2 or every & (every - 1):
        fields.unsupported("indexer_compress_ratio", every, "an entry is of a power of two of positions, at least two")
    if count % every:
        fields.fail("indexer_budget", count, f"must be a multiple of indexer_compress_ratio={every}")
    return Index(heads, dim, count + every - 1, own, every=every)


class EntryIndexer:
    """The choices of one graph's layers. Keys lie in KV caches behind those of all layers, without values."""

    def __init__(self, b: GraphBuilder, c: ModelConfig, rope: RopeSpec) -> None:
        """Args: rope: of attention's heads."""
        assert c.blocks.index is not None, "the architecture's rules read it"
        self._b, self._c, self._index, self._rotary = b, c, c.blocks.index, c.rotary_dim
        still = (self._index.head_dim - self._rotary) // 2
        self._rope = RopeSpec((*rope.inv_freq[: self._rotary // 2], *(0.0,) * still), rope.attention_factor)

    def choose(self, h: Value, layer: int) -> Value | None:
        """Positions that rows of a layer see, [T, count] int32; None: they see all. Args: h: what attention reads."""
        b, c, index, dim = self._b, self._c, self._index, self._index.head_dim
        if not c.is_choosing:
            return None
        name, cache = f"model.layers.{layer}.self_attn.indexer", len(c.cached_layers) + sum(index.own[:layer])
        with b.part("indexer"):
            q = self._linear(h, name, "q", range(index.num_heads))
            q = self._normed(q, f"{name}.q_layernorm", "q_norm", index.num_heads)
            with b.part("rope"):
                q = b.cast(b.rope(q, self._rope, index.num_heads, dim), c.dtype)
            k = self._linear(h, name, "k", range(index.num_heads, index.num_heads + 1))
            with b.part("pool"):
                k = b.pool_rows(k, None, index.every)
            k = self._normed(k, f"{name}.k_layernorm", "k_norm", 1)
            with b.part("rope"):  # as the first of its positions
                k = b.rope(k, replace(self._rope, behind=index.every - 1), 1, dim)
            with b.part("kv"):
                b.kv_write(k, None, cache, 1, dim, index.every)
            with b.part("choice"):
                return b.choose_keys(
                    q,
                    None,
                    layer=cache,
                    num_heads=index.num_heads,
                    head_dim=dim,
                    count=index.count,
                    every=index.every,
                    as_positions=True,
                )

    def _linear(self, h: Value, name: str, part: str, heads: range) -> Value:
        """Of heads, whose rows lie in one tensor: queries, then the key."""
        dim, module = self._index.head_dim, f"{name}.index_qk_proj"
        ranges = tuple(each for head in heads for each in paired_rows(head * dim, self._rotary, dim))
        return linear(
            self._b, self._c, h, f"{module}.{part}", len(heads) * dim, part, False, None, RowsOf(module, ranges)
        )

    def _normed(self, x: Value, module: str, part: str, heads: int) -> Value:
        b, c, dim = self._b, self._c, self._index.head_dim
        rows = RowsOf(module, tuple(paired_rows(0, self._rotary, dim))).segments("weight")
        with b.part(part):
            weight = b.weight(f"{module}.weight", (dim,), "float32", segments=rows, plus=c.multipliers.norm_plus)
            return b.rms_norm(x, weight, c.rms_norm_eps, num_heads=heads)
