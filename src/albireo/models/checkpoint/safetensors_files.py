"""The tensors of a model directory in Hugging Face layout, by name, mapped and never copied.

Called by weights.py. Opens *.safetensors only: no other format, hence no code, is ever read. Does not know what
tensors are for, nor that several may make up one weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os.path import lexists  # a link to nothing is there, and what it names is missing
from pathlib import Path
from typing import Any

from albireo.errors import ModelError, WeightMismatch, short
from albireo.json_file import read_json
from albireo.models.checkpoint.safetensors_file import RawTensor, SafetensorsFile

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\.safetensors")
_OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack")


class SafetensorsFiles:
    """The weights of a directory in Hugging Face layout: model.safetensors, or shards and their index.

    Raises: ModelError when there are no safetensors; WeightMismatch when they are damaged or disagree with the index.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._files: list[SafetensorsFile] = []
        self._home: dict[str, SafetensorsFile] = {}
        try:
            if lexists(self.directory / SINGLE_FILE):
                self._add(self._open(SINGLE_FILE))
            elif lexists(self.directory / INDEX_FILE):
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

    def __contains__(self, name: object) -> bool:
        return name in self._home

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises: WeightMismatch for an unknown name."""
        return self._file(name).shape(name)

    def tensor(self, name: str) -> RawTensor:
        """The tensor where it lies. Raises: WeightMismatch for an unknown name or an element type not read."""
        return self._file(name).tensor(name)

    def release(self, name: str) -> None:
        """Let the pages of a tensor go; using it again reads them from disk."""
        self._file(name).release(name)

    def dtype(self, name: str) -> str | None:
        """Name in albireo.dtypes, or None for a type that tensor() does not read."""
        return self._file(name).dtype(name)

    def type_name(self, name: str) -> str:
        """The element type as the format names it."""
        return self._file(name).type_name(name)

    def buffer(self, name: str) -> memoryview:
        """The bytes of a tensor of any type."""
        return self._file(name).buffer(name)

    @property
    def settings(self) -> Mapping[str, str]:
        """What the headers say beside their tensors."""
        return {key: text for file in self._files for key, text in file.metadata.items()}

    def close(self) -> None:
        """Give the mappings up; tensors still held stay valid."""
        for file in self._files:
            file.close()
        self._files, self._home = [], {}

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
    named_otherwise = sorted(path.name for path in directory.glob("*.safetensors"))
    if named_otherwise:
        return (
            f"{message}, but {', '.join(named_otherwise[:5])}. Of one file the name must be {SINGLE_FILE}; of several "
            f"{INDEX_FILE} says which tensor is where: copy it from the model's repository"
        )
    if not found:
        return f"{message}, nor weights in any other format; is the download complete?"
    return (
        f"{message}, only {', '.join(found[:5])}. Only safetensors are opened, because other formats can run code. "
        "Convert where transformers is installed: "
        f'python -c "from transformers import AutoModelForCausalLM as M; p = {str(directory)!r}; '
        "M.from_pretrained(p, dtype='auto').save_pretrained(p, safe_serialization=True)\""
    )
