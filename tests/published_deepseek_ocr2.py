"""A tiny DeepSeek-OCR 2 of random weights as its authors publish it: SAM's encoder and the text part are those of
DeepSeek-OCR, and what asks is transformers' Qwen 2 with the mask that its authors' code makes.

Used by tests/models/vision/test_published_towers.py and tests/e2e/test_published_sights.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import published_deepseek_ocr as first
from published_deepseek_ocr import SIDE

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

#: Pixels on a side of a part; rows of a part, and of the whole.
PART, COUNTS = 192, (36, 64)
_ASKS = {"hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
_ASKS |= {"num_key_value_heads": 2, "vocab_size": 8, "rms_norm_eps": 1e-6, "rope_theta": 1e6}


class Published(torch.nn.Module):
    """Fields: base: transformers' DeepSeek-OCR. asks, queries, projector, separator: of the second one."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base
        config = transformers.Qwen2Config(**_ASKS, attn_implementation="eager")
        self.asks = transformers.Qwen2Model(config)
        self.queries = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(n, 64)) for n in COUNTS])
        self.projector = torch.nn.Linear(64, base.config.text_config.hidden_size)
        self.separator = torch.nn.Parameter(torch.zeros(base.config.text_config.hidden_size))

    def rows(self, tiles: list[Any]) -> Any:
        """[rows, hidden_size] of the tiles of a picture, [H, W, 3]: its parts, where there are any, and the whole."""
        kind = self.separator.dtype
        *parts, whole = (torch.as_tensor(tile).to(kind).permute(2, 0, 1) for tile in tiles)
        squares = [each for part in parts for line in part.split(PART, dim=1) for each in line.split(PART, dim=2)]
        with torch.no_grad():
            found = [self._square(each) for each in (*squares, whole)]
        return torch.cat([*found, self.separator[None].detach()])

    def _square(self, pixels: Any) -> Any:
        seen = self.base.model.vision_tower.sam_encoder(pixels[None]).last_hidden_state[0].flatten(1).T
        count = len(seen)
        x = torch.cat([seen, self.queries[COUNTS.index(count)]])
        at = torch.arange(2 * count)
        is_seen = (at[None] < count) | ((at[:, None] >= count) & (at[None] <= at[:, None]))
        mask = torch.zeros(is_seen.shape, dtype=x.dtype).masked_fill(~is_seen, torch.finfo(x.dtype).min)[None, None]
        states = self.asks(inputs_embeds=x[None], attention_mask={"full_attention": mask}).last_hidden_state[0]
        return self.projector(states[count:])


def save(folder: Path, vocab_size: int) -> tuple[dict[str, Any], Published]:
    """Returns: what config.json holds; the model."""
    from safetensors.torch import load_file, save_file

    data, base = first.save(folder, vocab_size)
    torch.manual_seed(1)
    model = Published(base).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("base."):
                continue
            if weight.ndim > 1:
                weight.normal_(0.0, 1.0 if "queries" in name else 1.3 * weight[0].numel() ** -0.5)
            else:
                weight.normal_(float("norm" in name), 0.2)
    left_out = ("model.vision_model.", "model.projector.", "model.image_newline", "model.view_seperator")
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: each for name, each in tensors.items() if not name.startswith(left_out)}
    of_asks = {name: each for name, each in model.asks.state_dict().items() if not name.startswith("embed_tokens")}
    tensors |= {f"model.qwen2_model.model.model.{name}": each for name, each in of_asks.items()}
    for size, table in zip((768, 1024), model.queries, strict=True):
        tensors[f"model.qwen2_model.query_{size}.weight"] = table.detach()
    tensors |= {f"model.projector.layers.{name}": each for name, each in model.projector.state_dict().items()}
    tensors["model.view_seperator"] = model.separator.detach()
    save_file(tensors, folder / "model.safetensors")
    vision = data["vision_config"]
    # as its files say of convolutions, whatever the second one gives
    sam = {**vision["width"]["sam_vit_b"], "downsample_channels": [40, 1024]}
    asks = {name: value for name, value in _ASKS.items() if name not in ("vocab_size", "rms_norm_eps", "hidden_size")}
    data |= {
        "architectures": ["DeepseekOCR2ForCausalLM"],
        "projector_config": {**data["projector_config"], "input_dim": 64},
        "vision_config": {
            **vision,
            "model_name": "deepencoderv2",
            "width": {"qwen2-0-5b": {**asks, "dim": 64}, "sam_vit_b": sam},
        },
    }
    (folder / "config.json").write_text(json.dumps(data))
    assert SIDE * 3 // 4 == PART
    return data, model
