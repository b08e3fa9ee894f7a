"""Where a session's table goes: the engine directory it was measured for, and the user's cache.

Called by cli/tune.py, and through it by cli/build.py. Says what could not be written; a directory that nobody may write
to is common.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from albireo.api.machine.tuning import fingerprint
from albireo.artifact import layout
from albireo.artifact.reader import is_engine_directory
from albireo.artifact.tuning_files import add_to_cache, cache_path, write_table
from albireo.errors import ResourceError
from albireo.graph.tuning import TuningTable

_NO_HOME = "the user's cache: there is no home directory, and XDG_CACHE_HOME is not set"


@dataclass(frozen=True, slots=True)
class Saved:
    """Files that hold the table now, and for those that do not, why."""

    paths: tuple[Path, ...]
    refused: tuple[str, ...]


def check_place(directory: Path, num_threads: int | None) -> None:
    """Before minutes are spent: whether a table will have a place at all.

    Raises: ResourceError when none can be written.
    """
    cache = cache_path(fingerprint(num_threads))
    places = [*([directory] if is_engine_directory(directory) else []), *([] if cache is None else [cache.parent])]
    problems = [problem for place in places if (problem := _problem(place))]
    if len(problems) == len(places):
        raise ResourceError(
            f"what is measured could not be written: {'; '.join(problems) or _NO_HOME}; set XDG_CACHE_HOME, or add "
            "--dry-run"
        )


def _problem(place: Path) -> str:
    """Why no file can be made there, or nothing."""
    there = next(each for each in (place, *place.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there, buffering=0) as file:
            file.write(bytes(1 << 16))  # a table has less; a full disk takes the name and no byte
            return ""
    except OSError as error:
        return f"{place}: {error.strerror or error}"


def save(directory: Path, table: TuningTable) -> Saved:
    """Write a table where load() looks for it.

    Raises: ResourceError when no place at all can be written.
    """
    paths: list[Path] = []
    refused: list[str] = []
    if is_engine_directory(directory):
        path = directory / layout.TUNING
        try:
            write_table(path, table)
            paths.append(path)
        except OSError as error:
            refused.append(f"{path}: {error.strerror or error}")
    cache = cache_path(table.fingerprint)
    if cache is None:
        refused.append(_NO_HOME)
    else:
        try:
            add_to_cache(cache, table)
            paths.append(cache)
        except OSError as error:
            refused.append(f"{cache}: {error.strerror or error}")
    if not paths:
        raise ResourceError(f"what was measured cannot be written: {'; '.join(refused)}; set XDG_CACHE_HOME")
    return Saved(tuple(paths), tuple(refused))
