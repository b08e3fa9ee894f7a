"""Checkpoint: the weights of a model by name, as a graph wants them; what lies quantized is read when asked for.

Called by whoever packs weights, and by tests. Names and shapes are those of the float model: a matrix that several
stored tensors make up is one weight here. Does not know architectures; check_weights() compares with a graph. What
reads a GGUF file is imported when there is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ModelError, UnsupportedModel, WeightMismatch, short
from albireo.graph.node import Graph
from albireo.json_file import read_json
from albireo.models.checkpoint.experts_of_pictures import WHOLE, experts_of_pictures
from albireo.models.checkpoint.fused_experts import FusedExperts, split_experts
from albireo.models.checkpoint.interleaved_experts import INTERLEAVED, interleaved
from albireo.models.checkpoint.latent_weights import JOINED, split_up_projections
from albireo.models.checkpoint.normed_head import with_normed_head
from albireo.models.checkpoint.positions_apart import with_positions_apart
from albireo.models.checkpoint.rearranged import REARRANGED, rearranged
from albireo.models.checkpoint.safetensors_file import RawTensor, raw_tensor
from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.sine_positions import with_sine_positions
from albireo.models.checkpoint.text_tensors import Prefixes, TextTensors, open_tensors
from albireo.models.gguf.files import is_gguf, part_paths
from albireo.models.settings.quantized import quantization_format
from albireo.models.settings.text_part import inner, text_type
from albireo.models.vision.tensors import TowerTensors
from albireo.quantization.blocks import Blocks
from albireo.quantization.encoded import Encoded
from albireo.quantization.formats.matrix import Matrix, Plan
from albireo.quantization.formats.mxfp4 import Mxfp4

if TYPE_CHECKING:
    from albireo.models.gguf.tensors import GgufFile

#: Matrices held as decoded numbers for callers that release none; no constant is joined of so many.
MAX_DECODED = 8
#: What names of tensors of a layer have before its number.
_LAYERS = (".layers.", ".h.")


class Checkpoint:
    """The weights of a model directory, or of a GGUF file.

    Raises: ModelError when there are no safetensors; WeightMismatch when they are damaged or disagree with each other;
        UnsupportedModel for a way of quantizing that is not read.
    """

    def __init__(self, directory: str | Path, prefixes: Prefixes = ()) -> None:
        """prefixes: of the tensors of a part of the model, and what their names begin with here; none: all there is."""
        self.directory, self._prefixes = Path(directory), prefixes
        self._stored: SafetensorsFiles | TextTensors | FusedExperts | GgufFile
        if is_gguf(self.directory):
            from albireo.models.gguf.tensors import GgufFile

            self._stored = GgufFile(self.directory)
        else:
            self._stored = self._safetensors()
        try:
            self._plan = self._planned()
            self._plain = _plain_names(self._stored, self._plan)
        except ModelError as error:
            self.close()
            raise self._named(error) from None
        self._has_encodings = bool(self.encodings)
        #: numbers of matrices that were asked for by tensor(), until a further one is needed after release()
        self._decoded: dict[str, RawTensor] = {}
        self._released: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Every weight, sorted."""
        return tuple(sorted((*self._plain, *self._plan.matrices)))

    @property
    def encodings(self) -> Mapping[str, str]:
        """Weight -> name of its encoding, of those that encoded() gives. Known without reading a weight."""
        return {name: m.encoding for name, m in self._plan.matrices.items() if m.encoding is not None}

    @property
    def is_weight_only(self) -> bool:
        """Whether activations beside its e4m3 matrices are to keep 16 bits."""
        return self._plan.is_weight_only

    @property
    def notes(self) -> list[str]:
        """What is not kept as it lies in the file, or not used at all, in sentences."""
        by_note: dict[str, list[Matrix]] = {}
        for matrix in self._plan.matrices.values():
            if matrix.note:
                by_note.setdefault(matrix.note, []).append(matrix)
        notes = [f"{self._sizes(matrices)}: {note}" for note, matrices in by_note.items()]
        unread = Counter(reason for reason in self._plan.unread.values() if reason)
        return notes + [f"{count} tensors: {reason}" for reason, count in unread.items()]

    def __contains__(self, name: str) -> bool:
        return name in self._plan.matrices or name in self._plain

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises: WeightMismatch for an unknown name."""
        matrix = self._plan.matrices.get(name)
        return matrix.shape if matrix else self._stored.shape(self._known(name))

    def kind(self, name: str) -> str:
        """Encoding of a weight, else its element type. Raises: WeightMismatch for an unknown name."""
        matrix = self._plan.matrices.get(name)
        if matrix is not None:
            return matrix.encoding or matrix.dtype
        return self._stored.dtype(self._known(name)) or self._stored.type_name(name)

    def check_readable(self, name: str) -> None:
        """Raises: WeightMismatch for an element type that tensor() does not read."""
        if name not in self._plan.matrices:
            self._stored.tensor(self._known(name))

    def tensor(self, name: str) -> RawTensor:
        """The numbers of a weight: where they lie, or decoded as float32 where it is quantized.

        Decoded numbers stay in memory until release(), and then until the next ones are needed; without it the last
        MAX_DECODED do.
        Raises: WeightMismatch for an unknown name, an element type not read, or a number that is not finite.
        """
        if name not in self._plan.matrices and not self._is_widened(name):
            return self._stored.tensor(self._known(name))
        self._released.discard(name)
        if name not in self._decoded:
            oldest = [] if len(self._decoded) < MAX_DECODED else [next(iter(self._decoded))]
            for other in (*self._released, *oldest):
                self._decoded.pop(other, None)
            self._released.clear()
            self._decoded[name] = self._numbers(name)
        return self._decoded[name]

    def encoded(self, name: str) -> Encoded:
        """A weight in the encoding that encodings names; its arrays are the caller's.

        Raises: WeightMismatch for a weight without one, or numbers that are not finite.
        """
        matrix = self._plan.matrices.get(name)
        result = self._read(name) if matrix is not None and matrix.encoding is not None else None
        if not isinstance(result, Encoded):
            raise WeightMismatch(f"{self.directory}: {short(name)} is not encoded; it can be read as numbers")
        return result

    def blocks(self, name: str) -> Blocks | None:
        """What encoded() gives, as it lies in the file; valid until close(). None: it does not lie so."""
        matrix = self._plan.matrices.get(name)
        return None if matrix is None or matrix.blocks is None else matrix.blocks()

    def release(self, name: str) -> None:
        """Let the pages of a weight go once it is packed; using it again reads them from disk."""
        if name in self._decoded:
            self._released.add(name)
        matrix = self._plan.matrices.get(name)
        if matrix is None:
            self._stored.release(self._known(name))
        elif matrix.blocks is not None:
            for stored in matrix.stored:
                self._stored.release(stored)

    @property
    def dtype(self) -> str:
        """Element type of most tensors: what a config.json that names none means."""
        counts = Counter(self._stored.dtype(name) for name in self._plain)
        known = {dtype: count for dtype, count in counts.items() if dtype is not None}
        return max(known, key=lambda dtype: known[dtype]) if known else "float32"

    def close(self) -> None:
        """Give the mappings up; tensors still held stay valid."""
        self._stored.close()
        self._plan, self._plain = Plan(), frozenset()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _safetensors(self) -> SafetensorsFiles | TextTensors | FusedExperts:
        prefixes = self._prefixes
        stored = TextTensors(SafetensorsFiles(self.directory), prefixes) if prefixes else open_tensors(self.directory)
        try:
            path = self.directory / "config.json"
            return split_experts(stored, read_json(path) if path.exists() else {})
        except ModelError:
            stored.close()
            raise

    def _planned(self) -> Plan:
        if not isinstance(self._stored, SafetensorsFiles | TextTensors | FusedExperts):
            from albireo.models.gguf.config import config_of, parts_of

            plan = self._stored.plan(parts_of(self._stored))
            is_joined = any(name.endswith(JOINED) for name in self._stored.names)
            return split_up_projections(plan, self._stored, config_of(self._stored)) if is_joined else plan
        path = self.directory / "config.json"
        config = read_json(path) if path.exists() else {}
        plan = with_positions_apart(self._as_written(self._stored, path, config), self._stored, config)
        plan = with_sine_positions(with_normed_head(plan, self._stored, config), self._stored, config)
        return split_up_projections(plan, self._stored, config)

    def _as_written(
        self, stored: SafetensorsFiles | TextTensors | FusedExperts, path: Path, config: Mapping[str, Any]
    ) -> Plan:
        quantization = quantization_format(self.directory, config)
        if text_type(config) in INTERLEAVED and not isinstance(stored, FusedExperts):
            if not isinstance(quantization, Mxfp4 | None):
                raise UnsupportedModel(f"{path}: experts of gpt-oss are read as numbers or in MXFP4, not as this says")
            return interleaved(stored)
        whole = inner(config)
        if whole.get("model_type") == WHOLE and not isinstance(stored, FusedExperts):
            if quantization is not None:
                raise UnsupportedModel(f"{path}: experts of two kinds are not read quantized; --quantization does it")
            return experts_of_pictures(stored, whole)
        if quantization is None:
            if isinstance(stored, FusedExperts):
                return stored.plan()
            return rearranged(stored, config)
        if config.get("model_type") in REARRANGED:
            raise UnsupportedModel(
                f"{path}: model_type={short(config['model_type'])} lies otherwise than it is computed, which is done "
                "to numbers alone; a checkpoint that is quantized is not read. --quantization does it at load"
            )
        if isinstance(stored, FusedExperts) and stored.plan().matrices:
            raise UnsupportedModel(f"{self.directory}: experts with columns first are not read quantized")
        return quantization.plan(stored)

    def _known(self, name: str) -> str:
        if name not in self._plain:
            raise WeightMismatch(f"{self.directory}: there is no tensor {short(name)}")
        return name

    def _is_widened(self, name: str) -> bool:
        """Whether a matrix of 16 bits is given as float32: in a layer, where decoded ones may be joined with it."""
        stored = self._stored
        is_part = any(part in name for part in _LAYERS) and name in self._plain and len(stored.shape(name)) == 2
        return is_part and self._has_encodings and stored.dtype(name) in ("float16", "bfloat16")

    def _numbers(self, name: str) -> RawTensor:
        matrix = self._plan.matrices.get(name)
        if matrix is None:
            return raw_tensor(name, "float32", self._stored.tensor(name).to_float32())
        numbers = self._read(name)
        if isinstance(numbers, Encoded):
            return raw_tensor(name, "float32", numbers.decode())
        tensor = raw_tensor(name, matrix.dtype, numbers)
        return raw_tensor(name, "float32", tensor.to_float32()) if self._has_encodings else tensor

    def _read(self, name: str) -> Encoded | NDArray[np.generic]:
        matrix = self._plan.matrices[name]
        try:
            return matrix.read()
        except ModelError as error:
            raise self._named(error) from None
        finally:
            for stored in matrix.stored:
                self._stored.release(stored)

    def _named(self, error: ModelError) -> ModelError:
        """The same error, naming the model."""
        where = str(self.directory)
        return error if where in str(error) else type(error)(f"{where}: {error}")

    def _sizes(self, matrices: list[Matrix]) -> str:
        stored = {name for matrix in matrices for name in matrix.stored}  # one may have the matrices of many experts
        held = sum(len(self._stored.buffer(name)) for name in stored)
        return f"{len(matrices)} matrices of {held / 2**20:.1f} MiB in the file"


def weight_files(directory: Path) -> list[Path]:
    """The files that a Checkpoint of a directory, or of a GGUF file with its other parts, may read, in order; none:
    there are no weights."""
    if is_gguf(directory):
        return [path for path in part_paths(directory) if path.is_file()]
    return sorted(directory.glob("*.safetensors"))


def _plain_names(stored: SafetensorsFiles | TextTensors | FusedExperts | GgufFile, plan: Plan) -> frozenset[str]:
    """The stored tensors that are weights by themselves.

    Raises: WeightMismatch when a matrix has the name of a tensor that it is not made of.
    """
    used = {name for matrix in plan.matrices.values() for name in matrix.stored}
    for name, matrix in plan.matrices.items():
        if name in stored and name not in matrix.stored:
            raise WeightMismatch(f"{short(name)} is there twice, as numbers and quantized; one must go")
    return frozenset(name for name in stored.names if name not in used and name not in plan.unread)


def check_weights(
    graph: Graph,
    checkpoint: Checkpoint | TowerTensors,
    ignorable: Iterable[str] = (),
    aliases: Mapping[str, str] | None = None,
    longer: Iterable[str] = (),
) -> None:
    """Compare the weights a graph reads with those there are.

    Args:
        ignorable: shell-style patterns of tensor names that may be there unread.
        aliases: tensor -> one that may be there unread when it is a copy of it, such as a tied lm_head.
        longer: tensors that may have rows behind those that are read.
    Raises: WeightMismatch naming what is missing, misshapen or extra (ten of each, and the counts).
    """
    wanted = _wanted_shapes(graph)
    patterns = tuple(ignorable)
    unread = [name for name in checkpoint.names if name not in wanted]
    extra = [name for name in unread if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    for original, name in (aliases or {}).items():
        if name in extra and original in wanted and original in checkpoint:
            _check_copy(checkpoint, name, original)
            extra.remove(name)
    extra = [name for name in extra if not _is_zero_bias(checkpoint, name)]
    missing = [name for name in wanted if name not in checkpoint]
    misshapen = [
        f"{name} is {list(checkpoint.shape(name))}, config.json implies {list(shape)}"
        for name, shape in wanted.items()
        if name in checkpoint and checkpoint.shape(name) != shape
        if name not in longer or checkpoint.shape(name)[1:] != shape[1:] or checkpoint.shape(name)[0] < shape[0]
    ]
    kinds = {"missing": missing, "misshapen": misshapen, "extra": extra}
    parts = [_listed(kind, names) for kind, names in kinds.items() if names]
    if parts:
        raise WeightMismatch(f"{checkpoint.directory}: weights do not fit config.json: " + "; ".join(parts))
    for name in wanted:
        checkpoint.check_readable(name)


def _is_zero_bias(checkpoint: Checkpoint | TowerTensors, name: str) -> bool:
    """Old quantizers gave every linear a bias, of zeros where the model has none."""
    if not name.endswith(".bias") or len(checkpoint.shape(name)) != 1:
        return False
    return (
        checkpoint.kind(name) in ("float32", "float16", "bfloat16") and not checkpoint.tensor(name).to_float32().any()
    )


def _check_copy(checkpoint: Checkpoint | TowerTensors, name: str, original: str) -> None:
    a, b = checkpoint.tensor(name), checkpoint.tensor(original)
    for checked in (name, original):
        checkpoint.release(checked)
    same = (a.dtype, a.shape) == (b.dtype, b.shape)
    if not same or not np.array_equal(np.frombuffer(a.buffer, np.uint8), np.frombuffer(b.buffer, np.uint8)):
        raise WeightMismatch(
            f"{checkpoint.directory}: {name} differs from {original}, which config.json ties it to; "
            "set tie_word_embeddings to false if both are meant"
        )


def _listed(kind: str, names: list[str]) -> str:
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"{len(names)} {kind}: {shown}"


def _wanted_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Checkpoint tensor -> its shape as the graph's constants read it; rows counted over all segments."""
    rows: dict[str, int] = {}
    tails: dict[str, tuple[int, ...]] = {}
    for value in graph.constants.values():
        assert value.constant is not None
        for segment in value.constant.segments:
            if segment.source is not None:
                rows[segment.source] = max(rows.get(segment.source, 0), segment.stop)
                tails[segment.source] = tuple(int(dim) for dim in value.type.dims[1:])
    return {name: (count, *tails[name]) for name, count in rows.items()}
