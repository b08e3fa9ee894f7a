"""Encoding: how the numbers of a weight matrix are written in few bits. Names are the dtypes of graph constants.

    int8                one scale an output channel                                         8 bits
    int8.gG, int4.gG    one scale and one integer zero for each G inputs of a channel       8 or 4 + 32 / G
    int8.gG.affine, …   one scale and one offset for each G inputs                          8 or 4 + 64 / G
    int4p.gG            progressive: an integer scale and zero for each G inputs, and one
                        scale a channel; every product is the same integer as int8's        4 + 16 / G
    fp4.g32, fp4.g16    microscaled: e2m1 numbers, one scale a channel and one in a byte for each G
                        inputs: a power of two (e8m0, MXFP4) of 32, e4m3 (NVFP4) of 16      4 + 8 / G
    q2_k, q3_k, q4_k,   nested, as ggml's K blocks: a byte of scale, and of offset but in q3_k and
    q5_k, q6_k          q6_k, for each 32 (q4_k, q5_k) or 16 inputs, and a float16 of each for 256     3.1 to 6.6
    iq4_xs, iq3_xxs,    nested, with ggml's numbers: codes of 4 bits stand for 16 numbers of 8 bits; a byte of
    iq3_s               scale for each 32 inputs, and a float16 for 256                     4.3
    iq2_xxs, iq1_s,     the same, codes of 3 bits for 6 numbers; a byte of scale for each 32 (the first two) or
    iq2_s, iq1_m        16 inputs                                                           3.3, 3.6
    fp8, fp8.g128       e4m3 numbers, one scale a channel or for each 128 inputs            8 (+ 32 / 128)

Used by graphs, by readers of checkpoints and by backends. Leaf module: does not know arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from albireo.errors import ConfigError

#: Inputs whose groups have scales that are whole multiples of one.
NEST = 256
#: Encodings whose codes stand for numbers of a table: name, bits of a code, group.
TABLES = (
    ("iq4_xs", 4, 32),
    ("iq3_xxs", 4, 32),
    ("iq3_s", 4, 32),
    ("iq2_xxs", 3, 32),
    ("iq2_s", 3, 16),
    ("iq1_s", 3, 32),
    ("iq1_m", 3, 16),
)
_GROUP_BYTES = {
    "integer": 4,
    "affine": 8,
    "progressive": 2,
    "microscaled": 1,
    "nested": 1,
    "nested affine": 2,
    "nested table": 1,
    "float": 4,
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to write a matrix [N, K].

    Fields:
        name: as in the module docstring.
        bits: of a code.
        group: inputs of a channel that share a scale; None: all of them.
        kind: integer: (code - zero) * scale; affine: code * scale + offset; progressive: (code - zero) * gamma * scale;
            float: e4m3(code) * scale; microscaled: e2m1(code) * e8m0 or e4m3(gamma) * scale; nested:
            (code - half of all) * gamma * scale; nested affine: code * gamma * scale + zero * offset; nested table:
            number[code] * gamma * scale.
    """

    name: str
    bits: int
    group: int | None
    kind: Literal["integer", "affine", "progressive", "microscaled", "nested", "nested affine", "nested table", "float"]

    @property
    def activation(self) -> str:
        """Type that a linear with such weights wants its input in, where the model computes in bfloat16."""
        return "bfloat16" if self.kind == "float" else "int8.token"

    @property
    def bytes_per_weight(self) -> float:
        """Scales and zeros of groups included, those of whole channels left out."""
        of_group = _GROUP_BYTES[self.kind]
        of_nest = 2 * of_group / NEST if self.is_nested else 0
        return self.bits / 8 + (of_group / self.group if self.group else 0) + of_nest

    @property
    def is_nested(self) -> bool:
        return self.kind in ("nested", "nested affine", "nested table")

    @property
    def unit(self) -> int | None:
        """Inputs of a channel that cannot be parted: those that share a scale, at whatever level; None: all of them."""
        return NEST if self.is_nested else self.group

    def num_nests(self, k: int) -> int:
        return -(-k // NEST)

    def num_groups(self, k: int) -> int:
        """Scales of a channel of k inputs; the last group may be short."""
        return 1 if self.group is None else -(-k // self.group)

    def __str__(self) -> str:
        return self.name


def _all() -> Iterator[Encoding]:
    for bits in (8, 4):
        if bits == 8:
            yield Encoding("int8", 8, None, "integer")
        for group in (16, 32, 64, 128):
            if bits == 8 or group > 16:
                yield Encoding(f"int{bits}.g{group}", bits, group, "integer")
                yield Encoding(f"int{bits}.g{group}.affine", bits, group, "affine")
    for group in (32, 64, 128):
        yield Encoding(f"int4p.g{group}", 4, group, "progressive")
    yield Encoding("fp4.g32", 4, 32, "microscaled")
    yield Encoding("fp4.g16", 4, 16, "microscaled")
    for bits, group in ((2, 16), (3, 16), (4, 32), (5, 32), (6, 16)):
        yield Encoding(f"q{bits}_k", bits, group, "nested" if bits in (3, 6) else "nested affine")
    for name, bits, group in TABLES:
        yield Encoding(name, bits, group, "nested table")
    yield Encoding("fp8", 8, None, "float")
    yield Encoding("fp8.g128", 8, 128, "float")


#: What a nested matrix becomes where a scale of each group has to be a number: the same numbers, but that of scales of
#: q6_k, which have up to 19 significant bits, 16 are kept. Codes of q3_k are multiplied by their group's scale. Numbers
#: of iq3_s lie at equal distances, so an offset says where they begin.
_PLAIN = {
    **{name: f"int8.g{group}" for name, _, group in TABLES},
    "iq3_s": "int4.g32.affine",
    "q2_k": "int8.g16.affine",
    "q3_k": "int8.g128",
    "q4_k": "int4.g32.affine",
    "q5_k": "int8.g32.affine",
    "q6_k": "int8.g16",
}
#: Every encoding by name.
ENCODINGS: Mapping[str, Encoding] = {item.name: item for item in _all()}


def encoding(name: str) -> Encoding:
    """The encoding of this name. Raises: ConfigError for one that does not exist."""
    if name not in ENCODINGS:
        raise ConfigError(f"encoding {name!r} is not known; there are {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def plain_encoding(e: Encoding) -> Encoding:
    """What a matrix becomes without nests; itself where it has none."""
    return encoding(_PLAIN.get(e.name, e.name))


def is_encoding(name: str) -> bool:
    """Whether a dtype of a graph constant is one of these names."""
    return name in ENCODINGS
