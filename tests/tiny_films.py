"""Tiny models that read videos, with what their files say of these; and small videos."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tiny_sights import picture, save

#: Few pixels, of which a frame is few rows: of the first two families in a frame, of the others in a video.
SIZES = {"qwen2": {"shortest_edge": 256, "longest_edge": 4096}, "qwen3": {"shortest_edge": 512, "longest_edge": 6144}}
MARK = "<|vision_start|><|video_pad|><|vision_end|>"


def save_model(folder: Path, name: str) -> Path:
    """A model of a family of tiny_sights that reads videos, too."""
    save(folder, name)
    template = (folder / "chat_template.jinja").read_text()
    end = "{% endif %}{% endfor %}<|im_end|>"
    text = template.replace(end, f"{{% elif part['type'] == 'video' %}}{MARK}{end}")
    assert text != template
    (folder / "chat_template.jinja").write_text(text)
    kind = f"Qwen{3 if name.startswith('qwen3') else 2}VLVideoProcessor"
    said = {
        "video_processor_type": kind,
        "size": SIZES["qwen3" if name.startswith("qwen3") else "qwen2"],
        "patch_size": 8,
    }
    (folder / "video_preprocessor_config.json").write_text(json.dumps(said))
    return folder


def frames(num: int, width: int, height: int, seed: int = 0) -> np.ndarray:
    """uint8 [num, height, width, 3]"""
    return np.stack([np.asarray(picture(width, height, seed * 100 + n)) for n in range(num)])


def video(num: int, width: int, height: int, seed: int = 0, fps: float = 16.0) -> tuple[np.ndarray, dict[str, Any]]:
    """As vLLM takes it: frames, and what is known of them."""
    return frames(num, width, height, seed), {"fps": fps}


def webp(num: int, width: int, height: int, seed: int = 0, fps: int = 10) -> bytes:
    """A file of it, without loss."""
    shown = [Image.fromarray(frame) for frame in frames(num, width, height, seed)]
    file = io.BytesIO()
    shown[0].save(file, "WEBP", save_all=True, append_images=shown[1:], duration=1000 // fps, lossless=True)
    return file.getvalue()
