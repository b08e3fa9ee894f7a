"""Tables on disk: whole or not at all, and nothing lost when two write at once."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from albireo.artifact.tuning_files import add_to_cache, cache_path, read_table, write_table
from albireo.errors import Corrupt
from albireo.graph.tuning import CallKey, Entry, Tuning, TuningTable
from tuning_tables import CHANGED, HERE


def table(n: int, tuning: Tuning = CHANGED) -> TuningTable:
    key = CallKey("head_top", "head_top.float32.avx2", (("n", n), ("k", 64)))
    return TuningTable(HERE, (Entry(key, 1, 0, tuning, 2e-3, 1e-3, 0.1, 5),))


def test_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    assert read_table(path, HERE) is None
    write_table(path, table(64))
    assert read_table(path, HERE) == table(64)
    write_table(path, table(128))
    assert read_table(path, HERE) == table(128)
    assert os.listdir(tmp_path) == ["tuning.json"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1, "a": 2}', "\xff"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(Corrupt, match=str(path)):
        read_table(path, HERE)


def test_a_link_to_nothing_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        with pytest.raises(Corrupt, match=name):
            read_table(tmp_path / name, HERE)


def test_a_write_that_fails_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tuning.json"
    write_table(path, table(64))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_table(path, table(128))
    assert read_table(path, HERE) == table(64)
    assert os.listdir(tmp_path) == ["tuning.json"]


def test_the_cache_has_a_file_for_each_machine_version_and_thread_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    others = [HERE, replace(HERE, threads=4), replace(HERE, albireo="9"), replace(HERE, cpu="x")]
    paths = [cache_path(one) for one in others]
    assert len(set(paths)) == 4
    assert all(path is not None and path.parent == tmp_path / "albireo" / "tuning" for path in paths)
    assert cache_path(HERE) == paths[0]


def test_where_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative XDG_CACHE_HOME is to be ignored, says the specification."""
    monkeypatch.setenv("HOME", "/home/someone")
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        path = cache_path(HERE)
        assert path is not None and path.parent == Path("/home/someone/.cache/albireo/tuning")


def test_the_cache_keeps_what_was_measured_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "here.json"
    add_to_cache(path, table(64))
    add_to_cache(path, table(128))
    add_to_cache(path, table(64, Tuning()))
    read = read_table(path, HERE)
    assert read is not None
    assert {(e.key.shape[0][1], e.tuning) for e in read.entries} == {(64, Tuning()), (128, CHANGED)}


def test_a_damaged_cache_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "here.json"
    path.write_text("{")
    add_to_cache(path, table(64))
    assert read_table(path, HERE) == table(64)


def test_nothing_is_lost_when_many_write_at_once(tmp_path: Path) -> None:
    path, widths = tmp_path / "here.json", [64 * (1 + i) for i in range(12)]
    start = threading.Barrier(len(widths))

    def write(width: int) -> None:
        start.wait()
        add_to_cache(path, table(width))

    threads = [threading.Thread(target=write, args=(width,)) for width in widths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = read_table(path, HERE)
    assert read is not None
    assert sorted(e.key.shape[0][1] for e in read.entries) == widths
    assert os.listdir(tmp_path) == ["here.json"]
