"""Parakeet's encoder as a tower: a FastConformer; of transducers, the linear by which their head reads it, too.

Found by vision/tower.py. A tile is a sound: frames are its rows. Source: Rekesh et al. 2023, Fast Conformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import ModelError
from albireo.json_file import Fields, keys
from albireo.models.blocks.frame_heads import FRAMES
from albireo.models.hearing.fast_conformer import Asked, FastConformerTower, open_fast_conformer
from albireo.models.hearing.settings import IGNORABLE
from albireo.models.vision.settings import MAX_WIDTH

OF_TRAINING = keys("dropout_positions max_position_embeddings")


def encoder_fields(
    data: Mapping[str, Any], where: str, says: Mapping[str, Any] | None = None, kind: str = "parakeet_encoder"
) -> Fields:
    """The keys of encoder_config. Args: says: what absent ones mean, where the family differs. kind: of encoder.

    Raises: ModelError where there is none; UnsupportedModel for another encoder.
    """
    table = Fields(data, where).table("encoder_config")
    if table is None:
        raise ModelError(f"{where}: encoder_config is missing")
    fields = Fields({**(says or {}), **table}, f"{where}: encoder_config")
    fields.one_of("model_type", (kind,), kind)
    return fields


def open_parakeet_ctc(data: Mapping[str, Any], dtype: str, where: str) -> FastConformerTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = encoder_fields(data, where)
    tower = open_fast_conformer(fields, dtype, FRAMES, "", 0, ())
    fields.refuse_unread(IGNORABLE | OF_TRAINING, {})
    return tower


def open_parakeet_transducer(data: Mapping[str, Any], dtype: str, where: str) -> FastConformerTower:
    """Raises: as open_parakeet_ctc()."""
    fields = encoder_fields(data, where)
    width = Fields(data, where).integer("decoder_hidden_size", 1, MAX_WIDTH, 640)
    # what hears what was said before reads the others
    tower = open_fast_conformer(fields, dtype, FRAMES, "encoder_projector", width, ("decoder.*",))
    fields.refuse_unread(IGNORABLE | OF_TRAINING, {})
    return tower


def open_streaming_transducer(data: Mapping[str, Any], dtype: str, where: str) -> FastConformerTower:
    """Of an encoder that can hear a sound as it comes, in chunks: here all of it at once, and each frame what it would
    have heard; and, of Nemotron 3.5, one that finds out which language is spoken. Raises: as open_parakeet_ctc()."""
    fields = encoder_fields(data, where, kind="nemotron_asr_streaming_encoder")
    width = Fields(data, where).integer("decoder_hidden_size", 1, MAX_WIDTH, 640)
    ahead = fields.integer("default_num_lookahead_tokens", 0, MAX_WIDTH, 13)
    before = (fields.integer("sliding_window", 1, MAX_WIDTH, 71) - 1) // (ahead + 1)
    asked = None
    if data["model_type"] == "nemotron3_5_asr":
        whole = Fields(data, where)
        count = whole.integer("num_prompts", 1, MAX_WIDTH, 128)
        asked = Asked(count, whole.integer("prompt_intermediate_size", 1, MAX_WIDTH, 2048))
    tower = open_fast_conformer(
        fields, dtype, FRAMES, "encoder_projector", width, ("decoder.*",), chunk=ahead + 1, before=before, asked=asked
    )
    fields.refuse_unread(IGNORABLE | OF_TRAINING, {})
    return tower
