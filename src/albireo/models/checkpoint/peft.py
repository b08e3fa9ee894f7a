"""PeftAdapter: an adapter of low rank (LoRA) from a directory as PEFT writes it, checked against a model.

Called by api/adapters.py. Reads adapter_config.json and adapter_model.safetensors and no other file, hence no code.
What would change results and is not computed is refused by name. Does not know slots, requests or devices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from hashlib import sha256
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ModelError, UnsupportedModel, WeightMismatch, short
from albireo.json_file import Fields, keys, read_json
from albireo.models.checkpoint.safetensors_file import RawTensor, SafetensorsFile, raw_tensor
from albireo.models.checkpoint.text_tensors import text_name

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
#: Far above any adapter.
MAX_RANK = 2**12
MAX_ALPHA = 2.0**20
#: Modules that an error names.
_MOST_NAMED = 4
#: What PEFT puts before the name of a module of the model.
PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
#: Of rank_pattern and alpha_pattern: names, or ends of names. Other patterns could take for ever.
_PLAIN = re.compile(r"\^?[A-Za-z0-9_.\-]+\$?")

#: Keys that do not change what is computed from given weights.
_IGNORABLE = keys(
    "peft_version auto_mapping base_model_name_or_path revision inference_mode task_type lora_dropout runtime_config",
    # which modules were trained: the file has those
    "layers_to_transform layers_pattern exclude_modules",
    # how A and B began
    "eva_config loftq_config corda_config lora_ga_config ensure_weight_tying",
    # of what is refused when it is asked for: use_qalora, megatron_config. PEFT writes them always
    "qalora_group_size megatron_core",
)
#: Ways to begin that leave the model's own weights as they were.
_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {"bias": ("none",), "init_lora_weights": _BEGINNINGS}


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """One adapter in memory of its own; the directory may go.

    Fields:
        rank: the largest of its modules.
        digest: SHA-256 of all that was read, in hexadecimal.
    """

    rank: int
    num_bytes: int
    digest: str
    _matrices: Mapping[str, tuple[RawTensor, RawTensor, float]] = field(repr=False)

    @property
    def modules(self) -> Set[str]:
        return self._matrices.keys()

    def matrices(self, module: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See AdapterWeights. Cost: copies of both."""
        a, b, scale = self._matrices[module]
        return a.to_float32(), b.to_float32() * np.float32(scale)


def read_adapter(directory: Path, shapes: Mapping[str, tuple[int, int]], max_rank: int) -> PeftAdapter:
    """Read and check one.

    Args: shapes: module -> outputs, inputs of those that may have an adapter.
    Raises: ModelError, UnsupportedModel, WeightMismatch naming what is wrong, and what is possible.
    """
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise ModelError(f"{directory}: has no {CONFIG_FILE}; a LoRA adapter as PEFT saves it is wanted")
    if not (directory / WEIGHTS_FILE).is_file():
        raise ModelError(f"{directory}: has no {WEIGHTS_FILE}; other formats are not read: save it as safetensors")
    settings = _Settings.read(path)
    if settings.max_rank > max_rank:
        raise UnsupportedModel(
            f"{path}: has rank {settings.max_rank}, max_lora_rank={max_rank} is what slots have room for; start with "
            f"--max-lora-rank {settings.max_rank}"
        )
    file = SafetensorsFile(directory / WEIGHTS_FILE)
    try:
        pairs = _pairs(file, shapes)
        settings.check_targets(set(pairs))
        matrices = {}
        for said, sides in pairs.items():
            module = _module(said, shapes)
            if module in matrices:
                raise WeightMismatch(f"{file.path}: {module} is there twice, also as {short(said)}; one must go")
            _check_shapes(file, module, sides, shapes[module], settings.rank_of(said))
            a, b = (_copy(file, sides[side]) for side in "AB")
            matrices[module] = (a, b, settings.scale_of(said))
    finally:
        file.close()
    num_bytes = sum(a.num_bytes + b.num_bytes for a, b, _ in matrices.values())
    rank = max(a.shape[0] for a, _, _ in matrices.values())
    return PeftAdapter(rank, num_bytes, _digest(path, matrices), matrices)


def adapter_rank(directory: Path) -> int:
    """Rank that a slot needs for an adapter. Raises: ModelError, UnsupportedModel."""
    return _Settings.read(directory / CONFIG_FILE).max_rank


@dataclass(frozen=True, slots=True)
class _Settings:
    """What adapter_config.json says."""

    where: str
    rank: int
    alpha: float
    is_rank_stabilized: bool
    targets: tuple[str, ...]
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    @classmethod
    def read(cls, path: Path) -> _Settings:
        fields = Fields(read_json(path), str(path))
        kind = fields.text("peft_type")
        if kind != "LORA":
            fields.unsupported("peft_type", kind, "adapters of type LORA are")
        targets = fields.raw("target_modules")
        names = fields.texts("target_modules") if isinstance(targets, list) else ()
        if targets is not None and not isinstance(targets, (list, str)):
            fields.fail("target_modules", targets, "must be a list of names, or a pattern")
        for key in ("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication"):
            if fields.raw(key):
                fields.unsupported(key, fields.raw(key), "only pairs of low-rank matrices beside linears are computed")
        found = cls(
            where=str(path),
            rank=fields.integer("r", 1, MAX_RANK),
            alpha=fields.number("lora_alpha", 0.0, MAX_ALPHA, 8.0),
            is_rank_stabilized=fields.flag("use_rslora", False),
            targets=names,
            ranks=_patterns(fields, "rank_pattern", 1, MAX_RANK),
            alphas=_patterns(fields, "alpha_pattern", 0, MAX_ALPHA),
        )
        fields.refuse_unread(_IGNORABLE, _NEUTRAL)
        return found

    @property
    def max_rank(self) -> int:
        return max([self.rank, *self.ranks.values()])

    def rank_of(self, module: str) -> int:
        return int(_of(module, self.ranks, self.rank))

    def scale_of(self, module: str) -> float:
        """What the product of both matrices is multiplied with."""
        rank, alpha = self.rank_of(module), _of(module, self.alphas, self.alpha)
        return float(alpha) / (sqrt(rank) if self.is_rank_stabilized else rank)

    def check_targets(self, modules: set[str]) -> None:
        """Raises: WeightMismatch when the file has a module that the list does not name, which PEFT would not read."""
        for module in sorted(modules):
            if self.targets and not any(_is_end(module, name) for name in self.targets):
                raise WeightMismatch(
                    f"{self.where}: target_modules {short(list(self.targets))} do not name {module}, which the file has"
                )


def _is_end(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _of(module: str, patterns: Mapping[str, Any], default: Any) -> Any:
    """The value of the first pattern that a module meets, as PEFT has it: at its end, or all of it."""
    for pattern, value in patterns.items():
        name = pattern.removesuffix("$")
        if module == name[1:] if name.startswith("^") else _is_end(module, name):
            return value
    return default


def _patterns(fields: Fields, key: str, low: float, high: float) -> dict[str, Any]:
    found = fields.table(key) or {}
    for pattern, value in found.items():
        if not _PLAIN.fullmatch(pattern):
            fields.unsupported(key, found, f"{short(pattern)} is not a name of modules, or the end of one")
        numbers = (int,) if key == "rank_pattern" else (int, float)
        if type(value) not in numbers or not low <= value <= high:
            fields.fail(key, found, f"must hold numbers from {low:g} to {high:g}")
    return found


def _module(said: str, shapes: Mapping[str, tuple[int, int]]) -> str:
    """What a module of the file is called here: of a model with other parts than text the file names the part, too."""
    return said if said in shapes else text_name(said)


def _pairs(file: SafetensorsFile, shapes: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, str]]:
    """module, as the file has it -> side -> name of the tensor.

    Raises: UnsupportedModel, WeightMismatch for any other tensor.
    """
    pairs: dict[str, dict[str, str]] = {}
    for name in file.names:
        found = _TENSOR.fullmatch(name.removeprefix(PREFIX))
        if found is None:
            raise UnsupportedModel(
                f"{file.path}: tensor {name!r:.200} is not half of a low-rank pair of a linear (lora_A.weight, "
                "lora_B.weight); adapters of embeddings, biases and magnitudes are not computed"
            )
        module = found["module"]
        if _module(module, shapes) not in shapes:
            raise UnsupportedModel(f"{file.path}: has an adapter of {module:.200}; {_adaptable(module, shapes)}")
        pairs.setdefault(module, {})[found["side"]] = name
    for module, sides in pairs.items():
        if set(sides) != {"A", "B"}:
            raise WeightMismatch(f"{file.path}: {module} has lora_{''.join(sides)} alone")
    if not pairs:
        raise WeightMismatch(f"{file.path}: holds no tensors")
    return pairs


def _adaptable(module: str, shapes: Mapping[str, tuple[int, int]]) -> str:
    """Which modules of the model can have an adapter: those that are called alike in other layers, if there are any."""
    kind = module.rpartition(".")[2]
    alike = sorted(name for name in shapes if name.rpartition(".")[2] == kind)
    if alike:
        more = f" and {len(alike) - _MOST_NAMED} more" if len(alike) > _MOST_NAMED else ""
        return f"of this model's {kind} these can have one: {', '.join(alike[:_MOST_NAMED])}{more}"
    known = sorted({name.rpartition(".")[2] for name in shapes})
    return f"of this model these can have one: {', '.join(known)}; the head cannot"


def _check_shapes(
    file: SafetensorsFile, module: str, sides: Mapping[str, str], shape: tuple[int, int], rank: int
) -> None:
    outputs, inputs = shape
    for side, wanted in (("A", (rank, inputs)), ("B", (outputs, rank))):
        found = file.shape(sides[side])
        if found != wanted:
            raise WeightMismatch(
                f"{file.path}: lora_{side} of {module} is {list(found)}; rank {rank} beside the model's "
                f"{outputs} x {inputs} means {list(wanted)}"
            )


def _digest(config: Path, matrices: Mapping[str, tuple[RawTensor, RawTensor, float]]) -> str:
    """Of what was read, so that it is that also when the file changes meanwhile."""
    found = sha256(config.read_bytes())
    for module, (a, b, _) in matrices.items():
        for tensor in (a, b):
            found.update(f"{module} {tensor.dtype} {tensor.shape}".encode())
            found.update(tensor.buffer)
    return found.hexdigest()


def _copy(file: SafetensorsFile, name: str) -> RawTensor:
    """Raises: WeightMismatch for an element type that is not read, or a number that is not finite."""
    stored = file.tensor(name)
    if not np.isfinite(stored.to_float32()).all():
        raise WeightMismatch(f"{file.path}: tensor {short(name)} holds numbers that are not finite")
    kind = np.float32 if stored.dtype == "float32" else np.uint16
    numbers = np.frombuffer(stored.buffer, np.uint8).copy().view(kind).reshape(stored.shape)
    return raw_tensor(name, stored.dtype, numbers)
