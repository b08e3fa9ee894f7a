"""What a format says about a checkpoint: which matrices it holds, in which encoding, and how to read one.

Made by the files of this folder from tensor headers alone (and from tensors of a few numbers that describe others);
used by models.weights.Checkpoint. Does not know graphs, nor how tensors lie in files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.quantization.blocks import Blocks
from albireo.quantization.encoded import Encoded


class StoredTensors(Protocol):
    """The tensors of a checkpoint as they lie; see models.stored_tensors.

    Types are the names of the safetensors format: F32 F16 BF16 I8 U8 I32 I64 F8_E4M3 ...
    """

    @property
    def names(self) -> Iterable[str]: ...
    @property
    def settings(self) -> Mapping[str, Any]:
        """What the files say beside their tensors, by key; the values are whatever somebody wrote."""
        ...

    def __contains__(self, name: object) -> bool: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def type_name(self, name: str) -> str: ...
    def buffer(self, name: str) -> memoryview: ...


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight of the model, made of stored tensors.

    Fields:
        name, shape: as the float model has them.
        encoding: name of what read() gives; None: numbers.
        stored: the tensors it is made of.
        read: an Encoded, or numbers of shape and dtype (bfloat16 as words of 16 bits). Raises: WeightMismatch for a
            scale or weight that is not finite.
        dtype: of the numbers.
        note: what is not kept as it lies in the file, and why; "" where nothing is lost or grows.
        blocks: the same as read() gives, where it lies; None: it has to be read.
    """

    name: str
    shape: tuple[int, ...]
    encoding: str | None
    stored: tuple[str, ...]
    read: Callable[[], Encoded | NDArray[np.generic]]
    note: str = ""
    dtype: str = "float32"
    blocks: Callable[[], Blocks] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Fields:
    matrices: by name.
    unread: stored tensor -> why nobody needs it.
    is_weight_only: the checkpoint says that activations beside its e4m3 matrices keep 16 bits.
    """

    matrices: dict[str, Matrix] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    is_weight_only: bool = False

    def add(self, matrix: Matrix) -> None:
        self.matrices[matrix.name] = matrix


class Format(Protocol):
    """A way to write weights, with the settings of one checkpoint: what a file's parse() gives."""

    def plan(self, stored: StoredTensors) -> Plan:
        """Raises: WeightMismatch for tensors that do not fit each other; UnsupportedModel."""
        ...

    def foreseen(self, module: str) -> str | None:
        """Encoding of a linear's weight, as far as the settings say it, for whoever has no tensors; None: numbers.

        The head is left to whoever asks: settings seldom say of it what its tensors do.
        """
        ...


#: Last part of the names of scales that go with activations or with the KV cache.
_STATIC = (
    *("input_scale", "input_zero_point", "output_scale", "output_zero_point", "input_global_scale"),
    *("activation_scale", "act_scale"),  # of transformers (Ministral 3) and of AutoFP8's first files
)
_KV = ("k_scale", "v_scale", "q_scale", "k_zero_point", "v_zero_point", "prob_scale", "kv_scale")
STATIC_NOTE = "activations are scaled token by token, so the static scales of the checkpoint are not used"
KV_NOTE = "the KV cache needs no scales of the checkpoint; they are not used"


def unread_scales(stored: StoredTensors) -> dict[str, str]:
    """Tensor -> reason, of every scale that belongs to no weight."""
    reasons = {**dict.fromkeys(_STATIC, STATIC_NOTE), **dict.fromkeys(_KV, KV_NOTE)}
    endings = {name: reasons.get(name.rpartition(".")[2]) for name in stored.names}
    return {name: reason for name, reason in endings.items() if reason is not None}


def modules_with(stored: StoredTensors, part: str) -> list[str]:
    """The modules X for which there is a tensor X.part."""
    return [name.removesuffix(f".{part}") for name in stored.names if name.endswith(f".{part}")]


def require(stored: StoredTensors, name: str, types: Iterable[str], shape: tuple[int, ...] | None = None) -> str:
    """name, if it is there with one of these types and this shape.

    Raises: WeightMismatch.
    """
    if name not in stored:
        raise WeightMismatch(
            f"there is no tensor {short(name)}, which its neighbours need; the checkpoint is incomplete"
        )
    types = tuple(types)
    if stored.type_name(name) not in types:
        raise WeightMismatch(f"tensor {short(name)} has type {stored.type_name(name)}; it must be {' or '.join(types)}")
    if shape is not None and stored.shape(name) != shape:
        raise WeightMismatch(f"tensor {short(name)} is {list(stored.shape(name))}; its neighbours imply {list(shape)}")
    return name


def matrix_shape(stored: StoredTensors, name: str) -> tuple[int, int]:
    """Raises: WeightMismatch when the tensor is no matrix, or an empty one."""
    shape = stored.shape(name)
    if len(shape) != 2 or not all(shape):
        raise WeightMismatch(f"tensor {short(name)} is {list(shape)}; it must be a matrix")
    return shape[0], shape[1]
