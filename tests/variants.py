"""Tiny configs by name: an architecture's own, and those whose files say what makes another model of it."""

from __future__ import annotations

from typing import Any

from albireo.models import Architecture, load_architecture

#: Name, the architecture first -> what is said besides.
VARIANTS: dict[str, dict[str, Any]] = {
    "gemma4_text, experts": {
        "enable_moe_block": True,
        "num_experts": 7,
        "top_k_experts": 3,
        "moe_intermediate_size": 20,
    },
}


def architecture_of(name: str) -> Architecture:
    """Of an architecture's name, or a variant's."""
    return load_architecture(name.partition(",")[0])


def tiny_of(name: str) -> dict[str, Any]:
    """The tiny config of an architecture, or of a variant."""
    return {**architecture_of(name).tiny, **VARIANTS.get(name, {})}
