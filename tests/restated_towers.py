"""Towers that transformers has no class of, restated in torch from what their authors publish: names of tensors and
what is computed of a tile. And tensors of them, drawn.

Used by tests/models/vision/test_published_towers.py and tests/e2e/test_published_sights.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tower_family import patches_of

torch = pytest.importorskip("torch")
F = torch.nn.functional

Tensors = Mapping[str, Any]

DOTS = {
    "embed_dim": 144,
    "hidden_size": 48,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_channels": 3,
    "patch_size": 8,
    "post_norm": True,
    "rms_norm_eps": 1e-5,
    "spatial_merge_size": 2,
    "temporal_patch_size": 1,
    "use_bias": False,
    "attn_implementation": "flash_attention_2",
    "init_merger_std": 0.02,
    "initializer_range": 0.02,
    "is_causal": False,
}


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Any]:
    """Tensors of these shapes: norms around one, the rest such that what they give stays near unit size."""
    torch.manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            found[name] = torch.randn(shape) * 1.3 * torch.Size(shape[1:]).numel() ** -0.5
        else:
            is_weight = name.endswith("weight") and any(part in name for part in ("norm", "ln_q"))
            found[name] = torch.randn(shape) * 0.2 + float(is_weight)
    return found


def dots_shapes(vision: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner, patch = vision["embed_dim"], vision["intermediate_size"], vision["patch_size"]
    merged = width * vision["spatial_merge_size"] ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.patchifier.proj.weight": (width, 3, patch, patch),
        "patch_embed.patchifier.proj.bias": (width,),
        "patch_embed.patchifier.norm.weight": (width,),
    }
    linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.fc1": (inner, width)}
    linears |= {"mlp.fc2": (width, inner), "mlp.fc3": (inner, width)}
    for number in range(vision["num_hidden_layers"]):
        block = f"blocks.{number}"
        shapes |= {f"{block}.norm{n}.weight": (width,) for n in (1, 2)}
        shapes |= {f"{block}.{name}.weight": shape for name, shape in linears.items()}
        if vision["use_bias"]:
            shapes |= {f"{block}.{name}.bias": shape[:1] for name, shape in linears.items()}
    if vision["post_norm"]:
        shapes["post_trunk_norm.weight"] = (width,)
    shapes |= {"merger.ln_q.weight": (width,), "merger.ln_q.bias": (width,)}
    shapes |= {"merger.mlp.0.weight": (merged, merged), "merger.mlp.0.bias": (merged,)}
    shapes |= {"merger.mlp.2.weight": (vision["hidden_size"], merged), "merger.mlp.2.bias": (vision["hidden_size"],)}
    return {f"vision_tower.{name}": shape for name, shape in shapes.items()}


def dots_rows(tensors: Tensors, vision: Mapping[str, Any], tile: Any) -> Any:
    """[rows, hidden_size] of a tile [H, W, 3]."""
    size, merge, heads = vision["patch_size"], vision["spatial_merge_size"], vision["num_attention_heads"]
    width, eps = vision["embed_dim"], vision["rms_norm_eps"]

    def of(name: str) -> Any:
        return tensors[f"vision_tower.{name}"].to(tile.dtype)

    def linear(x: Any, name: str) -> Any:
        bias = f"vision_tower.{name}.bias"
        return F.linear(x, of(f"{name}.weight").flatten(1), of(f"{name}.bias") if bias in tensors else None)

    def rms(x: Any, name: str) -> Any:
        return F.rms_norm(x, (width,), of(f"{name}.weight"), eps)

    lines, columns = (side // size for side in tile.shape[:2])
    # in the order of blocks
    patches = patches_of(tile, size, merge).permute(0, 1, 2, 3, 6, 4, 5).reshape(lines * columns, -1)
    at = torch.stack(torch.meshgrid(torch.arange(lines), torch.arange(columns), indexing="ij"), dim=-1)
    at = at.reshape(lines // merge, merge, columns // merge, merge, 2).transpose(1, 2).reshape(-1, 2)
    head = width // heads
    speeds = 10000.0 ** (-torch.arange(0, head // 2, 2, dtype=torch.float32) / (head // 2))
    angles = (at[:, :, None] * speeds).flatten(1).to(tile.dtype)
    cos, sin = (torch.cat([each, each], dim=-1)[:, None] for each in (angles.cos(), angles.sin()))

    def turned(x: Any) -> Any:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    x = rms(linear(patches, "patch_embed.patchifier.proj"), "patch_embed.patchifier.norm")
    for number in range(vision["num_hidden_layers"]):
        block = f"blocks.{number}"
        q, k, v = linear(rms(x, f"{block}.norm1"), f"{block}.attn.qkv").reshape(-1, 3, heads, head).unbind(1)
        seen = F.scaled_dot_product_attention(*(each.transpose(0, 1)[None] for each in (turned(q), turned(k), v)))
        x = x + linear(seen[0].transpose(0, 1).flatten(1), f"{block}.attn.proj")
        h = rms(x, f"{block}.norm2")
        x = x + linear(F.silu(linear(h, f"{block}.mlp.fc1")) * linear(h, f"{block}.mlp.fc3"), f"{block}.mlp.fc2")
    if vision["post_norm"]:
        x = rms(x, "post_trunk_norm")
    x = F.layer_norm(x, (width,), of("merger.ln_q.weight"), of("merger.ln_q.bias"), 1e-6)
    x = linear(x.reshape(-1, width * merge**2), "merger.mlp.0")
    return linear(F.gelu(x), "merger.mlp.2")
