"""What transformers' models are given of pictures, of each family of tiny_sights.py: patches, grids and sizes.

Ids of a prompt, those of tokens, and tiles [H, W, 3], normalized -> keywords of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from albireo.models.vision.mosaic import Mosaic

torch = pytest.importorskip("torch")


def channels_first(tiles: list[np.ndarray]) -> list[Any]:
    return [torch.tensor(tile).permute(2, 0, 1) for tile in tiles]


def of_mistral3(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    pixels = torch.zeros(len(tiles), 3, height, width)
    for place, tile in enumerate(channels_first(tiles)):
        pixels[place, :, : tile.shape[1], : tile.shape[2]] = tile
    return {"pixel_values": pixels, "image_sizes": torch.tensor([tile.shape[:2] for tile in tiles])}


def of_gemma3(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    types = [[int(token == ids["<image_soft_token>"]) for token in prompt]]
    return {"pixel_values": torch.stack(channels_first(tiles)), "token_type_ids": torch.tensor(types)}


def of_paligemma(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """All tokens of a prompt are of its prefix."""
    types = torch.zeros(1, len(prompt), dtype=torch.int64)
    return {"pixel_values": torch.stack(channels_first(tiles)), "token_type_ids": types}


def of_gemma4(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """All pictures are as many patches as the largest may have; those that are none have no place."""
    pixels, places = torch.zeros(len(tiles), 24, 3 * 8 * 8), torch.full((len(tiles), 24, 2), -1)
    for number, tile in enumerate(tiles):
        patches = cut(tile, 1).reshape(-1, 3 * 8 * 8)
        rows, columns = (axis.flatten() for axis in torch.tensor(np.indices([side // 8 for side in tile.shape[:2]])))
        pixels[number, : len(patches)] = patches
        places[number, : len(patches)] = torch.stack([columns, rows], dim=-1)
    types = [[int(token == ids["<|image|>"]) for token in prompt]]
    return {"pixel_values": pixels, "image_position_ids": places, "mm_token_type_ids": torch.tensor(types)}


def of_gemma4_unified(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """The same of patches of 16 pixels, six of the largest picture."""
    pixels, places = torch.zeros(len(tiles), 6, 3 * 16 * 16), torch.full((len(tiles), 6, 2), -1)
    for number, tile in enumerate(tiles):
        height, width = (side // 16 for side in tile.shape[:2])
        patches = torch.tensor(tile).reshape(height, 16, width, 16, 3).permute(0, 2, 1, 3, 4).reshape(-1, 768)
        rows, columns = (axis.flatten() for axis in torch.tensor(np.indices([height, width])))
        pixels[number, : len(patches)] = patches
        places[number, : len(patches)] = torch.stack([columns, rows], dim=-1)
    types = [[int(token == ids["<|image|>"]) for token in prompt]]
    return {"pixel_values": pixels, "image_position_ids": places, "mm_token_type_ids": torch.tensor(types)}


def of_llava_onevision(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """Blocks of mosaics, as many of each as the one with the most has; and sizes of which as much is left of them."""
    mosaics = [Mosaic.of(*tile.shape[:2], 36) for tile in tiles]
    pixels = torch.zeros(len(tiles), max(mosaic.num_blocks for mosaic in mosaics), 3, 36, 36)
    for number, (mosaic, tile) in enumerate(zip(mosaics, tiles, strict=True)):
        pixels[number, : mosaic.num_blocks] = torch.stack(channels_first(mosaic.blocks(tile, 36)))
    return {"pixel_values": pixels, "image_sizes": torch.tensor([mosaic.grid(4) for mosaic in mosaics]) * 9}


def of_idefics3(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    return {"pixel_values": torch.stack(channels_first(tiles))[None]}


def of_internvl(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    return {"pixel_values": torch.stack(channels_first(tiles))}


def cut(tile: np.ndarray, merge: int) -> Any:
    """[rows / merge, columns / merge, merge, merge, 8, 8, 3]"""
    height, width, _ = tile.shape
    cut = torch.tensor(tile).reshape(height // 8 // merge, merge, 8, width // 8 // merge, merge, 8, 3)
    return cut.permute(0, 3, 1, 4, 2, 5, 6)


def of_glm(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    return of_qwen(prompt, {"<|image_pad|>": ids["<|image|>"]}, tiles)


def of_paddleocr_vl(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    patches = [cut(tile, 1).permute(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3, 8, 8) for tile in tiles]
    places = of_qwen(prompt, {"<|image_pad|>": ids["<|IMAGE_PLACEHOLDER|>"]}, tiles)
    return {**places, "pixel_values": torch.cat(patches)}


def of_qwen(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    cuts = [cut(tile, 2).permute(0, 1, 2, 3, 6, 4, 5)[:, :, :, :, :, None] for tile in tiles]
    frames = [cut.expand(*cut.shape[:5], 2, 8, 8).reshape(-1, 3 * 2 * 8 * 8) for cut in cuts]
    types = [[int(token == ids["<|image_pad|>"]) for token in prompt]]
    grids = [[1, tile.shape[0] // 8, tile.shape[1] // 8] for tile in tiles]
    return {
        "pixel_values": torch.cat(frames),
        "image_grid_thw": torch.tensor(grids),
        "mm_token_type_ids": torch.tensor(types),
    }


def of_exaone4_5(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """As of Qwen, but that positions do not ask what a token is."""
    return {key: value for key, value in of_qwen(prompt, ids, tiles).items() if key != "mm_token_type_ids"}


def of_minicpmv4_6(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """Patches of all tiles beside each other, channel and line first."""
    cuts = [cut(tile, 1).reshape(-1, 8, 8, 3).permute(3, 1, 0, 2).reshape(3, 8, -1) for tile in tiles]
    sizes = torch.tensor([[tile.shape[0] // 8, tile.shape[1] // 8] for tile in tiles], dtype=torch.int32)
    return {"pixel_values": torch.cat(cuts, dim=-1)[None], "target_sizes": sizes}


def of_lfm2_vl(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    rows = [cut(tile, 1).reshape(-1, 3 * 8 * 8) for tile in tiles]
    most = max(map(len, rows))
    mask = torch.tensor([[1] * len(each) + [0] * (most - len(each)) for each in rows])
    padded = [torch.cat([each, torch.zeros(most - len(each), each.shape[1])]) for each in rows]
    shapes = torch.tensor([[tile.shape[0] // 8, tile.shape[1] // 8] for tile in tiles])
    return {"pixel_values": torch.stack(padded), "spatial_shapes": shapes, "pixel_attention_mask": mask}
