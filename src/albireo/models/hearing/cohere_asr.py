"""Cohere Transcribe's encoder as a tower: a FastConformer, and the linear that its decoder listens through.

Found by vision/tower.py. A tile is a sound: frames are its rows. Source: Cohere 2026, Cohere Transcribe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import ModelError
from albireo.json_file import Fields, keys
from albireo.models.hearing.fast_conformer import FastConformerTower, open_fast_conformer
from albireo.models.hearing.settings import IGNORABLE
from albireo.models.speech.cohere_asr import FRAMES
from albireo.models.vision.settings import MAX_WIDTH

#: What it means where encoder_config does not say.
_SAYS = {
    "hidden_size": 1280,
    "num_hidden_layers": 48,
    "intermediate_size": 5120,
    "num_mel_bins": 128,
    "scale_input": False,
}
_OF_TRAINING = keys("dropout_positions max_position_embeddings")


def open_cohere_asr(data: Mapping[str, Any], dtype: str, where: str) -> FastConformerTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    whole = Fields(data, where)
    table = whole.table("encoder_config")
    if table is None:
        raise ModelError(f"{where}: encoder_config is missing")
    fields = Fields({**_SAYS, **table}, f"{where}: encoder_config")
    fields.one_of("model_type", ("parakeet_encoder",), "parakeet_encoder")
    width = whole.integer("hidden_size", 1, MAX_WIDTH, 1024)
    # what the program reads that listens
    tower = open_fast_conformer(fields, dtype, FRAMES, "encoder_decoder_proj", width, ("transf_decoder.*",))
    fields.refuse_unread(IGNORABLE | _OF_TRAINING, {})
    return tower
