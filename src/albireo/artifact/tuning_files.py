"""Where tuning tables lie: tuning.json in an engine directory, and one file a machine in the user's cache.

Called by api/machine/tuning.py and tune/. A file is replaced whole, in one step; in the cache, entries of two writers
are joined under a lock. Does not know what the numbers do.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from albireo import devflags
from albireo.artifact import layout
from albireo.artifact.tuning_json import table_from_json, table_to_json
from albireo.errors import Corrupt, EngineFileError, ModelError, VersionMismatch
from albireo.graph.tuning import Fingerprint, TuningTable
from albireo.json_file import read_json


def cache_path(fingerprint: Fingerprint) -> Path | None:
    """The user's table for this machine, version and number of threads; None: the user has no cache directory."""
    home = devflags.cache_home()
    digest = layout.sha256(layout.json_bytes(asdict(fingerprint)))
    return home and home / "albireo" / "tuning" / f"{digest[:16]}.json"


def read_table(path: Path, here: Fingerprint) -> TuningTable | None:
    """The table in a file, None without one; a table that was measured elsewhere comes without its entries.

    Raises: Corrupt, VersionMismatch, which say what is wrong with the file.
    """
    if not os.path.lexists(path):
        return None
    try:
        return table_from_json(read_json(path), str(path), here)
    except EngineFileError:
        raise
    except ModelError as error:
        raise Corrupt(str(error)) from error


def write_table(path: Path, table: TuningTable) -> None:
    """Replace a file in one step: a reader finds the old table or the new one. Raises: OSError."""
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(fd, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(layout.json_bytes(table_to_json(table)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def add_to_cache(path: Path, table: TuningTable) -> None:
    """Put entries into the cache; what others measured stays. A damaged cache is replaced. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            known = read_table(path, table.fingerprint)
        except (Corrupt, VersionMismatch):
            known = None
        write_table(path, known.merged(table) if known else table)
    finally:
        os.close(lock)
