"""Further tiny models that read pictures; see tiny_towers.py, which uses them."""

from __future__ import annotations

from typing import Any

from tower_family import SIGLIP, Family, text_of


def _of_llama4(model: Any, tile: Any) -> Any:
    found = model.get_image_features(tile.permute(2, 0, 1)[None]).last_hidden_state
    return model.multi_modal_projector(found)[0]


FURTHER: dict[str, Family] = {
    # its whole: there is no model without a head
    "llama4": Family(
        "Llama4ForConditionalGeneration",
        ((96, 96),),
        _of_llama4,
        {
            **SIGLIP,
            **{"intermediate_size": 576, "projector_input_dim": 80, "projector_output_dim": 80},
            "vision_output_dim": 80,
        },
        text_of("llama4_text"),
    ),
}
