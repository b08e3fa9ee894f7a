"""What transformers' processors ask of torchvision, which is not installed, by Pillow and torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")


def colours_of(image: Image.Image) -> Any:
    """uint8 [3, H, W]"""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resize(self: Any, image: Any, size: Any, resample: Any = None, **_: Any) -> Any:
    """uint8 [N, 3, H, W] with Pillow."""
    pictures = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in image]
    arrays = [np.asarray(each.resize((size.width, size.height), resample)) for each in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def normalize(self: Any, images: Any, mean: Any, std: Any, **_: Any) -> Any:
    """What torchvision does: less a tensor of the same type, by another."""
    less, by = (torch.as_tensor(each).to(images.dtype).view(-1, 1, 1) for each in (mean, std))
    return images.sub(less).div(by)


def pad(images: Any, padding: Sequence[int], fill: Any) -> Any:
    """Black at the right and below."""
    left, top, right, bottom = (int(each) for each in padding)
    assert not any(fill)
    return torch.nn.functional.pad(images, (left, right, top, bottom))


def pad_to(self: Any, images: Any, pad_size: Any, **_: Any) -> Any:
    """Black at the right and below, up to a size."""
    height, width = images.shape[-2:]
    return pad(images, (0, 0, pad_size.width - width, pad_size.height - height), (0,))
