"""Where a session's table goes: the engine directory it was measured for, and the user's cache.

Called by cli/tune.py, and through it by cli/build.py. Says what could not be written; a directory that nobody may write
to is common.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from albireo.artifact import layout
from albireo.artifact.reader import is_engine_directory
from albireo.artifact.tuning_files import add_to_cache, cache_path, write_table
from albireo.errors import ResourceError
from albireo.graph.tuning import TuningTable


@dataclass(frozen=True, slots=True)
class Saved:
    """Files that hold the table now, and for those that do not, why."""

    paths: tuple[Path, ...]
    refused: tuple[str, ...]


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
        refused.append("the user's cache: there is no home directory, and XDG_CACHE_HOME is not set")
    else:
        try:
            add_to_cache(cache, table)
            paths.append(cache)
        except OSError as error:
            refused.append(f"{cache}: {error.strerror or error}")
    if not paths:
        raise ResourceError(f"what was measured cannot be written: {'; '.join(refused)}; set XDG_CACHE_HOME")
    return Saved(tuple(paths), tuple(refused))
