"""What audio_config says of a tower that hears, checked; keys are honoured, or change nothing, or are refused by name.

Called by the families.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import ModelError
from albireo.json_file import Fields, keys
from albireo.models.settings.known_keys import IGNORABLE_KEYS
from albireo.models.settings.text_part import inner
from albireo.models.vision.encoder import EncoderSettings
from albireo.models.vision.settings import MAX_WIDTH

#: What Whisper calls keys of encoders.
OF_WHISPER = {
    "hidden_size": "d_model",
    "intermediate_size": "encoder_ffn_dim",
    "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads",
    "hidden_act": "activation_function",
}
#: Of any: how it was published, and what is of training alone.
IGNORABLE = IGNORABLE_KEYS | keys(
    "architectures dtype torch_dtype init_std dropout activation_dropout encoder_layerdrop layerdrop vocab_size",
    "add_cross_attention cross_attention_hidden_size is_decoder is_encoder_decoder pruned_heads tf_legacy_loss",
    "tie_encoder_decoder tie_word_embeddings bos_token_id eos_token_id",
)


def audio_fields(
    data: Mapping[str, Any], where: str, model_types: tuple[str, ...], names: Mapping[str, str] | None = None
) -> Fields:
    """The keys of audio_config. Args: model_types: what it may call itself. names: what the family calls some keys.

    Raises: ModelError when it is missing; UnsupportedModel for a tower of another kind, or embeddings that are scaled.
    """
    table = Fields(inner(data), where).table("audio_config")
    if table is None:
        raise ModelError(f"{where}: audio_config is missing")
    fields = Fields(table, f"{where}: audio_config", names)
    named = fields.text("model_type", model_types[0])
    if named not in model_types:
        fields.unsupported("model_type", named, f"supported here: {', '.join(model_types)}")
    if fields.flag("scale_embedding", False):
        fields.unsupported("scale_embedding", True, "supported: false")
    return fields


def check_heads(fields: Fields, encoder: EncoderSettings) -> None:
    """What newer files say of heads beside their number, which is what older ones do not say.

    Raises: UnsupportedModel for another value.
    """
    for key, only in (("head_dim", encoder.head_dim), ("num_key_value_heads", encoder.num_heads)):
        said = fields.optional_integer(key, 1, MAX_WIDTH)
        if said not in (None, only):
            fields.unsupported(key, said, f"supported: {only}")


def num_bands(fields: Fields) -> int:
    return fields.integer("num_mel_bins", 1, MAX_WIDTH, 128)
