"""Schemes: what a user asks for in a word, as an encoding for each matrix of a model.

Called by whoever builds a graph to run or to write; the pass choose_precision puts the encodings into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from albireo.encodings import encoding
from albireo.errors import ConfigError

#: Scheme -> encoding of the linears, and of the head where nothing else is asked for.
SCHEMES: Mapping[str, tuple[str, str]] = {
    "int8": ("int8", "int8"),
    "fp8": ("fp8", "fp8"),
    "fp8-a16": ("fp8", "fp8"),
    "int4": ("int4.g64", "int8"),
    "int4-g32": ("int4.g32", "int8"),
    "int4-g64": ("int4.g64", "int8"),
    "int4-g128": ("int4.g128", "int8"),
    "mxfp4": ("fp4.g32", "int8"),
    "nvfp4": ("fp4.g16", "int8"),
}
#: Schemes that say that activations keep 16 bits, also where the weights' bits would be multiplied faster with 8.
WEIGHT_ONLY = ("fp8-a16",)
#: What the head may be kept in, beside the scheme's.
HEADS: Mapping[str, str | None] = {
    "int8": "int8",
    "fp8": "fp8",
    "int4-g32": "int4.g32",
    "int4-g64": "int4.g64",
    "int4-g128": "int4.g128",
    "bf16": None,
}


@dataclass(frozen=True, slots=True)
class Precision:
    """Which matrices are held in few bits.

    Fields:
        scheme: a key of SCHEMES; None: nothing is quantized that is not already.
        head: a key of HEADS; None: what the scheme says.
        stored: matrix -> encoding, of a checkpoint that is quantized already.
        is_stored_weight_only: such a checkpoint was made for activations of 16 bits.
    """

    scheme: str | None = None
    head: str | None = None
    stored: Mapping[str, str] = field(default_factory=dict)
    is_stored_weight_only: bool = False

    def __post_init__(self) -> None:
        if self.scheme is not None and self.scheme not in SCHEMES:
            raise ConfigError(f"quantization={self.scheme!r} is not known; choose {', '.join(SCHEMES)}")
        if self.head is not None and self.head not in HEADS:
            raise ConfigError(f"quantization_head={self.head!r} is not known; choose {', '.join(HEADS)}")
        if self.scheme is not None and self.stored:
            raise ConfigError(
                f"quantization={self.scheme}: this checkpoint is quantized already, in "
                f"{', '.join(sorted(set(self.stored.values())))}; leave it out, or give the original checkpoint"
            )
        for name in self.stored.values():
            encoding(name)

    @property
    def is_plain(self) -> bool:
        """Whether every matrix stays as it is."""
        return self.scheme is None and self.head is None and not self.stored

    @property
    def is_weight_only(self) -> bool:
        """Whether activations beside e4m3 weights keep 16 bits on every device."""
        return self.is_stored_weight_only if self.stored else self.scheme in WEIGHT_ONLY

    def of(self, name: str, role: str | None) -> str | None:
        """The encoding of a matrix by its name in the checkpoint and its role; None: it stays in the compute type.

        What experts are chosen by is only in few bits where the checkpoint has it so: other engines do the same.
        """
        is_head = role == "vocab"
        if name in self.stored:
            return self.stored[name]
        if role == "router":
            return None
        if is_head and self.head is not None:
            return HEADS[self.head]
        if self.scheme is None or self.stored:
            return None
        return SCHEMES[self.scheme][is_head]
