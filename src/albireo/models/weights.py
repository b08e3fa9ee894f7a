"""Checkpoint: the weights of a model directory by name, mapped and never copied.

Called by whoever packs weights, and by tests. Opens *.safetensors only: no other format, hence no code, is ever
read. Does not know architectures; check_weights() compares with a graph.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from albireo.errors import ModelError, WeightMismatch
from albireo.graph.node import Graph
from albireo.models.json_file import read_json, short
from albireo.models.safetensors_file import RawTensor, SafetensorsFile
from albireo.quantization.encoded import Encoded

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\.safetensors")
_OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.safetensors")


class Checkpoint:
    """The weights of a directory in Hugging Face layout: model.safetensors, or shards and their index.

    Raises: ModelError when there are no safetensors; WeightMismatch when they are damaged or disagree with the index.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._files: list[SafetensorsFile] = []
        self._home: dict[str, SafetensorsFile] = {}
        try:
            if (self.directory / SINGLE_FILE).exists():
                self._add(self._open(SINGLE_FILE))
            elif (self.directory / INDEX_FILE).exists():
                self._add_shards()
            else:
                raise ModelError(_no_weights(self.directory))
        except ModelError:
            self.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor, sorted."""
        return tuple(sorted(self._home))

    def __contains__(self, name: str) -> bool:
        return name in self._home

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises: WeightMismatch for an unknown name."""
        return self._file(name).shape(name)

    @property
    def encodings(self) -> Mapping[str, str]:
        """Matrix -> encoding, of those that are stored in few bits."""
        return {}

    def encoded(self, name: str) -> Encoded:
        """A matrix of encodings. Raises: WeightMismatch for another name."""
        raise WeightMismatch(f"{self.directory}: {short(name)} is not stored in few bits")

    def tensor(self, name: str) -> RawTensor:
        """The tensor where it lies. Raises: WeightMismatch for an unknown name or an element type not read."""
        return self._file(name).tensor(name)

    def release(self, name: str) -> None:
        """Let the pages of a tensor go once it is packed; using it again reads them from disk."""
        self._file(name).release(name)

    @property
    def dtype(self) -> str:
        """Element type of most tensors: what a config.json that names none means."""
        counts = Counter(file.dtype(name) for name, file in self._home.items())
        known = {dtype: count for dtype, count in counts.items() if dtype is not None}
        return max(known, key=lambda dtype: known[dtype]) if known else "float32"

    def close(self) -> None:
        """Give the mappings up; tensors still held stay valid."""
        for file in self._files:
            file.close()
        self._files, self._home = [], {}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, name: str) -> SafetensorsFile:
        file = SafetensorsFile(self.directory / name)
        self._files.append(file)
        return file

    def _add(self, file: SafetensorsFile) -> None:
        for name in file.names:
            if name in self._home:
                raise WeightMismatch(
                    f"tensor {short(name)} is in both {self._home[name].path.name} and {file.path.name}; one must go"
                )
            self._home[name] = file

    def _add_shards(self) -> None:
        path = self.directory / INDEX_FILE
        weight_map = _weight_map(read_json(path), path)
        for shard in sorted(set(weight_map.values())):
            self._add(self._open(shard))
        for name, shard in weight_map.items():
            home = self._home.get(name)
            if home is None or home.path.name != shard:
                raise WeightMismatch(f"{path}: tensor {short(name)} is not in {shard}; the download is incomplete")

    def _file(self, name: str) -> SafetensorsFile:
        file = self._home.get(name)
        if file is None:
            raise WeightMismatch(f"{self.directory}: there is no tensor {short(name)}")
        return file


def _weight_map(index: Mapping[str, Any], path: Path) -> dict[str, str]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{path}: weight_map={short(weight_map)} must be an object of tensor name to file name")
    for name, shard in weight_map.items():
        # A name with a separator could lead out of the directory.
        if not isinstance(shard, str) or not _PLAIN_NAME.fullmatch(shard):
            raise ModelError(f"{path}: weight_map[{short(name)}]={short(shard)} is not a plain *.safetensors file name")
    return weight_map


def _no_weights(directory: Path) -> str:
    if not directory.is_dir():
        return f"{directory}: is not a directory; give a model directory in Hugging Face layout"
    found = sorted({path.name for pattern in _OTHER_FORMATS for path in directory.glob(pattern)})
    message = f"{directory}: has neither {SINGLE_FILE} nor {INDEX_FILE}"
    if not found:
        return f"{message}, nor weights in any other format; is the download complete?"
    return (
        f"{message}, only {', '.join(found[:5])}. Only safetensors are opened, because other formats can run code. "
        "Convert where transformers is installed: "
        f'python -c "from transformers import AutoModelForCausalLM as M; p = {str(directory)!r}; '
        "M.from_pretrained(p, dtype='auto').save_pretrained(p, safe_serialization=True)\""
    )


def check_weights(
    graph: Graph, checkpoint: Checkpoint, ignorable: Iterable[str] = (), aliases: Mapping[str, str] | None = None
) -> None:
    """Compare the weights a graph reads with those there are.

    Args:
        ignorable: shell-style patterns of tensor names that may be there unread.
        aliases: tensors that may be there unread when they are copies of another, such as a tied lm_head.
    Raises: WeightMismatch naming what is missing, misshapen or extra (ten of each, and the counts).
    """
    wanted = _wanted_shapes(graph)
    patterns = tuple(ignorable)
    unread = [name for name in checkpoint.names if name not in wanted]
    extra = [name for name in unread if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    for name, original in (aliases or {}).items():
        if name in extra and original in wanted and original in checkpoint:
            _check_copy(checkpoint, name, original)
            extra.remove(name)
    missing = [name for name in wanted if name not in checkpoint]
    misshapen = [
        f"{name} is {list(checkpoint.shape(name))}, config.json implies {list(shape)}"
        for name, shape in wanted.items()
        if name in checkpoint and checkpoint.shape(name) != shape
    ]
    kinds = {"missing": missing, "misshapen": misshapen, "extra": extra}
    parts = [_listed(kind, names) for kind, names in kinds.items() if names]
    if parts:
        raise WeightMismatch(f"{checkpoint.directory}: weights do not fit config.json: " + "; ".join(parts))
    for name in wanted:
        checkpoint.tensor(name)  # raises for an element type that is not read


def _check_copy(checkpoint: Checkpoint, name: str, original: str) -> None:
    a, b = checkpoint.tensor(name), checkpoint.tensor(original)
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
