"""Encoding: how the numbers of a weight matrix are written in few bits. Names are the dtypes of graph constants.

    int8                one scale an output channel                                         8 bits
    int8.gG, int4.gG    one scale and one integer zero for each G inputs of a channel       8 or 4 + 32 / G
    int8.gG.affine, …   one scale and one offset for each G inputs                          8 or 4 + 64 / G
    int4p.gG            progressive: an integer scale and zero for each G inputs, and one
                        scale a channel; every product is the same integer as int8's        4 + 16 / G
    fp8, fp8.g128       e4m3 numbers, one scale a channel or for each 128 inputs            8 (+ 32 / 128)

Used by graphs, by readers of checkpoints and by backends. Leaf module: does not know arrays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from albireo.errors import ConfigError

GROUPS = (16, 32, 64, 128)
_NAME = re.compile(r"(int8|int4|int4p|fp8)(?:\.g(\d+))?(?:\.(affine))?")


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to write a matrix [N, K].

    Fields:
        name: as in the module docstring.
        bits: of a code.
        group: inputs of a channel that share a scale; None: all of them.
        kind: integer: (code - zero) * scale; affine: code * scale + offset; progressive: (code - zero) * gamma * scale;
            float: e4m3(code) * scale.
    """

    name: str
    bits: int
    group: int | None
    kind: Literal["integer", "affine", "progressive", "float"]

    @property
    def activation(self) -> str:
        """Type that a linear with such weights wants its input in, where the model computes in bfloat16."""
        return "bfloat16" if self.kind == "float" else "int8.token"

    def num_groups(self, k: int) -> int:
        """Scales of a channel of k inputs; the last group may be short."""
        return 1 if self.group is None else -(-k // self.group)

    def __str__(self) -> str:
        return self.name


@cache
def encoding(name: str) -> Encoding:
    """The encoding of this name. Raises: ConfigError for one that does not exist."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(f"encoding {name!r} is not known; examples: int8, int8.g32, int4.g64, int4.g32.affine, fp8")
    family, group_text, affine = match.groups()
    group = int(group_text) if group_text else None
    allowed: tuple[int | None, ...] = GROUPS if family.startswith("int8") else GROUPS[1:]
    if family == "fp8":
        allowed = (None, 128)
    elif family == "int8" and not affine:
        allowed = (None, *allowed)
    if group not in allowed or (affine and family in ("fp8", "int4p")):
        listed = ", ".join("none" if g is None else str(g) for g in allowed)
        raise ConfigError(f"encoding {name!r} is not known; groups of {family}: {listed}")
    kind: Literal["integer", "affine", "progressive", "float"] = "integer"
    if family == "fp8":
        kind = "float"
    elif family == "int4p":
        kind = "progressive"
    elif affine:
        kind = "affine"
    return Encoding(name, 4 if family.startswith("int4") else 8, group, kind)


def is_encoding(name: str) -> bool:
    """Whether a dtype of a graph constant is one of these names."""
    return _NAME.fullmatch(name) is not None
