"""A tiny Phi-3.5-vision of random weights: its text part and CLIP as transformers has them, and what is between them,
restated in torch from its authors' code. Files name the tower and do not describe it, so that of a smaller one
config.json is by parts, as it is read.

Used by tests/models/vision/test_published_phi3_v.py and tests/e2e/test_published_phi3_v.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

#: Pixels on a side of a block.
SIDE = 32
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
VISION |= {"image_size": SIDE, "patch_size": 8, "hidden_act": "quick_gelu"}
_TEXT = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT |= {"num_key_value_heads": 2, "tie_word_embeddings": False, "max_position_embeddings": 4096}
_TEXT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PROCESSOR = {
    "image_processor_type": "Phi3VImageProcessor",
    "auto_map": {
        "AutoImageProcessor": "processing_phi3_v.Phi3VImageProcessor",
        "AutoProcessor": "processing_phi3_v.Phi3VProcessor",
    },
    "processor_class": "Phi3VProcessor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "num_crops": 4,
    "num_img_tokens": 4,
}


class Published(torch.nn.Module):
    """Parts by the names they are published with."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        text = transformers.Phi3ForCausalLM(transformers.Phi3Config(**_TEXT, vocab_size=vocab_size))
        self.model, self.lm_head = text.model, text.lm_head
        wide, width = 4 * VISION["hidden_size"], _TEXT["hidden_size"]
        seen = torch.nn.Module()
        seen.img_processor = torch.nn.Module()
        clip = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION, attn_implementation="eager"))
        seen.img_processor.vision_model = getattr(clip, "vision_model", clip)
        seen.glb_GN = torch.nn.Parameter(torch.zeros(1, 1, wide))
        seen.sub_GN = torch.nn.Parameter(torch.zeros(1, 1, 1, wide))
        linears = torch.nn.Linear(wide, width), torch.nn.GELU(), torch.nn.Linear(width, width)
        seen.img_projection = torch.nn.Sequential(*linears)
        self.model.vision_embed_tokens = seen
        self.text = [text]

    def rows(self, tile: Any) -> Any:
        """Of a picture in blocks, [H, W, 3]."""
        seen, side = self.model.vision_embed_tokens, SIDE // VISION["patch_size"] // 2
        picture = tile.permute(2, 0, 1)
        whole = torch.nn.functional.interpolate(picture[None].float(), (SIDE, SIDE), mode="bicubic").to(tile.dtype)
        lines, columns = (length // SIDE for length in tile.shape[:2])
        cut = picture.reshape(3, lines, SIDE, columns, SIDE).permute(1, 3, 0, 2, 4).reshape(-1, 3, SIDE, SIDE)
        with torch.no_grad():
            states = seen.img_processor.vision_model(torch.cat([whole, cut]), output_hidden_states=True).hidden_states
            merged = states[-2][:, 1:].unflatten(1, (side, 2, side, 2)).transpose(2, 3).flatten(3)

            def of_lines(rows: Any) -> Any:
                behind = seen.sub_GN[0].expand(len(rows), 1, -1)
                return torch.cat([rows, behind], dim=1).flatten(0, 1)

            across = merged[1:].unflatten(0, (lines, columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
            return seen.img_projection(torch.cat([of_lines(across), seen.glb_GN[0], of_lines(merged[0])]))


def save(folder: Path, ids: Mapping[str, int] | None = None) -> tuple[dict[str, Any], Any]:
    """Args: ids: of tokens. Returns: what config.json holds; the model."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = Published(99 if ids is None else len(ids)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                is_table = any(part in name for part in ("position", "embed_tokens.weight", "_GN"))
                weight.normal_(0.0, 1.3 * (1.0 if is_table else weight[0].numel() ** -0.5))
            else:
                is_norm = "norm" in name.replace("layrnorm", "norm") and name.endswith("weight")
                weight.normal_(float(is_norm), 0.2)
    save_file({name: each.contiguous() for name, each in model.state_dict().items()}, folder / "model.safetensors")
    data = {
        "architectures": ["Phi3VForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_phi3_v.Phi3VForCausalLM"},
        "model_type": "phi3_v",
        "torch_dtype": "float32",
        "text_config": {**_TEXT, "model_type": "phi3", "vocab_size": 99 if ids is None else len(ids)},
        "vision_config": {"model_type": "clip_vision_model", **VISION},
        "vision_feature_layer": -2,
    }
    if ids is not None:
        data["text_config"]["eos_token_id"] = ids["<|im_end|>"]
    (folder / "config.json").write_text(json.dumps(data))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return data, model
