"""A model in several GGUF files, as llama-gguf-split and its converters write them: one head of all.

Called by tensors.py. Every part says which it is, of how many; settings are in the first. Does not know architectures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os.path import lexists
from pathlib import Path
from typing import Any

import numpy as np

from albireo.errors import ModelError, UnsupportedModel, WeightMismatch, short
from albireo.models.checkpoint.mapped_file import MappedFile
from albireo.models.gguf.files import MAX_PARTS, part_paths
from albireo.models.gguf.header import Entry, Header, read_header
from albireo.models.gguf.kept_heads import read_once

#: Settings that may differ from part to part.
_OWN = ("split.no", "general.alignment")


def open_parts(path: Path) -> tuple[list[MappedFile], Header]:
    """All files of a model, and the settings of the first with the tensors of all. The caller closes them.

    Args: path: of one of them.
    Raises: ModelError naming what is missing; WeightMismatch for files that are damaged or do not belong together;
        UnsupportedModel for one that does not say by its name where the others are.
    """
    files = [_mapped(path)]
    try:
        header = _head(files[0], path)
        count = header.settings.get("split.count", 1)
        if type(count) is int and count == 1:
            return files, header
        paths = _found(path, count)
        place = paths.index(path)
        headers = {place: header}
        for i, other in enumerate(paths):
            if i != place:
                files.insert(i, _mapped(other))
                headers[i] = _head(files[i], other)
        return files, _joined([headers[i] for i in range(len(paths))], paths)
    except ModelError:
        for file in files:
            file.close()
        raise


def _head(file: MappedFile, path: Path) -> Header:
    """The caller's own, as far as keys and names go."""
    kept = read_once(file.identity, lambda: read_header(file.view, str(path)))
    return Header(dict(kept.settings), dict(kept.entries))


def _mapped(path: Path) -> MappedFile:
    return MappedFile(path, 24, "a GGUF head")


def _found(path: Path, count: object) -> list[Path]:
    """Args: count: what a file says of parts."""
    if type(count) is not int or not 1 <= count <= MAX_PARTS:
        raise WeightMismatch(f"{path}: split.count={short(count)} must be a number from 1 to {MAX_PARTS}")
    paths = part_paths(path)
    if len(paths) == 1:
        raise UnsupportedModel(
            f"{path}: split.count={count}: it is one part of several, which are found by names such as "
            f"{path.stem}-00001-of-{count:05}.gguf; rename them, or join them with llama-gguf-split --merge"
        )
    if len(paths) != count:
        raise WeightMismatch(f"{path}: split.count={count}, but its name says {len(paths)} parts")
    missing = [each.name for each in paths if not lexists(each)]
    if missing:
        named = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise ModelError(f"{path.parent}: of {count} parts of a model {len(missing)} missing: {named}; put all here")
    return paths


def _joined(headers: Sequence[Header], paths: Sequence[Path]) -> Header:
    """Raises: WeightMismatch for parts that are not of one model."""
    first, entries = headers[0], dict[str, Entry]()
    for i, (header, path) in enumerate(zip(headers, paths, strict=True)):
        number = header.settings.get("split.no")
        if type(number) is not int or number != i:
            raise WeightMismatch(f"{path}: split.no={short(number)}, but by its name it is number {i}, from 0 on")
        for key, value in header.settings.items():
            if key not in _OWN and not _is_same(value, first.settings.get(key)):
                raise WeightMismatch(
                    f"{path}: {short(key)}={short(value)}, and {short(first.settings.get(key))} in {paths[0].name}: "
                    "they are parts of different models"
                )
        for name, entry in header.entries.items():
            if name in entries:
                raise WeightMismatch(f"{path}: tensor {short(name)} is also in {paths[entries[name].file].name}")
            entries[name] = replace(entry, file=i)
    count = first.settings.get("split.tensors.count", len(entries))
    if type(count) is not int or count != len(entries):
        raise WeightMismatch(
            f"{paths[0]}: split.tensors.count={short(count)}, but {len(paths)} parts have {len(entries)} tensors; "
            "one of them is of another model, or of another way of splitting it"
        )
    return Header(first.settings, entries)


def _is_same(value: Any, other: Any) -> bool:
    if isinstance(value, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(value, other)
    return type(value) is type(other) and value == other
