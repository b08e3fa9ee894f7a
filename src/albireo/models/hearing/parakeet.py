"""Parakeet's encoder as a tower: a FastConformer; of transducers, the linear by which their head reads it, too.

Found by vision/tower.py. A tile is a sound: frames are its rows. Source: Rekesh et al. 2023, Fast Conformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import ModelError
from albireo.json_file import Fields, keys
from albireo.models.hearing.fast_conformer import FastConformerTower, open_fast_conformer
from albireo.models.hearing.settings import IGNORABLE
from albireo.models.speech.frame_heads import FRAMES
from albireo.models.vision.settings import MAX_WIDTH

OF_TRAINING = keys("dropout_positions max_position_embeddings")


def encoder_fields(data: Mapping[str, Any], where: str, says: Mapping[str, Any] | None = None) -> Fields:
    """The keys of encoder_config. Args: says: what absent ones mean, where the family differs.

    Raises: ModelError where there is none; UnsupportedModel for another encoder.
    """
    table = Fields(data, where).table("encoder_config")
    if table is None:
        raise ModelError(f"{where}: encoder_config is missing")
    fields = Fields({**(says or {}), **table}, f"{where}: encoder_config")
    if fields.text("model_type", "parakeet_encoder") != "parakeet_encoder":
        fields.unsupported("model_type", fields.raw("model_type"), "supported: parakeet_encoder")
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
