"""Canary's encoder as a tower: a FastConformer, whose rows its decoder listens to as they are.

Found by vision/tower.py. Source: Sekoyan et al. 2025, Canary-1B-v2 & Parakeet-TDT-0.6B-v3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.models.blocks.frame_heads import FRAMES
from albireo.models.hearing.fast_conformer import FastConformerTower, open_fast_conformer
from albireo.models.hearing.parakeet import OF_TRAINING, encoder_fields
from albireo.models.hearing.settings import IGNORABLE

#: What it means where encoder_config does not say.
_SAYS = {"num_hidden_layers": 32, "num_mel_bins": 128, "scale_input": False}


def open_canary(data: Mapping[str, Any], dtype: str, where: str) -> FastConformerTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = encoder_fields(data, where, _SAYS)
    # what the program reads that listens
    tower = open_fast_conformer(fields, dtype, FRAMES, "", 0, ("transf_decoder.*",))
    fields.refuse_unread(IGNORABLE | OF_TRAINING, {})
    return tower
