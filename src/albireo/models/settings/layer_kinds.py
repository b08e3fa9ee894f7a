"""What a config.json says of layers one by one: which have a sliding window, which rotate queries and keys, and what
each is where it is one of several things.

Called by config.py. Does not know what windows and rotations are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from albireo.errors import short
from albireo.json_file import Fields
from albireo.models.settings.rope_settings import MAX_POSITIONS

MAX_LAYERS = 2**12
#: transformers' meaning of an absent sliding_window (null means none) in most architectures that have one.
DEFAULT_WINDOW = 4096
#: What a layer is, where it is one thing alone: a recurrence, attention, an FFN, or experts.
Mixer = Literal["state", "attention", "ffn", "experts"]
_LETTERS: dict[str, Mixer] = {"M": "state", "*": "attention", "-": "ffn", "E": "experts"}
#: In words of today, and of before.
_WORDS: dict[str, Mixer] = {"linear_attention": "state", "full_attention": "attention", "mlp": "ffn", "moe": "experts"}
_WORDS |= {"mamba": "state", "attention": "attention"}
#: Who has a sliding window: no layer; every layer, when sliding_window is a number, or that and use_sliding_window;
#: layers as layer_types says (by_list), else from max_window_layers on, when use_sliding_window (by_layer); or layers
#: as layer_types says, else all but each so many-th (periodic), or all but the first of each so many (first_of_period;
#: both_sides, whose window is said as a whole, and counted here from its middle); or those that attention_types calls
#: local; or none, where layers may say by which rule they see a part of longer texts than are computed (seeing_all).
#: Or layers that layer_types names, and no other (said); likewise where other layers have a convolution. Or layers as
#: layer_types says, else those that rotate, whose window is a chunk (chunked). Or layers as layer_types says, else
#: hybrid_layer_pattern, else all but the first and each sixth; what is said may be those before (mimo). Or none, where
#: the architecture reads layer_types itself (read_elsewhere).
WindowRule = Literal[
    "none",
    "every_layer",
    "every_layer_if_used",
    "by_layer",
    "by_list",
    "periodic",
    "first_of_period",
    "both_sides",
    "local",
    "seeing_all",
    "said",
    "beside_convolutions",
    "chunked",
    "mimo",
    "read_elsewhere",
]

#: Of an architecture of its own: whether each of so many layers has a window.
OwnWindows = Callable[[Fields, int], tuple[bool, ...]]
_OF_ATTENTION = ("full_attention", "sliding_attention")
_OF_LONG_TEXTS = {"full_attention", "indexed_attention", "deepseek_sparse_attention"}


def parse_rotates(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Whether each layer rotates queries and keys: a list of ones and zeros, else all but each so many-th."""
    interval = fields.integer("no_rope_layer_interval", 1, MAX_LAYERS, default=4)
    given = fields.raw("no_rope_layers")
    if given is None or given == []:
        return tuple(bool((layer + 1) % interval) for layer in range(layers))
    # transformers takes a longer list too
    if not isinstance(given, list) or len(given) < layers or any(item not in (0, 1) for item in given):
        fields.fail("no_rope_layers", given, f"must be a list of 0 and 1, one for each of {layers} layers")
    return tuple(bool(item) for item in given[:layers])


def parse_mixers(fields: Fields) -> tuple[Mixer, ...]:
    """What each layer is: a list of words, or a letter each. Raises: ModelError, UnsupportedModel."""
    words, letters = fields.texts("layers_block_type"), fields.text("hybrid_override_pattern", "")
    for known, key, given in ((_WORDS, "layers_block_type", words), (_LETTERS, "hybrid_override_pattern", letters)):
        for each in given:
            if each not in known:
                fields.unsupported(key, each, f"supported: {', '.join(known)}")
    found = tuple(_WORDS[word] for word in words) or tuple(_LETTERS[letter] for letter in letters)
    if not found:
        fields.fail("layers_block_type", None, "must say what each layer is, or hybrid_override_pattern")
    if words and letters and found != tuple(_LETTERS[letter] for letter in letters):
        fields.fail("hybrid_override_pattern", letters, "contradicts layers_block_type; keep one")
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS, default=len(found))
    if len(found) != layers:
        fields.fail("num_hidden_layers", layers, f"is not the {len(found)} layers that are said one by one")
    return found


def parse_sharing(fields: Fields, kinds: tuple[str, ...], default: int = 0) -> int:
    """Layers at the end that read caches of earlier ones, of which there is one of each kind.

    Args: kinds: of layers.
    """
    count = fields.integer("num_kv_shared_layers", 0, len(kinds), default=default)
    if count and set(kinds[: len(kinds) - count]) != set(kinds):
        fields.fail("num_kv_shared_layers", count, f"must leave a layer of each of {sorted(set(kinds))} with a cache")
    return count


def parse_windows(
    fields: Fields, rule: WindowRule | OwnWindows, period: int, rotates: tuple[bool, ...], absent: int | None
) -> tuple[int | None, ...]:
    """One window a layer, as the architecture's rule says; see WindowRule.

    Args:
        rule: or what says it where layer_types does not.
        rotates: of each layer; where some do not, these are the ones that a window by layer is for.
        absent: the window where sliding_window is not there.
    Raises: ModelError, UnsupportedModel.
    """
    layers = len(rotates)
    if rule == "chunked":
        return _chunks(fields, rotates)
    if rule == "read_elsewhere":
        return (None,) * layers
    if rule == "mimo":
        return _before(fields, layers, absent)
    if rule == "beside_convolutions":
        kinds = kinds_beside_convolutions(fields, layers)
    else:
        kinds = () if rule == "seeing_all" else layer_kinds(fields, layers, _OF_ATTENTION)
    if rule == "seeing_all":
        said = fields.texts("layer_types")
        if not set(said) <= _OF_LONG_TEXTS or len(said) not in (0, layers):
            fields.unsupported("layer_types", list(said), f"one of {', '.join(_OF_LONG_TEXTS)} for each layer")
        rule = "none"
    if callable(rule):
        window = _window_length(fields, absent)
        default = tuple("sliding_attention" if has_window else "full_attention" for has_window in rule(fields, layers))
    elif rule == "none":
        default, window = ("full_attention",) * layers, None
    elif rule in ("every_layer", "every_layer_if_used"):
        window = _window_length(fields, absent)
        if rule == "every_layer_if_used":
            fields.raw("max_window_layers")  # says nothing here
            window = window if fields.flag("use_sliding_window", False) else None
        default = ("full_attention" if window is None else "sliding_attention",) * layers
        if kinds and kinds != default:
            fields.unsupported("layer_types", list(kinds), f"sliding_window={window} holds for every layer")
    elif rule in ("periodic", "first_of_period"):
        window = _window_length(fields, absent)
        if kinds or window is None:
            fields.raw("sliding_window_pattern")  # says nothing then; some write it in letters
        else:
            period = fields.integer("sliding_window_pattern", 1, MAX_LAYERS, default=period)
        behind = 0 if rule == "first_of_period" else 1
        default = tuple("sliding_attention" if (i + behind) % period else "full_attention" for i in range(layers))
        if window is None:
            default = ("full_attention",) * layers
    elif rule in ("said", "beside_convolutions"):
        window, default = _window_length(fields, absent), ("full_attention",) * layers
    elif rule == "local":
        window = _window_length(fields, absent)
        default = tuple("sliding_attention" if local else "full_attention" for local in _locals(fields, layers))
    elif rule == "both_sides":
        window = fields.integer("local_attention", 1, MAX_POSITIONS, default=128) // 2 + 1
        period = fields.integer("global_attn_every_n_layers", 1, MAX_LAYERS, default=3)
        default = tuple("sliding_attention" if i % period else "full_attention" for i in range(layers))
    else:
        # transformers writes 0 for a window that is not used
        is_none = rule == "by_list" and fields.raw("sliding_window") == 0
        window = None if is_none else _window_length(fields, absent)
        if not fields.flag("use_sliding_window", False):
            window = None
        elif rule == "by_list" and not kinds:
            fields.unsupported("use_sliding_window", True, "layer_types must say in which layers")
        first = fields.integer("max_window_layers", 0, MAX_POSITIONS, default=28)
        may_slide = [not rotates[i] if not all(rotates) else i >= first for i in range(layers)]
        is_on = window is not None
        default = tuple("sliding_attention" if is_on and slides else "full_attention" for slides in may_slide)
    kinds = kinds or default
    if window is None and "sliding_attention" in kinds:
        fields.fail("layer_types", list(kinds), "names sliding_attention but no sliding window is in use")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def parse_dual_chunks(fields: Fields, positions: int) -> int:
    """Positions of a sequence of which all see all: fewer where longer ones are seen by chunks, which are not computed.

    Raises: UnsupportedModel where a rotation is to stretch the context, too.
    Source: An et al. 2024, Dual Chunk Attention; a chunk has the rest of its size for what comes next to it.
    """
    table = fields.table("dual_chunk_attention_config")
    if table is None:
        return positions
    rope = fields.table("rope_scaling") or fields.table("rope_parameters") or {}
    stretched = rope.get("rope_type", rope.get("type"))
    if stretched not in (None, "default"):
        what = f"its chunks are for longer texts, and so is a rotation of type {short(stretched)}: null one of both"
        fields.unsupported("dual_chunk_attention_config", table, what)
    said = Fields(table, "config.json: dual_chunk_attention_config")
    size = said.integer("chunk_size", 2, MAX_POSITIONS)
    return min(positions, size - said.integer("local_size", 0, size - 1, default=0))


def _chunks(fields: Fields, rotates: tuple[bool, ...]) -> tuple[int | None, ...]:
    size = fields.optional_integer("attention_chunk_size", 1, MAX_POSITIONS)
    kinds = layer_kinds(fields, len(rotates), ("full_attention", "chunked_attention"))
    if size is None and "chunked_attention" in kinds:
        fields.fail("layer_types", list(kinds), "names chunked_attention but attention_chunk_size says of no chunks")
    default = tuple("chunked_attention" if turns else "full_attention" for turns in rotates)
    return tuple(size if kind == "chunked_attention" else None for kind in kinds or default)


def _before(fields: Fields, layers: int, absent: int | None) -> tuple[int | None, ...]:
    window, pattern = _window_length(fields, absent), fields.raw("hybrid_layer_pattern")
    if fields.raw("sliding_window_size") is not None:
        window = fields.integer("sliding_window_size", 0, MAX_POSITIONS - 1) + 1
    if pattern is None:
        pattern = [int(i > 0 and (i + 1) % 6 != 0) for i in range(layers)]
    elif not isinstance(pattern, list) or len(pattern) != layers or any(each not in (0, 1) for each in pattern):
        fields.fail("hybrid_layer_pattern", pattern, f"must be a list of 0 and 1, one for each of {layers} layers")
    default = tuple("sliding_attention" if each else "full_attention" for each in pattern)
    kinds = layer_kinds(fields, layers, _OF_ATTENTION)
    if kinds and kinds != default and fields.raw("hybrid_layer_pattern") is not None:
        fields.fail("hybrid_layer_pattern", pattern, "contradicts layer_types; keep one")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds or default)


def _locals(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Which layers are local: lists of words with how often each comes."""
    runs = fields.raw("attention_types")
    fields.raw("attention_layers")  # the same, said again
    runs = [[["global", "local"], 12]] if runs is None else runs
    is_list = isinstance(runs, list) and all(isinstance(run, list) and len(run) == 2 for run in runs)
    if not is_list or not all(isinstance(run[0], list) and type(run[1]) is int for run in runs):
        fields.fail("attention_types", runs, "must be a list of [[word, ...], how often]")
    if sum(len(run[0]) * run[1] for run in runs) != layers:
        fields.fail("attention_types", runs, f"must say what each of {layers} layers is")
    words = [word for run in runs for word in run[0] * run[1]]
    if not all(word in ("global", "local") for word in words):
        fields.fail("attention_types", runs, "must say global or local of a layer")
    return tuple(word == "local" for word in words)


def _window_length(fields: Fields, absent: int | None) -> int | None:
    if not fields.has("sliding_window"):
        return absent
    return fields.optional_integer("sliding_window", 1, MAX_POSITIONS)


def kinds_beside_convolutions(fields: Fields, layers: int) -> tuple[str, ...]:
    """What each layer is: as layer_types says, else as LFM3's class does: attention to all in one of four, to a window
    in another, a convolution in all others."""
    default = ["sliding_attention", "conv", "full_attention", "conv"] * layers
    return layer_kinds(fields, layers, ("conv", *_OF_ATTENTION)) or ("conv", *default[1:layers])


def layer_kinds(fields: Fields, layers: int, known: tuple[str, ...]) -> tuple[str, ...]:
    """The words of layer_types, of which all must be known; empty where it is not there.

    Raises: UnsupportedModel, ModelError.
    """
    kinds = fields.texts("layer_types")
    for kind in kinds:
        if kind not in known:
            fields.unsupported("layer_types", kind, f"supported: {', '.join(known)}")
    if kinds and len(kinds) != layers:
        fields.fail("layer_types", list(kinds), f"has {len(kinds)} entries for num_hidden_layers={layers}")
    return kinds
