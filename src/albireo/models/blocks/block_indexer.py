"""What chooses blocks of positions that attention sees (MiniMax M3): of each KV head one narrow head of queries, which
meets one key of every position; a block is worth its best score, and the last blocks are always seen.

Called by the architecture files. What config.json says of it, and the graph of it. Which channels are rotated, and in
which order they are taken, is as in head_rows.py.
"""

from __future__ import annotations

from albireo.errors import UnsupportedModel
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

_SPARSE = "minimax_m3_sparse"
_KINDS = ("full_attention", _SPARSE)
#: What config.json has in a table of its own -> what newer ones have beside it.
TABLE = "sparse_attention_config"
OLDER_NAMES = {
    "sparse_num_index_heads": "index_n_heads",
    "sparse_index_dim": "index_head_dim",
    "sparse_block_size": "index_block_size",
    "sparse_topk_blocks": "index_topk_blocks",
    "sparse_local_block": "index_local_blocks",
}
_LAYERS = "sparse_attention_freq"
#: Of each layer whether what chooses has no values of its own; 0: they would be added to what attention gives.
_NO_VALUES = "sparse_disable_index_value"


def parse_blocks(fields: Fields, layers: int, kv_heads: int) -> Index | None:
    """What config.json says of it; None: no layer chooses.

    Raises: ModelError for an impossible value; UnsupportedModel for heads that are not those of keys and values, or
        where a row may not see its own block.
    """
    heads = fields.integer("index_n_heads", 1, MAX_HEADS, default=4)
    block = fields.integer("index_block_size", 1, MAX_POSITIONS, default=128)
    blocks = fields.integer("index_topk_blocks", 1, MAX_POSITIONS // block, default=16)
    nearest = fields.integer("index_local_blocks", 0, blocks, default=1)
    head_dim = fields.integer("index_head_dim", 2, MAX_HEAD_DIM, default=128)
    own = _own_layers(fields, layers)
    no_values = fields.raw(_NO_VALUES)
    if not any(own):
        return None
    if no_values is not None and (
        not isinstance(no_values, list)
        or len(no_values) != layers
        or any(chooses and said != 1 for chooses, said in zip(own, no_values, strict=True))
    ):
        fields.unsupported(_NO_VALUES, no_values, f"what chooses has no values: 1 where it is, of {layers} layers")
    if heads != kv_heads:
        fields.unsupported("index_n_heads", heads, f"one of each of {kv_heads} KV heads")
    if nearest < 1:
        fields.unsupported("index_local_blocks", nearest, "a row sees its own block: at least 1")
    if head_dim % 2:
        fields.fail("index_head_dim", head_dim, "must be even, for rotary pairs")
    return Index(heads, head_dim, block * blocks, own, block=block, nearest=nearest)


def _own_layers(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Of each layer whether it chooses: by words, or by ones and zeros; where nothing is said none does."""
    kinds, said = fields.texts("layer_types"), fields.raw(_LAYERS)
    if kinds:
        if not set(kinds) <= set(_KINDS) or len(kinds) != layers:
            fields.unsupported("layer_types", list(kinds), f"{' or '.join(_KINDS)} for each of {layers} layers")
        return tuple(kind == _SPARSE for kind in kinds)
    if said is None:
        return (False,) * layers
    if not isinstance(said, list) or len(said) != layers or any(each not in (0, 1) for each in said):
        fields.fail(_LAYERS, said, f"must be 0 or 1 for each of {layers} layers")
    return tuple(bool(each) for each in said)


class BlockIndexer:
    """The choices of one graph's layers. Keys lie in KV caches behind those of all layers, without values."""

    def __init__(self, b: GraphBuilder, c: ModelConfig, rope: RopeSpec) -> None:
        """Args: rope: of attention's heads. Raises: UnsupportedModel for heads narrower than what is rotated."""
        self._b, self._c, self._index, self._rotary = b, c, c.blocks.index, c.rotary_dim
        if self._index is not None and self._index.head_dim < self._rotary:
            raise UnsupportedModel(
                f"index_head_dim={self._index.head_dim} is not supported; at least the {self._rotary} channels of a "
                "head that are rotated"
            )
        half = self._rotary // 2
        still = 0 if self._index is None else (self._index.head_dim - self._rotary) // 2
        self._rope = RopeSpec((*rope.inv_freq[:half], *(0.0,) * still), rope.attention_factor)

    def choose(self, h: Value, layer: int) -> Value | None:
        """Positions that rows of a layer see, [T, KV heads * count] int32; None: they see all.

        Args: h: what attention reads.
        """
        b, c, index = self._b, self._c, self._index
        if index is None or not index.own[layer] or c.max_position_embeddings <= index.count:
            return None
        name, cache = f"model.layers.{layer}.self_attn", c.num_layers + sum(index.own[:layer])
        with b.part("indexer"):
            q, k = (self._heads(h, f"{name}.index_{p}", p, n) for p, n in (("q", index.num_heads), ("k", 1)))
            with b.part("kv"):
                b.kv_write(k, None, cache, 1, index.head_dim)
            with b.part("choice"):
                return b.choose_keys(
                    b.cast(q, c.dtype),
                    None,
                    layer=cache,
                    num_heads=index.num_heads,
                    head_dim=index.head_dim,
                    count=index.count,
                    block=index.block,
                    nearest=index.nearest,
                )

    def _heads(self, h: Value, name: str, part: str, count: int) -> Value:
        """Normed and rotated, [T, count * D] float32. Args: name: of the linear and the norm, but for their ends."""
        b, c, index = self._b, self._c, self._index
        assert index is not None
        heads = (paired_rows(head * index.head_dim, self._rotary, index.head_dim) for head in range(count))
        rows = RowsOf(f"{name}_proj", tuple(each for head in heads for each in head))
        x = linear(b, c, h, f"{name}_proj", count * index.head_dim, part, False, None, rows)
        of_norm = RowsOf(f"{name}_norm", tuple(paired_rows(0, self._rotary, index.head_dim))).segments("weight")
        with b.part(f"{part}_norm"):
            weight = b.weight(
                f"{name}_norm.weight", (index.head_dim,), "float32", segments=of_norm, plus=c.multipliers.norm_plus
            )
            x = b.rms_norm(x, weight, c.rms_norm_eps, num_heads=count)
        with b.part("rope"):
            return b.rope(x, self._rope, count, index.head_dim)
