"""What vision_config says of a tower, checked; keys are honoured, or change nothing, or are refused by name.

Called by the families. Keys of the whole that are not about pictures are the text part's, which refuses what it does
not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import ModelError
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import QUICK_GELU
from albireo.models.settings.known_keys import IGNORABLE_KEYS
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.text_part import sizes_of_class, text_keys
from albireo.models.vision.encoder import EncoderSettings

#: Far more than any tower has.
MAX_WIDTH, MAX_HEADS, MAX_PATCH_SIZE, MAX_IMAGE_SIZE = 2**16, 2**10, 256, 2**16
#: What an activation is called -> see encoder.activated().
ACTIVATIONS = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    QUICK_GELU: QUICK_GELU,
}
#: Of any tower: how it was published, and how pictures come to it.
IGNORABLE = IGNORABLE_KEYS | keys(
    "architectures dtype torch_dtype initializer_factor size max_image_size use_base_siglip tie_word_embeddings"
)


def vision_fields(
    data: Mapping[str, Any],
    where: str,
    model_types: tuple[str, ...],
    names: Mapping[str, str] | None = None,
    *,
    are_apart: bool = False,
) -> Fields:
    """The keys of vision_config. Args: model_types: what it may call itself. names: what the family calls some keys.
    are_apart: model_types are those of different towers.

    Raises: ModelError when it is missing; UnsupportedModel for a tower of another kind.
    """
    table = Fields(data, where).table("vision_config")
    if table is None:
        raise ModelError(f"{where}: vision_config is missing")
    fields = Fields(table, f"{where}: vision_config", names)
    # of a part without a name of its own transformers once wrote an empty one
    named = fields.text("model_type", model_types[0])
    if named not in model_types and (named or are_apart):
        fields.unsupported("model_type", named, f"supported here: {', '.join(model_types)}")
    if fields.integer("num_channels", 1, 2**10, 3) != 3:
        fields.unsupported("num_channels", fields.raw("num_channels"), "pictures have 3")
    return fields


def encoder_settings(
    fields: Fields,
    dtype: str,
    defaults: Mapping[str, Any],
    *,
    eps: float | None = None,
    is_rms: bool = False,
    has_bias: bool = True,
    has_k_bias: bool = True,
    turned_share: float = 0.0,
    turns_neighbours: bool = False,
    is_bare: bool = False,
) -> EncoderSettings:
    """Sizes of layers. Args: defaults: what absent keys mean. eps: of norms, where no key says it. turned_share: of
    each head what is rotated; 0, 1: all of it. is_bare: norms and linears of attention have no bias. Others: see there.

    Raises: ModelError for a bad value; UnsupportedModel for an activation that is not computed.
    """

    def whole(key: str, most: int) -> int:
        return fields.integer(key, 1, most, defaults.get(key))

    width, heads = whole("hidden_size", MAX_WIDTH), whole("num_attention_heads", MAX_HEADS)
    if width % heads or (width // heads) % 2:
        fields.fail("num_attention_heads", heads, f"must cut hidden_size={width} into even heads")
    turned = int(turned_share * (width // heads))
    if turned % 2:
        fields.fail("partial_rotary_factor", turned_share, f"must leave an even part of heads of {width // heads}")
    return EncoderSettings(
        width,
        whole("intermediate_size", 16 * MAX_WIDTH),
        whole("num_hidden_layers", MAX_LAYERS),
        heads,
        whole("patch_size", MAX_PATCH_SIZE),
        activation(fields, "hidden_act", defaults.get("hidden_act")),
        fields.number("layer_norm_eps", 1e-30, 1.0, defaults.get("layer_norm_eps", 1e-6)) if eps is None else eps,
        dtype,
        is_rms,
        has_bias,
        has_k_bias=has_k_bias,
        turned=turned if turned_share < 1 or turns_neighbours else 0,
        turns_neighbours=turns_neighbours,
        has_qkv_bias=not is_bare,
        has_out_bias=not is_bare,
        has_norm_bias=not is_bare,
    )


def patches_on_side(fields: Fields, encoder: EncoderSettings, default: int, step: int = 1, why: str = "") -> int:
    """Of tiles that are squares. Args: step: that divides them. why: what errors say of it.

    Raises: ModelError where image_size is no such tile."""
    size = fields.integer("image_size", 1, MAX_IMAGE_SIZE, default)
    if size % (encoder.patch_size * step):
        what = "patches" if step == 1 else "blocks"
        fields.fail("image_size", size, f"must be {what} of {encoder.patch_size * step} pixels{why}")
    return size // encoder.patch_size


def merged_side(whole: Fields, key: str, fields: Fields, encoder: EncoderSettings, default: int) -> tuple[int, int]:
    """Patches on a side of what becomes one row, of which a key of the whole says the inverse; and on that of a tile.

    Raises: UnsupportedModel where that is no whole number; ModelError as patches_on_side()."""
    ratio = whole.number(key, 1 / 16, 1.0, 0.5)
    if not (1 / ratio).is_integer():
        whole.unsupported(key, ratio, "supported: 1 divided by a whole number")
    merge = int(1 / ratio)
    return merge, patches_on_side(fields, encoder, default, merge, f": patch_size / {key}")


def check_quarters(fields: Fields, encoder: EncoderSettings) -> None:
    """Raises: UnsupportedModel for heads that are not four equal parts, which turn by row and column."""
    if encoder.head_dim % 4:
        what = f"heads of {encoder.head_dim} are not four equal parts"
        fields.unsupported("num_attention_heads", encoder.num_heads, what)


def activation(fields: Fields, key: str, default: str | None) -> str:
    """What an activation is, for encoder.activated(). Raises: UnsupportedModel for another."""
    name = fields.one_of(key, ACTIVATIONS, default)
    return ACTIVATIONS[name]


def feature_layer(whole: Fields, num_layers: int, default: int, key: str = "vision_feature_layer") -> int:
    """How many layers are computed, behind the last of which rows are taken. Args: default: as the key says it.

    Raises: UnsupportedModel where that is not behind one layer.
    """
    at = whole.raw(key)
    at = default if at is None else at
    if not _is_layer(at, num_layers):
        whole.unsupported(key, at, f"supported: one of {num_layers} layers")
    return _number(at, num_layers)


def feature_layers(whole: Fields, num_layers: int, default: int | list[int]) -> tuple[int, ...]:
    """Behind how many layers rows are taken, which stand side by side. Args, Raises: as feature_layer()."""
    at = whole.raw("vision_feature_layer")
    at = default if at is None else at
    if not isinstance(at, list):
        return (feature_layer(whole, num_layers, at),)
    if not at or not all(_is_layer(each, num_layers) for each in at):
        whole.unsupported("vision_feature_layer", at, f"supported: some of {num_layers} layers")
    return tuple(_number(each, num_layers) for each in at)


def _is_layer(at: Any, num_layers: int) -> bool:
    return type(at) is int and -num_layers <= at <= num_layers and at != 0


def _number(at: int, num_layers: int) -> int:
    return at if at > 0 else num_layers + 1 + at


def text_width(data: Mapping[str, Any], where: str, default: int | None = None) -> int:
    """hidden_size of the text part, which rows of pictures have. Args: default: what it is where nothing is said."""
    of_class = sizes_of_class(data).get("hidden_size", default)
    return Fields(text_keys(data, where), f"{where}: text_config").integer("hidden_size", 1, MAX_WIDTH, of_class)
