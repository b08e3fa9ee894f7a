"""What all families are held to, and directories with what they read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albireo.images.processor import ImageProcessor, PreparedImage, open_processor


def opened(
    directory: Path,
    config: Mapping[str, Any],
    image: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
) -> ImageProcessor:
    """Of files that hold image and processor; where one is None, of what is there already."""
    directory.mkdir(exist_ok=True)
    for name, held in (("preprocessor_config.json", image), ("processor_config.json", processor)):
        if held is not None:
            (directory / name).write_text(json.dumps(held))
    return open_processor(directory, config)


def assert_prepared(
    processor: ImageProcessor, prepared: PreparedImage, expected: Sequence[np.ndarray], text: str
) -> None:
    """Bit for bit what transformers gives: float32 [3, height, width] of every tile, and the text."""
    assert [tile.shape[:2] for tile in prepared.tiles] == [each.shape[1:] for each in expected]
    for tile, each in zip(prepared.tiles, expected, strict=True):
        assert tile.dtype == np.uint8
        numbers = processor.normalized(tile)
        assert numbers.dtype == each.dtype == np.float32
        assert np.array_equal(numbers, np.moveaxis(each, 0, -1))
    assert prepared.text == text
    num_rows = sum(processor.rows(*tile.shape[:2]) for tile in prepared.tiles)
    assert prepared.text.count(processor.image_token) == num_rows
