"""Which tuning tables hold here: the engine directory's, then the user's cache, then the defaults.

Called by load.py, by tune/ and by the commands that look at models. A table changes how fast a program runs and
nothing else, so one that does not fit is ignored with a line in the log, and one that is damaged is refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import albireo
from albireo.artifact import layout
from albireo.artifact.reader import is_engine_directory
from albireo.artifact.tuning_files import cache_path, read_table
from albireo.backends.cpu.fingerprint import cache_bytes, caches_text, cpu_text
from albireo.backends.cpu.machine import isa_levels, kernel_revision, num_threads_of
from albireo.compiler.tuning_table import TableUse, attach
from albireo.errors import EngineFileError
from albireo.graph.program import Program
from albireo.graph.tuning import Fingerprint, TuningTable

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TableInForce:
    """A table that was read, and what of it a program uses."""

    path: Path
    use: TableUse


def fingerprint(num_threads: int | None) -> Fingerprint:
    """What measurements made here hold for."""
    return Fingerprint(
        albireo=albireo.__version__,
        cpu=cpu_text(),
        caches=caches_text(),
        isa_levels=" ".join(isa_levels()),
        threads=num_threads_of(num_threads),
    )


def tuned(program: Program, directory: Path, num_threads: int | None) -> tuple[Program, tuple[TableInForce, ...]]:
    """The program with what was measured for it here.

    Args: directory: of the model, of either kind.
    Raises: Corrupt, VersionMismatch when the directory's own table is damaged.
    """
    here = fingerprint(num_threads)
    found = [(path, table) for path, table in _tables(directory, here) if table is not None]
    tables = [table for _, table in found]
    tuned_program, uses = attach(program, tables, kernel_revision, cache_bytes(), here.threads)
    for (path, _), use in zip(found, uses, strict=True):
        if use.outdated:
            _LOG.warning(
                "%s: %d entries were measured with other kernels and are ignored; to measure again: albireo tune %s",
                path,
                use.outdated,
                directory,
            )
    return tuned_program, tuple(TableInForce(path, use) for (path, _), use in zip(found, uses, strict=True))


def _tables(directory: Path, here: Fingerprint) -> list[tuple[Path, TuningTable | None]]:
    tables = []
    if is_engine_directory(directory):
        path = directory / layout.TUNING
        try:
            tables.append((path, _fitting(path, here, f"albireo tune {directory}")))
        except EngineFileError as error:
            raise type(error)(f"{error}; delete the file, or measure again: albireo tune {directory}") from error
    cache = cache_path(here)
    if cache is not None:
        try:
            tables.append((cache, _fitting(cache, here, f"albireo tune {directory}")))
        except EngineFileError as error:
            # A cache can be made again at any time; a model runs without it.
            _LOG.warning("%s; it is ignored: delete the file, or measure again: albireo tune %s", error, directory)
    return tables


def _fitting(path: Path, here: Fingerprint, command: str) -> TuningTable | None:
    table = read_table(path, here)
    if table is None or table.fingerprint == here:
        return table
    _LOG.warning(
        "%s: is ignored, it was measured elsewhere (%s); the defaults are used. To measure here: %s",
        path,
        table.fingerprint.differences(here),
        command,
    )
    return None
