"""Where tables go, and what is said when they cannot go there."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.artifact import tuning_files
from albireo.artifact.tuning_files import cache_path, read_table
from albireo.errors import ResourceError
from albireo.graph.tuning import CallKey, Entry, TuningTable
from albireo.tune import save as save_module
from albireo.tune.save import check_place, save
from tuning_tables import CHANGED, HERE

KEY = CallKey("head_top", "head_top.float32.avx2", (("n", 64), ("k", 64)))
TABLE = TuningTable(HERE, (Entry(KEY, 1, 0, CHANGED, 2e-3, 1e-3, 0.1, 5),))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "manifest.json").write_text("{}")
    return tmp_path / "engine"


def test_both_places(engine: Path) -> None:
    saved = save(engine, TABLE)
    assert saved.paths == (engine / "tuning.json", cache_path(HERE))
    assert not saved.refused
    assert all(read_table(path, HERE) == TABLE for path in saved.paths)


def test_of_a_checkpoint_the_cache_only(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert save(tmp_path, TABLE).paths == (cache_path(HERE),)
    assert not (tmp_path / "tuning.json").exists()


def refuse(monkeypatch: pytest.MonkeyPatch, *places: Path) -> None:
    """As a file system does that is mounted read-only: root may write where modes forbid it."""
    write = tuning_files.write_table

    def guarded(path: Path, table: TuningTable) -> None:
        if path.parent in places:
            raise OSError(30, "Read-only file system", str(path))
        write(path, table)

    monkeypatch.setattr(save_module, "write_table", guarded)
    monkeypatch.setattr(tuning_files, "write_table", guarded)


def test_a_directory_that_cannot_be_written_is_said(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, engine)
    saved = save(engine, TABLE)
    assert saved.paths == (cache_path(HERE),)
    assert saved.refused == (f"{engine / 'tuning.json'}: Read-only file system",)


def test_no_place_at_all_is_an_error(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_path(HERE)
    assert cache is not None
    refuse(monkeypatch, engine, cache.parent)
    with pytest.raises(ResourceError, match=r"cannot be written.*Read-only file system.*set XDG_CACHE_HOME"):
        save(engine, TABLE)


def test_one_place_is_enough(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no directory")
    check_place(engine, 1)
    assert [path.name for path in engine.iterdir()] == ["manifest.json"]
    with pytest.raises(ResourceError, match=r"cache/albireo/tuning: Not a directory; set XDG_CACHE_HOME"):
        check_place(tmp_path, 1)
