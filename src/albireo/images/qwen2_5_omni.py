"""Qwen25Omni: Qwen2-VL's pictures under the names that Qwen2.5-Omni has for tokens.

Chat templates write <|vision_bos|><|IMAGE|><|vision_eos|>; it is the middle that becomes rows. Called by processor.py.
"""

from __future__ import annotations

from albireo.images.qwen2_vl import Qwen2VL


class Qwen25Omni(Qwen2VL):
    """See ImageProcessor."""

    image_token = placeholder = "<|IMAGE|>"
