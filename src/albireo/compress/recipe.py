"""Recipe: what is asked of a quantization, and what that means for each linear of a model.

Made by cli/quantize.py and by tests; read by run.py. Does not know weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from albireo.compress.stages import Group
from albireo.encodings import Encoding, encoding
from albireo.errors import ConfigError
from albireo.quantization import schemes

#: Scheme -> the encoding of every linear but the head. 4-bit floats are for loading only. int4 is progressive where
#: that costs little.
SCHEMES: Mapping[str, str] = {
    **{name: linears for name, (linears, _) in schemes.SCHEMES.items() if encoding(linears).kind != "microscaled"},
    "int4": "int4p.g64",
}
MIXED = "mixed"
METHODS = ("rtn", "smoothquant", "awq", "gptq")
#: What the head becomes -> encoding; "bf16" leaves it in the checkpoint's type.
HEADS = schemes.HEADS
#: What a linear of a mixed scheme may be, from few bits to many; None leaves it as it is.
MIXED_CHOICES = ("int4.g128", "int4.g64", "int4.g32", "int8", None)
DEFAULT_METHODS: Mapping[str, str] = {"int8": "smoothquant", "fp8": "rtn", "fp8-a16": "rtn"}
_SMALLER = (64, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is asked.

    Fields:
        scheme: of SCHEMES, or MIXED. method: of METHODS.
        head: of HEADS: what the vocabulary head becomes.
        keep: modules that stay as they are: shell patterns of their names, or a part between dots, as down_proj.
        target_bits: of MIXED: bits a weight, scales included, over all linears that may be quantized.
    Raises: ConfigError for what contradicts itself.
    """

    scheme: str
    method: str
    head: str = "bf16"
    keep: tuple[str, ...] = ()
    target_bits: float | None = None

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES and self.scheme != MIXED:
            raise ConfigError(f"scheme {self.scheme!r} is not known; choose {', '.join((*SCHEMES, MIXED))}")
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r} is not known; choose {', '.join(METHODS)}")
        if self.head not in HEADS:
            raise ConfigError(f"head {self.head!r} is not known; choose {', '.join(HEADS)}")
        if (self.scheme == MIXED) != (self.target_bits is not None):
            raise ConfigError("target_bits goes with scheme mixed, which needs it: 4.5, for example")
        if self.target_bits is not None and not 4.0 < self.target_bits <= 16.0:
            raise ConfigError(f"target_bits={self.target_bits} must be above 4 and at most 16")
        if "lm_head" in self.keep and HEADS[self.head] is not None:
            raise ConfigError(f"keep lm_head and head {self.head} contradict each other; leave one out")


def default_method(scheme: str) -> str:
    """The one that measured best; see docs/quantization.md."""
    return DEFAULT_METHODS.get(scheme, "gptq")


#: Weight tensor -> what it becomes; absent ones stay as they are.
Choice = dict[str, Encoding]


def fixed_choice(recipe: Recipe, groups: Iterable[Group], widths: Mapping[str, int]) -> Choice:
    """The encodings of a scheme that is the same for all. widths: inputs of each weight.

    Raises: ConfigError for a pattern in keep that fits no linear.
    """
    kept = kept_weights(recipe, groups)
    choice: Choice = {}
    for group in groups:
        wanted = HEADS[recipe.head] if group.is_head else SCHEMES[recipe.scheme]
        for weight in group.weights:
            if wanted is not None and weight not in kept:
                choice[weight] = fitting(wanted, widths[weight])
    return choice


def kept_weights(recipe: Recipe, groups: Iterable[Group]) -> frozenset[str]:
    """Weights that keep says stay. Raises: ConfigError for a pattern that fits none."""
    modules = {module: weight for group in groups for module, weight in zip(group.modules, group.weights, strict=True)}
    # a tied head has no module of its own
    names = dict(modules)
    names.update(("lm_head", group.weights[0]) for group in groups if group.is_head)
    kept = set()
    for pattern in recipe.keep:
        found = {weight for name, weight in names.items() if fnmatchcase(name, pattern) or pattern in name.split(".")}
        if not found:
            raise ConfigError(f"keep {pattern!r} fits no linear of the model; the first is {next(iter(names))}")
        kept |= found
    return frozenset(kept)


def fitting(name: str, width: int) -> Encoding:
    """The encoding, or the nearest whose groups divide so many inputs, as the layout of checkpoints demands."""
    wanted = encoding(name)
    if wanted.group is None or width % wanted.group == 0:
        return wanted
    for group in _SMALLER:
        if group < wanted.group and width % group == 0:
            return encoding(name.replace(f".g{wanted.group}", f".g{group}"))
    return encoding("int8")


def stored_bits(coding: Encoding | None, shape: tuple[int, int], scale_bits: int) -> int:
    """Bits of a matrix in the checkpoint: codes, scales and zeros. None: 16 a weight."""
    n, k = shape
    if coding is None:
        return 16 * n * k
    zero_bits = 4 if coding.bits == 4 else 0
    return n * (coding.bits * k + coding.num_groups(k) * (scale_bits + zero_bits))
