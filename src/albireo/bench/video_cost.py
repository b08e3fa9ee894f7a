"""What becomes of a video in a prompt: the frames that are read of it, and the tokens that they are.

Called by plan.py and cli/facts.py. Reads no video: what is read is said by its length and size.
"""

from __future__ import annotations

from typing import Any

from albireo.api.media.perception import Perception, Vision
from albireo.videos.decode import Footage

#: Of 25 frames a second.
SECONDS = 10
SIZE = (1280, 720)
_RATE = 25.0


def video_figures(perception: Perception | str) -> dict[str, Any] | None:
    """Of a video of some seconds; None: the model reads none."""
    if not isinstance(perception, Vision) or isinstance(perception.videos, str):
        return None
    processor, (width, height) = perception.videos, SIZE
    count = len(processor.choose(Footage(int(SECONDS * _RATE), _RATE, width, height)))
    tall, wide = processor.size(count, height, width)
    return {
        "seconds": SECONDS,
        "size": list(SIZE),
        "frames": count,
        "frame_size": [wide, tall],
        "tokens": processor.num_rows(count, tall, wide),
    }


def video_text(figures: dict[str, Any]) -> str:
    """A line that says them."""
    (width, height), (wide, tall) = figures["size"], figures["frame_size"]
    return (
        f"of {figures['seconds']} s, {width:,} x {height:,} pixels: {figures['tokens']:,} tokens, {figures['frames']} "
        f"frames of {wide:,} x {tall:,}"
    )
