"""Models that put texts and pictures into one space (CLIP, SigLIP): their parts, as those of other models with parts.

Called by text_part.py. Does not know what parts compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import ModelError, UnsupportedModel, short
from albireo.json_file import Fields
from albireo.models.settings.pooling_rule import PoolingRule

#: By model_type: that of the text part, and what says how wide the space is: a key, and of which part.
_PARTS = {"clip": "clip_text_model", "siglip": "siglip_text_model"}
#: What says of a part what another key says of it, too; of both this one counts.
_AGAIN = "{}_config_dict"


def is_paired(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of one, or of a text part of it that is a model by itself."""
    return data.get("model_type") in _PARTS


def by_parts(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What config.json says, once. Raises: ModelError for a part that is none."""
    found = dict(data)
    for part in ("text", "vision"):
        own, again = Fields(data, where).table(f"{part}_config"), found.pop(_AGAIN.format(part), None)
        if again is not None and not isinstance(again, Mapping):
            raise ModelError(f"{where}: {_AGAIN.format(part)}={short(again)} must be an object")
        found[f"{part}_config"] = {**(own or {}), **(again or {})}
    named = found["text_config"].get("model_type")
    if named in (None, ""):
        found["text_config"]["model_type"] = _PARTS[str(data["model_type"])]
    return found


def rule_of_pairs(fields: Fields, width: int) -> PoolingRule:
    """What a text part gives. Args: width: of the space.

    Raises: UnsupportedModel where that is not the text part's own, as of SigLIP 2's giant: rows of pictures are as wide
        as embeddings of tokens here.
    """
    own = fields.integer("hidden_size", 1, 2**20)
    if width != own:
        raise UnsupportedModel(
            f"{fields.where}: embeddings of {width} values, and texts are computed with hidden_size={own}; supported "
            "are models of which both are as many"
        )
    return PoolingRule(pooling_type="last", is_of_pictures=True)
