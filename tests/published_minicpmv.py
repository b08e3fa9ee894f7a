"""Tiny MiniCPM-V and MiniCPM-o of random weights as their authors publish them: text parts that transformers has, its
SigLIP of tiles of any grid (Idefics 2's), and behind it what asks patches, restated in torch from its authors' code.

Used by tests/models/vision/test_published_minicpmv.py and tests/e2e/test_published_minicpmv.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

#: Rows of a tile; pixels on a side of a square with as many as a tile has.
COUNT, SIDE, _WIDTH = 6, 48, 256
_VISION = {"hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 2}
_VISION |= {"image_size": 56, "patch_size": 8}
_TEXT = {"hidden_size": _WIDTH, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT |= {"num_key_value_heads": 2, "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096}
#: A version -> its text part.
_CLASSES = {2.5: "Llama", 2.6: "Qwen2", 4.0: "Llama", 4.5: "Qwen3"}
PROCESSOR = {
    "image_processor_type": "MiniCPMVImageProcessor",
    "auto_map": {
        "AutoImageProcessor": "image_processing_minicpmv.MiniCPMVImageProcessor",
        "AutoProcessor": "processing_minicpmv.MiniCPMVProcessor",
    },
    "processor_class": "MiniCPMVProcessor",
    "max_slice_nums": 9,
    "scale_resolution": SIDE,
    "patch_size": 8,
    "use_image_id": True,
    "image_feature_size": COUNT,
    "im_start": "<image>",
    "im_end": "</image>",
    "slice_start": "<slice>",
    "slice_end": "</slice>",
    "unk": "<unk>",
    "im_id_start": "<image_id>",
    "im_id_end": "</image_id>",
    "slice_mode": True,
    "norm_mean": [0.5, 0.5, 0.5],
    "norm_std": [0.5, 0.5, 0.5],
    "version": 2.6,
}


class Resampler(torch.nn.Module):
    """What asks."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.query = torch.nn.Parameter(torch.zeros(COUNT, width))
        if given != width:
            self.kv_proj = torch.nn.Linear(given, width, bias=False)
        self.attn = torch.nn.MultiheadAttention(width, width // 128)
        self.ln_q, self.ln_kv, self.ln_post = (torch.nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.proj = torch.nn.Parameter(torch.zeros(width, width))

    def forward(self, x: Any, lines: int, columns: int) -> Any:
        """[COUNT, width] of patches [T, given]."""
        x = self.ln_kv(self.kv_proj(x) if hasattr(self, "kv_proj") else x)
        width = x.shape[-1]
        line, column = (
            each.flatten().to(x.dtype)
            for each in torch.meshgrid(torch.arange(lines), torch.arange(columns), indexing="ij")
        )
        speeds = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4)).to(x.dtype)
        angles = [at[:, None] * speeds for at in (column, line)]
        waves = torch.cat([wave(each) for each in angles for wave in (torch.sin, torch.cos)], dim=1)
        asked, _ = self.attn(self.ln_q(self.query), x + waves, x)
        return self.ln_post(asked) @ self.proj


class Published(torch.nn.Module):
    """Parts by the names they are published with."""

    def __init__(self, version: float, vocab_size: int, vision: dict[str, Any]) -> None:
        super().__init__()
        from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

        kind, self.version = _CLASSES[version], version
        text = {**_TEXT, "vocab_size": vocab_size, **({"head_dim": 32} if kind == "Qwen3" else {})}
        config = getattr(transformers, f"{kind}Config")(**text)
        self.llm = getattr(transformers, f"{kind}ForCausalLM")(config)
        of_tower = transformers.models.idefics2.Idefics2VisionConfig(**vision, hidden_act="gelu_pytorch_tanh")
        of_tower._attn_implementation = "eager"
        self.vpm = Idefics2VisionTransformer(of_tower)
        self.resampler = Resampler(vision["hidden_size"], _WIDTH)

    def rows(self, tile: Any) -> Any:
        """[COUNT, width] of a tile [H, W, 3]."""
        size = self.vpm.config.patch_size
        grid = tile.shape[0] // size, tile.shape[1] // size
        mask, pixels = torch.ones(1, *grid, dtype=torch.bool), tile.permute(2, 0, 1)
        if self.version == 2.5:
            # its authors' code gives patches side by side, and says nothing of their grid
            mask = mask.flatten(1)[:, None]
            pixels = pixels.reshape(3, grid[0], size, grid[1], size).transpose(1, 2).reshape(3, size, -1)
        with torch.no_grad():
            seen = self.vpm(pixels[None], patch_attention_mask=mask).last_hidden_state[0]
            return self.resampler(seen, *grid)


def save(
    folder: Path, version: float = 2.6, vocab_size: int = 99, tokens: Mapping[str, int] | None = None, **vision: Any
) -> tuple[dict[str, Any], Any]:
    """Args: tokens: ids of those that end a text. Returns: what config.json holds; the model."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    vision = {**_VISION, **vision}
    model = Published(version, vocab_size, vision).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                is_table = any(part in name for part in ("position", "embed_tokens", "query"))
                # else what asks sees one patch each, and rounding chooses another
                scale = 0.4 if "in_proj" in name else 1.3
                weight.normal_(0.0, scale if is_table else scale * weight[0].numel() ** -0.5)
            else:
                is_norm = ("norm" in name or "ln_" in name) and name.endswith("weight")
                weight.normal_(float(is_norm), 0.2)
    save_file(model.state_dict(), folder / "model.safetensors")
    text = model.llm.config.to_dict()
    kept = (*_TEXT, "vocab_size", "hidden_act", *(("head_dim",) if version == 4.5 else ()))
    data = {
        **{key: text[key] for key in kept},
        **({} if tokens is None else {"eos_token_id": tokens["<|im_end|>"]}),
        "rope_theta": text["rope_parameters"]["rope_theta"],
        "_name_or_path": "openbmb/MiniCPM-V-2_6",
        "version": version,
        "architectures": ["MiniCPMV"],
        "auto_map": {"AutoModel": "modeling_minicpmv.MiniCPMV"},
        "batch_vision_input": True,
        "drop_vision_last_layer": False,
        "image_size": SIDE,
        "model_type": "minicpmv",
        "patch_size": 8,
        "query_num": COUNT,
        "slice_config": {"max_slice_nums": 9, "patch_size": 8, "model_type": "minicpmv"},
        "slice_mode": True,
        "torch_dtype": "float32",
        "vision_config": {**vision, "model_type": "siglip"},
    }
    if version == 2.5:
        del data["version"]
    (folder / "config.json").write_text(json.dumps(data))
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "patch_size": vision["patch_size"]}))
    return data, model
