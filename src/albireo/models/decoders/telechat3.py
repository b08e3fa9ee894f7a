"""TeleChat 3 36B: llama, whose yarn makes scores grow less."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from albireo.json_file import Fields, keys
from albireo.models.decoders import llama

TINY = {
    **{key: value for key, value in llama.TINY.items() if key != "head_dim"},
    "architectures": ["TeleChat3ForCausalLM"],
    "model_type": "telechat3",
    "num_hidden_layers": 2,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_scaling": {
        "rope_type": "telechat3-yarn",
        "type": "telechat3-yarn",
        "factor": 4.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "original_max_position_embeddings": 32,
    },
}
_YARN = "telechat3-yarn"
#: Of yarn it is 0.1.
_GROWTH = 0.07


def _as_yarn(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """With its yarn as others say it, and by how much scores grow. Raises: ModelError."""
    found = dict(data)
    for key in ("rope_scaling", "rope_parameters"):
        table = Fields(data, where).table(key)
        if table is None or _YARN not in (table.get("rope_type"), table.get("type")):
            continue
        factor = Fields(table, f"{where}: {key}").number("factor", 1.0, 2.0**28)
        rest = {name: value for name, value in table.items() if name not in ("type", "attention_factor")}
        found[key] = {**rest, "rope_type": "yarn", "attention_factor": 1.0 + _GROWTH * math.log(factor)}
    return found


CONFIG = replace(
    llama.CONFIG,
    rewritten=_as_yarn,
    defaults={"max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
    built_in={},
    # which the published class takes and its layers do not read
    ignorable=keys("embedding_size share_attention share_ffn"),
    class_names=("TeleChat3ForCausalLM", "Telechat3ForCausalLM"),
)
build = llama.build
