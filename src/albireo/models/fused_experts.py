"""Checkpoints that hold all experts of a layer in one tensor, read as a matrix for each.

transformers has them so in memory, and writes them so where it is told not to restore the names that models were
published with. Called by weights.py. Does not know graphs.

    X.mlp.experts.gate_up_proj  [experts, 2 F, H], gate first    X.mlp.experts.down_proj  [experts, H, F]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from albireo.errors import WeightMismatch, short
from albireo.models.safetensors_file import RawTensor
from albireo.models.safetensors_files import SafetensorsFiles

_GATE_UP, _DOWN = ".mlp.experts.gate_up_proj", ".mlp.experts.down_proj"
_MAX_EXPERTS = 2**12
#: model_type -> how its published names differ from the names in memory.
_NAMES = {
    "mixtral": {"mlp": "block_sparse_moe", "gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"},
}


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows first .. first + shape[0] of a tensor whose leading dims are one."""

    stored: str
    first: int
    shape: tuple[int, ...]


class FusedExperts(SafetensorsFiles):
    """As SafetensorsFiles; a tensor of all experts is there as the matrices of each.

    Raises: as SafetensorsFiles; WeightMismatch for such a tensor of another shape.
    """

    def __init__(self, stored: SafetensorsFiles, model_type: str) -> None:
        self.directory = stored.directory
        self._stored = stored
        self._parts: dict[str, _Part] = {}
        for name in stored.names:
            for new, part in _parts(name, stored.shape(name), _NAMES.get(model_type, {})):
                self._parts[new] = part

    @property
    def names(self) -> tuple[str, ...]:
        """Every weight, sorted."""
        return tuple(sorted(self._parts))

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises: WeightMismatch for an unknown name."""
        return self._part(name).shape

    def tensor(self, name: str) -> RawTensor:
        """The matrix where it lies. Raises: WeightMismatch for an unknown name or an element type not read."""
        part = self._part(name)
        whole = self._stored.tensor(part.stored)
        start, stop = self._range(part, whole.buffer)
        return RawTensor(name, whole.dtype, part.shape, whole.buffer[start:stop], whole.address + start)

    def release(self, name: str) -> None:
        """Let the pages of its tensor go, other experts' too; using them again reads them from disk."""
        self._stored.release(self._part(name).stored)

    def dtype(self, name: str) -> str | None:
        """See SafetensorsFiles."""
        return self._stored.dtype(self._part(name).stored)

    def type_name(self, name: str) -> str:
        """See SafetensorsFiles."""
        return self._stored.type_name(self._part(name).stored)

    def buffer(self, name: str) -> memoryview:
        """The bytes of a weight."""
        part = self._part(name)
        whole = self._stored.buffer(part.stored)
        return whole[slice(*self._range(part, whole))]

    @property
    def settings(self) -> Mapping[str, str]:
        """See SafetensorsFiles."""
        return self._stored.settings

    def close(self) -> None:
        """See SafetensorsFiles."""
        self._stored.close()

    def _part(self, name: str) -> _Part:
        part = self._parts.get(name)
        if part is None:
            raise WeightMismatch(f"{self.directory}: there is no tensor {short(name)}")
        return part

    def _range(self, part: _Part, whole: memoryview) -> tuple[int, int]:
        """First and end of its bytes."""
        shape = self._stored.shape(part.stored)
        if part.shape == shape:
            return 0, len(whole)
        row = len(whole) // (shape[0] * shape[1])
        return part.first * row, (part.first + part.shape[0]) * row


def split_experts(stored: SafetensorsFiles, model_type: str) -> SafetensorsFiles:
    """stored, or what makes matrices of its tensors of all experts where it has such.

    Raises: WeightMismatch for one of another shape.
    """
    is_fused = any(name.endswith((_GATE_UP, _DOWN)) for name in stored.names)
    return FusedExperts(stored, model_type) if is_fused else stored


def _parts(name: str, shape: tuple[int, ...], names: Mapping[str, str]) -> Iterator[tuple[str, _Part]]:
    layer, _, rest = name.partition(".mlp.")
    block = f"{layer}.{names.get('mlp', 'mlp')}"
    if not name.endswith((_GATE_UP, _DOWN)):
        yield (f"{block}.{rest}" if rest else name), _Part(name, 0, shape)
        return
    if len(shape) != 3 or shape[0] > _MAX_EXPERTS or (name.endswith(_GATE_UP) and shape[1] % 2):
        raise WeightMismatch(f"tensor {short(name)} is {list(shape)}; it must be a matrix for each of its experts")
    matrices = ("gate_proj", "up_proj") if name.endswith(_GATE_UP) else ("down_proj",)
    height = shape[1] // len(matrices)
    for expert in range(shape[0]):
        for i, matrix in enumerate(matrices):
            new = f"{block}.experts.{expert}.{names.get(matrix, matrix)}.weight"
            yield new, _Part(name, expert * shape[1] + i * height, (height, *shape[2:]))
