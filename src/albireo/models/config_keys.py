"""parse_config(): what a checkpoint is, of the keys of its config.json and what its architecture makes of them.

Called by opening.py and draft_heads. A key that is neither used, nor listed as ignorable, nor at a value that changes
nothing is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from albireo.dtypes import compute_dtype
from albireo.errors import ConfigError, short
from albireo.json_file import Fields
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.activations import parse_activation
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.class_names import class_names, is_own_code, pooling_of_class
from albireo.models.settings.expert_keys import parse_experts
from albireo.models.settings.fading_settings import FadingSettings
from albireo.models.settings.known_keys import IGNORABLE_KEYS, NEUTRAL_VALUES, of_older_names, without_tables
from albireo.models.settings.layer_kinds import MAX_LAYERS, parse_dual_chunks, parse_rotates, parse_windows
from albireo.models.settings.mamba1_settings import Mamba1Settings
from albireo.models.settings.mamba_settings import MambaSettings
from albireo.models.settings.multipliers import parse_multipliers
from albireo.models.settings.pooling_rule import GGUF_LINEARS, HeadStep, PoolingRule
from albireo.models.settings.recurrent_settings import RecurrentSettings, parse_recurrent
from albireo.models.settings.rope_settings import MAX_POSITIONS, RopeSettings, parse_ropes
from albireo.params import PoolingType
from albireo.speculative_config import MAX_VOCAB

#: Far above any checkpoint, low enough that every product of them is an exact float64.
MAX_WIDTH = 2**20
MAX_HEADS = 2**12
MAX_HEAD_DIM = 2**12
_HONOURS_PARTIAL = "partial_rotary_factor"
_DUAL_CHUNKS = "dual_chunk_attention_config"


def parse_config(
    data: Mapping[str, Any], rules: ConfigRules, *, where: str = "config.json", default_dtype: str = "float32"
) -> ModelConfig:
    """Check the object of a config.json.

    Args: default_dtype: when the file names none. where: names the file in errors.
    Raises: ModelError for a missing or impossible value; UnsupportedModel for a key that is not computed.
    """
    data = data if rules.rewritten is None else rules.rewritten(data, where)
    data = without_tables(data, rules.tables, where)
    older = of_older_names(data, rules.older_names, rules.deciding, where)
    # rotations that are null are those that the class has, as where they are not there
    has_own = rules.has_local_rope or bool(rules.frequencies)
    absent = {"rope_parameters"} if has_own and data.get("rope_parameters") is None else set()
    newer = {key: value for key, value in data.items() if key not in {*rules.older_names, *absent}}
    fields = Fields({**rules.defaults, **newer, **older}, where, rules.names)
    model_type = fields.text("model_type")
    names = class_names(model_type, rules.class_names)
    pooling = pooling_of_class(fields, model_type, names, rules.pooled, rules.token_head, rules.has_vocabulary)
    says_pooling = rules.pooled is not None or fields.has(GGUF_LINEARS)
    if says_pooling and pooling is not None and pooling.tasks[0] == "embed" and not pooling.vocabulary:
        pooling = _as_pooled(fields, pooling)
    hidden = fields.integer("hidden_size", 1, MAX_WIDTH)
    heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    blocks = rules.blocks if isinstance(rules.blocks, BlockSettings) else rules.blocks(fields)
    is_causal = rules.pooled is not None or fields.flag("is_causal", True)
    if not is_causal:
        blocks, pooling = replace(blocks, sees_both_ways=True), pooling or PoolingRule()
        _check_both_ways(fields, rules, blocks)
    kv_heads = blocks.num_kv_heads or fields.integer("num_key_value_heads", 1, MAX_HEADS, default=heads)
    if heads % kv_heads:
        fields.fail("num_attention_heads", heads, f"must be a multiple of num_key_value_heads={kv_heads}")
    layers = len(blocks.mixers) or blocks.num_layers or fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    positions = fields.integer("max_position_embeddings", blocks.first_position + 1, MAX_POSITIONS)
    positions += blocks.sound_positions - blocks.first_position
    positions = parse_dual_chunks(fields, positions) if _DUAL_CHUNKS in rules.keys else positions
    vocab = fields.integer("vocab_size", 1, MAX_VOCAB)
    width = blocks.ffn_width or fields.integer(
        "intermediate_size", 1, MAX_WIDTH, default=rules.ffn_factor * hidden or None
    )
    rotates = parse_rotates(fields, layers) if rules.has_layers_without_rope else (blocks.has_rotation,) * layers
    recurrent: RecurrentSettings | MambaSettings | Mamba1Settings | FadingSettings | None = parse_recurrent(
        fields, rules.recurrent, layers, hidden
    )
    if rules.mamba is not None:
        recurrent = rules.mamba(fields)
    windows: tuple[int | None, ...] = (None,) * layers
    if (recurrent is None and rules.mamba is None) or rules.windows == "beside_convolutions":
        windows = parse_windows(fields, rules.windows, rules.period, rotates, rules.default_window)
    windows = blocks.layer_windows or windows
    if blocks.sees_both_ways and rules.windows == "periodic":  # the whole of it is said, as for flash attention
        windows = tuple(window and window // 2 + 1 for window in windows)
    if blocks.sees_both_ways and pooling is None:
        fields.unsupported(
            "use_bidirectional_attention", True, "a model that writes text sees no token before it is there"
        )
    if not is_causal and any(windows):
        fields.unsupported("is_causal", False, "tokens of layers with a sliding window see none behind them")
    latent = blocks.latent
    head_dim = _head_dim(fields, rules, hidden, heads) if latent is None else latent.rank + latent.rotary
    # also where every layer is said to have none, but not where there is no window to have
    if rules.rotates_windows and (any(windows) or _has_window(fields, rules)):
        rotates = tuple(window is not None for window in windows)
    rope, local_rope = RopeSettings(), None
    if rules.has_rope:
        rope, local_rope = parse_ropes(
            fields,
            where,
            positions,
            rules.keys,
            has_local=rules.has_local_rope,
            local_theta=rules.local_theta,
            head_dim=head_dim,
        )
    dtype = _dtype(fields, default_dtype)
    config = ModelConfig(
        model_type=model_type,
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=positions,
        rms_norm_eps=blocks.norm_eps or fields.number("rms_norm_eps", 1e-30, 1.0, default=1e-6),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        dtype=dtype,
        rope=rope,
        windows=windows,
        hidden_act=parse_activation(fields, rules.activation),
        attention_bias=_bias(fields, rules, "attention_bias"),
        attention_out_bias=_bias(fields, rules, "attention_out_bias"),
        mlp_bias=_bias(fields, rules, "mlp_bias"),
        multipliers=(rules.own_multipliers or parse_multipliers)(fields, rules.keys, rules.multipliers),
        local_rope=local_rope,
        rotates=rotates,
        has_pairs_side_by_side=rules.has_pairs_side_by_side,
        bos_token_id=next(iter(fields.ids("bos_token_id", vocab)), None),
        eos_token_ids=fields.ids("eos_token_id", vocab),
        experts=parse_experts(fields, rules.experts, layers, width),
        blocks=blocks,
        recurrent=recurrent,
        pooling=pooling and replace(pooling, is_causal=not blocks.sees_both_ways),
        stored_dtype=dtype,
    )
    if config.rotary_dim % 2 or (config.head_dim - config.rotary_dim) % 2:
        fields.fail(_HONOURS_PARTIAL, config.rope.partial_rotary_factor, f"must rotate pairs of {config.head_dim}")
    neutral = {**NEUTRAL_VALUES, **{key: (value,) for key, value in rules.built_in.items()}}
    own_code = {"auto_map"} if rules.pooled is None and is_own_code(data.get("auto_map"), names) else set()
    # which says of a decoder what it is
    is_decoder = {"is_decoder"} if rules.pooled is None else set()
    fields.refuse_unread(IGNORABLE_KEYS | rules.ignorable | own_code | is_decoder, neutral)
    return config


def _as_pooled(fields: Fields, pooling: PoolingRule) -> PoolingRule:
    """As a GGUF file says, which has no modules.json beside it."""
    known: tuple[PoolingType, ...] = ("cls", "mean", "last")
    given = fields.raw("pooling_type")
    found = next((kind for kind in known if kind == given), None)
    if given is not None and found is None:
        fields.fail("pooling_type", given, f"must be one of {', '.join(known)}")
    head = (*pooling.head, *map(HeadStep, fields.texts(GGUF_LINEARS)))
    return replace(pooling, pooling_type=found or pooling.pooling_type, head=head)


def _check_both_ways(fields: Fields, rules: ConfigRules, blocks: BlockSettings) -> None:
    """Of a decoder that was trained to embed texts, all of whose tokens see each other.

    Raises: UnsupportedModel where a layer has more than attention that could be told so.
    """
    apart = {"states": rules.recurrent != "none" or rules.mamba is not None or bool(blocks.mixers)}
    apart |= {"latents": blocks.latent is not None, "slopes": bool(blocks.slopes)}
    if any(apart.values()):
        what = ", ".join(name for name, is_there in apart.items() if is_there)
        fields.unsupported("is_causal", False, f"tokens of layers with {what} see none behind them")


def _bias(fields: Fields, rules: ConfigRules, key: str) -> bool:
    """Of one kind of linear, or of all of them."""
    key = "use_bias" if "use_bias" in rules.keys else key
    return key in rules.keys and fields.flag(key, False)


def _has_window(fields: Fields, rules: ConfigRules) -> bool:
    window = fields.raw("sliding_window") if fields.has("sliding_window") else rules.default_window
    return window is not None


def _head_dim(fields: Fields, rules: ConfigRules, hidden: int, heads: int) -> int:
    given = fields.optional_integer("head_dim", 1, MAX_HEAD_DIM)
    # null is not what is not there
    absent = None if fields.has("head_dim") else rules.head_dim
    if given is None and absent is None and hidden % heads:
        fields.fail("hidden_size", hidden, f"must be a multiple of num_attention_heads={heads}, or head_dim be given")
    head_dim = given or absent or hidden // heads
    if head_dim % 2 or head_dim > MAX_HEAD_DIM:
        fields.fail("head_dim", head_dim, f"must be even, for rotary pairs, and at most {MAX_HEAD_DIM}")
    return head_dim


def _dtype(fields: Fields, default: str) -> str:
    old, new = fields.raw("torch_dtype"), fields.raw("dtype")
    if old is not None and new is not None and old != new:
        fields.fail("torch_dtype", old, f"contradicts dtype={short(new)}; keep one")
    key = "dtype" if old is None else "torch_dtype"
    try:
        return compute_dtype(fields.text(key, default))
    except ConfigError as error:
        fields.unsupported(key, fields.raw(key), str(error))
