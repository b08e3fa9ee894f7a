"""Further tiny models that read pictures; see tiny_towers.py, which uses them."""

from __future__ import annotations

from typing import Any

import pytest

from tower_family import SIGLIP, Family, patches_of, text_of

torch = pytest.importorskip("torch")


def _of_llama4(model: Any, tile: Any) -> Any:
    found = model.get_image_features(tile.permute(2, 0, 1)[None]).last_hidden_state
    return model.multi_modal_projector(found)[0]


def _of_kimi_k25(model: Any, tile: Any) -> Any:
    """Patches in reading order, each a picture."""
    patches = patches_of(tile, 8).permute(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3, 8, 8)
    grid = torch.tensor([[1, tile.shape[0] // 8, tile.shape[1] // 8]])
    return model.model.get_image_features(patches, grid).pooler_output[0]


#: Grids smaller and larger than the table of positions, and one line of blocks.
ANY = ((48, 96), (112, 80), (16, 144))

FURTHER: dict[str, Family] = {
    # its whole, whose tensors alone are saved under published names
    "kimi_k25": Family(
        "Kimi_K25ForConditionalGeneration",
        ANY,
        _of_kimi_k25,
        {
            **{key: value for key, value in SIGLIP.items() if key != "image_size"},
            **{"pos_emb_height": 6, "pos_emb_width": 6},
        },
        text_of("deepseek_v3"),
        {"projection_hidden_size": 144},
    ),
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
