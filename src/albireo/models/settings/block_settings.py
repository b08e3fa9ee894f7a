"""What a config.json says of a layer's parts: which norm, which biases, whether attention and FFN read the same norm.

Made by architecture files for config.py, read by blocks/plain_layers.py. Does not know graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from albireo.json_file import Fields
from albireo.models.settings.layer_kinds import Mixer
from albireo.models.settings.layer_parts import LayerPart
from albireo.models.settings.rope_settings import RopeSettings

#: Where rows of q, k and v lie: in tensors of their own; of each group of heads that share a key and a value (its
#: queries, its key, its value), group by group, in one; or of each quarter of the heads (all queries, values, keys); or
#: keys and values in one, head by head, beside queries.
Joined = Literal["no", "by_group", "by_quarter", "keys_values"]
QUARTERS = 4


@dataclass(frozen=True, slots=True)
class Skip:
    """Fields: source: the layer whose input a layer reads beside its own. part: of it in what is read."""

    source: int
    layer: int
    part: float


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention: what a position leaves in the cache is one vector for all heads.

    Fields:
        rank: channels of it that keys and values of all heads are made of. rotary: channels behind them that are
            rotated, and are a part of every head's key.
        plain: channels of a head's key that are not rotated. value: channels of a head's value.
        query_rank: channels that queries are made of; None: those of the residual stream.
        gates_with_queries: the matrix of queries gives a gate of each channel of a head's value, too, behind the head's
            query, and reads the latent once more as it was before its norm.
        eps: under the root by which latents are normed. is_lengthened: they are made as long as the residual stream.
        norms_key: channels of keys that are rotated are normed before.
        grows: queries of each head are multiplied by a number that grows with the logarithm of the position, as two
            numbers of the head say.
        scales_with_context: where yarn stretches the context, mscale_all_dim multiplies scores, too.
    """

    rank: int
    rotary: int
    plain: int
    value: int
    query_rank: int | None
    gates_with_queries: bool = False
    eps: float = 1e-6
    is_lengthened: bool = False
    norms_key: bool = False
    grows: bool = False
    scales_with_context: bool = True


@dataclass(frozen=True, slots=True)
class Index:
    """What chooses the positions that rows of attention see.

    Fields:
        num_heads, head_dim: of what scores positions. count: that a row sees.
        own: of each layer whether it chooses for itself; else it sees what the layer before it does.
        has_pairs_side_by_side: pairs that are rotated are neighbours. rotates_first: they come before what is not.
        eps: under the root by which keys are normed.
        block: so many positions are chosen together, by each KV head for itself; 0: each by itself, for all heads.
            nearest: so many last blocks are always seen.
        grows: see Latent. Its queries are made of a norm of what attention reads, then, not of a latent.
        every: so many positions have one key and are chosen together, and behind them those that have none yet are
            always seen, see indexer.py; count is of both. 1: each has its own.
    """

    num_heads: int
    head_dim: int
    count: int
    own: tuple[bool, ...]
    has_pairs_side_by_side: bool = False
    rotates_first: bool = True
    eps: float = 1e-6
    block: int = 0
    nearest: int = 0
    grows: bool = False
    every: int = 1


@dataclass(frozen=True, slots=True)
class ByDistance:
    """Scores of attention that also have products of a query, and of a key, with vectors of their distance (DeBERTa).

    Fields:
        num_columns: of these vectors, see graph/distance_columns.py. reach: distances that are told from farther ones.
    """

    num_columns: int
    reach: int


@dataclass(frozen=True, slots=True)
class Streams:
    """Several residual streams, of which a layer computes the first and guesses the others (AltUp).

    Fields:
        count: of streams. rank: channels of what a layer adds beside attention (LAuReL).
        cuts: of each layer's FFN, how many standard deviations above its mean a gate must be to count; None: it counts
            as it is.
    """

    count: int
    rank: int
    cuts: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Hyper:
    """Several residual streams, of which a block reads a sum, and to each of which what it makes is added; see
    hyper_connections.py.

    Fields:
        count: of streams. magnitude: on the sigmoids by which a block's result is added. least: that is added to all
            sigmoids.
        rounds: streams are mixed by matrices that so many rounds make such that rows and columns add up to one; least
            is then added to the sigmoids by which a block reads, and in rounds. Matrices that numbers come of stay
            float32. 0: each stream stays as it is.
        rank: what a block reads is a mean of streams, each normed by itself and times a gate of each channel, which are
            made of so many channels. 0: it is a sum of streams times numbers.
    """

    count: int
    magnitude: float
    least: float
    rounds: int = 0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Pooled:
    """Attention to a window of positions and to entries of several positions behind it (DeepSeek V4); see
    pooled_attention.py.

    Fields:
        every: of each layer, how many positions have one entry; 0: it sees its window alone. overlaps: of each layer,
            whether entries are made of the positions of the one before, too, and are chosen.
        index_heads, index_dim: of what scores entries. count: of chosen ones.
        rotary: last channels of a head that are rotated. query_rank: channels that queries are made of.
        groups, out_rank: heads are so many groups, of each of which so many channels are made.
        ropes: of layers without entries, and of those with them.
    """

    every: tuple[int, ...]
    overlaps: tuple[bool, ...]
    index_heads: int
    index_dim: int
    count: int
    rotary: int
    query_rank: int
    groups: int
    out_rank: int
    ropes: tuple[RopeSettings, RopeSettings]

    def chooses(self, layer: int, positions: int) -> bool:
        """Whether entries of a layer are chosen in sequences of so many positions, which may have more than enough."""
        return self.overlaps[layer] and positions // self.every[layer] > self.count


@dataclass(frozen=True, slots=True)
class Sphere:
    """States of one length, and layers that are gone through several times (Dory).

    Fields:
        order: of each layer, its number in the file. first: layers before those that are gone through several times.
        again: how many of those there are; 0: none.
        stored: what learned numbers begin at in the file. rate: what they stand for then, of how near a state comes.
    """

    order: tuple[int, ...]
    first: int
    again: int
    stored: float
    rate: float

    def begins_loop(self, layer: int) -> bool:
        """Whether a layer is the first of those, the first time or once more."""
        return self.again > 0 and self.order[layer] == self.first


@dataclass(frozen=True, slots=True)
class Stacks:
    """Two stacks of layers that are gone through in turn (HRM-Text).

    Fields:
        size: layers of each. slow, fast: times that the one is gone through, and the other before each of these.
    """

    size: int
    slow: int
    fast: int

    @property
    def num_layers(self) -> int:
        """Times that a layer is gone through, of either."""
        return self.size * self.slow * (self.fast + 1)


@dataclass(frozen=True, slots=True)
class SharedBlocks:
    """Attention and an FFN that several layers have in turn, beside a state of their own (Zamba 2).

    Fields:
        layers: which layers have them. count: of different ones, in turn.
        rank: of what each of these layers adds to the linears that they share: of the FFN, and where adapts_attention
            says so of queries, keys and values.
    """

    layers: tuple[int, ...]
    count: int
    rank: int
    adapts_attention: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSettings:
    """The blocks of llama, unless an architecture says otherwise.

    Fields:
        is_layer_norm: norms subtract the mean. has_norm_weight, has_norm_bias: what such norms have.
        qkv_bias, o_bias, ffn_bias: of the linears. down_bias: of an FFN's last alone.
        is_parallel: attention and FFN read the same residual stream, and both are added to it.
        has_ffn_norm: the FFN has a norm of its own; else it reads what attention reads.
        has_head_bias: of what gives logits, where a key says so.
        has_qk_norm: a norm of each head of q and k, where a key says so. has_norm_behind: norms of what blocks add,
            likewise.
        joined: where rows of q, k and v lie.
        has_output_gate: what attention gives is multiplied by sigmoids, of as many channels of q_proj, behind those of
            each head's query.
        gates_heads: a gate of what attention gives that is a linear of its own has one number for each head, not for
            each channel. gate_kind: what is made of such a gate, one of op_numbers.GATES.
        num_layers, num_kv_heads, ffn_width, norm_eps: where no key says it by itself; None: a key does.
        full_num_kv_heads, full_head_dim: of layers without a window, where those differ from layers with one.
        value_dim: channels of a head's value, where they are fewer than those of its key; 0: as many. value_factor: on
            values.
        full_values_are_keys: in layers without a window, values are keys before their norm and rotation.
        latent: attention is of latents: one KV head, which is the vector that positions leave.
        local_latent: that of layers with a window, and local_heads: their query heads, where those differ from others.
        still_latent: that of layers that do not rotate, whose latents have no channels to be rotated.
        cache_sources: of each layer, whose KV cache it reads, its own or that of a layer before it; empty: see
            num_sharing.
        layer_windows: of each layer, where the architecture reads it itself.
        index: what chooses the positions that attention sees; None: it sees all.
        layer_heads: query heads of each layer; empty: all have as many.
        skips: layers that read what earlier ones did, too.
        layer_thetas: base of each layer's rotation, 0 where it does not rotate; empty: all have that of the model.
        parts: of each layer KV heads and channels of its FFN, where layers differ; empty: they do not.
        rotates_dense: layers without experts rotate, whatever they see.
        has_rotation: queries and keys are rotated. slopes: of each head, what scores fall by from a position to the
            one before it; empty: they do not.
        shared: what layers share that have attention beside a state; None: there is no such thing.
        attends_everywhere: layers that keep a state have attention beside it.
        mixers: what each layer is, where it is one thing alone; empty: attention or a state, and an FFN or experts.
        layer_width: channels that each layer is given of a token beside the residual stream; 0: none.
        layer_entries: tokens that have an embedding for each layer; others have that of token 0. None: all have one.
        streams: of the residual, where there are several. hyper: where those are another kind of them.
        pooled: attention is to a window, and to entries of several positions.
        sphere: states that are kept at one length; None: they are not.
        times: that all layers are gone through, in turn; num_layers counts each.
        num_sharing: so many last layers have no keys and values of their own: they read those of the last layer of
            their kind (with a window, or without) before them. is_wide_where_sharing: their FFN is twice as wide.
        sees_both_ways: attention is to all tokens of a text, or to those within the window on both sides.
        sees_prompts: tokens of a prompt see each other, in a model that writes text; see hrm_text.py.
        sees_chunks: windows are chunks of a sequence, each of a window's length: positions see their own alone.
        still_growth, still_period: queries of layers that do not rotate are multiplied by 1 + still_growth * ln(1 +
            floor((position + 1) / still_period)); 0: by nothing.
        num_token_types: rows of the table of token types; 0: there is none.
        num_tasks: rows of a table of tasks, of which every token has the first added; 0: there is none.
        first_position: rows of the table of positions before that of position 0.
        has_positions: encoders add rows of a table of positions to embeddings.
        embedding_width: of embeddings that a linear makes as wide as the model; 0: they are.
        scores_by_layer: scores of each layer are divided by its number, the first one's by 1.
        layer_groups: of layers that have the same weights; 0: each has its own.
        norm_rank: channels that norms' own gates are made of, see axk2.py; 0: norms have none.
        by_distance: what scores have beside products of queries and keys; None: nothing.
        sound_positions: so many first positions of a sequence are those of a sound, see speech/.
        marked_frames: what is written is what frames of a sound say, of which one mark tells at most so many, see
            frame_marks.py; 0: there are no such marks. durations: how many frames may pass behind a token, each of
            which has a logit behind those of tokens; empty: tokens say nothing of it.
    """

    is_layer_norm: bool = False
    has_norm_weight: bool = True
    has_norm_bias: bool = True
    qkv_bias: bool = False
    o_bias: bool = False
    ffn_bias: bool = False
    down_bias: bool = False
    is_parallel: bool = False
    has_ffn_norm: bool = True
    has_head_bias: bool = False
    has_qk_norm: bool = False
    has_norm_behind: bool = False
    joined: Joined = "no"
    has_output_gate: bool = False
    gates_heads: bool = False
    gate_kind: str = "sigmoid"
    num_layers: int | None = None
    num_kv_heads: int | None = None
    ffn_width: int | None = None
    norm_eps: float | None = None
    full_num_kv_heads: int | None = None
    full_head_dim: int | None = None
    full_values_are_keys: bool = False
    value_dim: int = 0
    value_factor: float = 1.0
    scores_by_layer: bool = False
    latent: Latent | None = None
    local_latent: Latent | None = None
    local_heads: int = 0
    still_latent: Latent | None = None
    cache_sources: tuple[int, ...] = ()
    layer_windows: tuple[int | None, ...] = ()
    index: Index | None = None
    layer_heads: tuple[int, ...] = ()
    skips: tuple[Skip, ...] = ()
    layer_thetas: tuple[float, ...] = ()
    parts: tuple[LayerPart, ...] = ()
    rotates_dense: bool = False
    has_rotation: bool = True
    slopes: tuple[float, ...] = ()
    shared: SharedBlocks | None = None
    attends_everywhere: bool = False
    mixers: tuple[Mixer, ...] = ()
    layer_width: int = 0
    layer_entries: int | None = None
    streams: Streams | None = None
    hyper: Hyper | None = None
    pooled: Pooled | None = None
    sphere: Sphere | None = None
    stacks: Stacks | None = None
    times: int = 1
    num_sharing: int = 0
    is_wide_where_sharing: bool = False
    sees_both_ways: bool = False
    sees_prompts: bool = False
    sees_chunks: bool = False
    still_growth: float = 0.0
    still_period: int = 0
    num_token_types: int = 0
    num_tasks: int = 0
    first_position: int = 0
    has_positions: bool = True
    embedding_width: int = 0
    layer_groups: int = 0
    norm_rank: int = 0
    by_distance: ByDistance | None = None
    sound_positions: int = 0
    marked_frames: int = 0
    durations: tuple[int, ...] = ()


def of_said_rotation(fields: Fields) -> BlockSettings:
    """Of architectures whose class stretches a context by numbers of one model where a file does not say it.

    Raises: UnsupportedModel where the file says nothing, or null.
    """
    if fields.raw("rope_scaling") is None and fields.raw("rope_parameters") is None:
        what = "it must be said, as published files do: nothing else says how it rotates; rope_type default is plainly"
        fields.unsupported("rope_scaling", None, what)
    return BlockSettings()
