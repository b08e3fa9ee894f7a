"""Which files a GGUF model is in, by their names.

Called by whoever looks for a model. Opens none.
"""

from __future__ import annotations

import re
from pathlib import Path

SUFFIX = ".gguf"
#: As llama.cpp names parts: NAME-00002-of-00003.gguf.
_PART_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE)
#: imatrix first or last: between other words it says how a model was quantized.
_BESIDE = re.compile(r"(^|[-_.])mmproj([-_.]|$)|^imatrix[-_.]|[-_.]imatrix\.gguf$|^mtp-", re.IGNORECASE)
#: Of these what sees or hears for a model.
_PROJECTOR = re.compile(r"(^|[-_.])mmproj([-_.]|$)", re.IGNORECASE)
#: Where a model lies whose directory says what it and its projector are together; see api/sources/projector_place.py.
MODEL_LINK = "model.gguf"
#: Each keeps a file open; the largest known models have a tenth of it.
MAX_PARTS = 512


def is_gguf(path: Path) -> bool:
    """Whether a model is a GGUF file, by its name."""
    return path.suffix.lower() == SUFFIX


def is_beside_a_model(path: Path) -> bool:
    """Whether a file is, by its name, what llama.cpp puts beside a model: what sees or hears for it (mmproj-…), which
    inputs count (imatrix…), or layers that guess further tokens (mtp-…)."""
    return _BESIDE.search(path.name) is not None


def is_projector(path: Path) -> bool:
    """Whether a file is, by its name, what sees or hears for a model beside it."""
    return is_gguf(path) and _PROJECTOR.search(path.name) is not None


def gguf_of(directory: Path) -> Path:
    """The model that a directory speaks of, see MODEL_LINK; any other path as it is. It is told by its own name, which
    says of parts where the others are."""
    link = directory / MODEL_LINK
    return link.readlink() if link.is_symlink() else directory


def part_paths(path: Path) -> list[Path]:
    """The files that a model is in, in order, as far as the name of one says it: itself where it says nothing."""
    match = _PART_NAME.fullmatch(path.name)
    if match is None or not 1 <= int(match[2]) <= int(match[3]) <= MAX_PARTS:
        return [path]
    count = int(match[3])
    return [path.with_name(f"{match[1]}-{number:05}-of-{match[3]}{match[4]}") for number in range(1, count + 1)]
