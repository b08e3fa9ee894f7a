"""Which tables hold: the directory's, then the user's, then the defaults; and that none of them changes a bit."""

from __future__ import annotations

import filecmp
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from albireo import BuildConfig, build
from albireo.api.load import Loaded, load
from albireo.api.machine import tuning as api_tuning
from albireo.api.machine.tuning import fingerprint, tuned
from albireo.artifact.tuning_files import cache_path, write_table
from albireo.compiler import tuning_table
from albireo.config import EngineConfig
from albireo.errors import Corrupt, VersionMismatch
from albireo.graph.tuning import BUCKETS, Tuning, TuningTable
from artifact.engines import make_engine, run
from tuning_tables import CHANGED, table_for

OTHER = Tuning(claims=32)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults of a model too large for any cache, on more threads than change any of them."""
    monkeypatch.setattr(api_tuning, "cache_bytes", lambda: 0)
    monkeypatch.setattr(tuning_table, "_FEW_THREADS", 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_engine(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def engine(built: tuple[Path, Path]) -> Iterator[Path]:
    """The directory, without a table before and after."""
    yield built[1]
    (built[1] / "tuning.json").unlink(missing_ok=True)


def loaded(directory: Path) -> Loaded:
    return load(EngineConfig(model=str(directory), skip_tokenizer_init=True, num_threads=1, max_num_seqs=4))


def in_cache(table: TuningTable) -> Path:
    path = cache_path(table.fingerprint)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, table)
    return path


def tunings(model: Loaded) -> set[tuple[Tuning, ...]]:
    return {call.tuning for call in model.program.calls if call.family in ("linear", "attention")}


def test_without_a_table_calls_have_none(engine: Path) -> None:
    assert tunings(loaded(engine)) == {()}


def test_the_directory_comes_before_the_cache(engine: Path) -> None:
    program = loaded(engine).program
    in_cache(table_for(program, OTHER))
    assert tunings(loaded(engine)) == {(OTHER,) * len(BUCKETS)}
    write_table(engine / "tuning.json", table_for(program))
    assert tunings(loaded(engine)) == {(CHANGED,) * len(BUCKETS)}


def test_a_checkpoint_finds_the_cache(built: tuple[Path, Path]) -> None:
    in_cache(table_for(loaded(built[0]).program))
    assert tunings(loaded(built[0])) == {(CHANGED,) * len(BUCKETS)}


def test_no_table_changes_a_bit(engine: Path, built: tuple[Path, Path]) -> None:
    wanted = run(engine)
    write_table(engine / "tuning.json", table_for(loaded(engine).program))
    assert tunings(loaded(engine)) == {(CHANGED,) * len(BUCKETS)}
    assert run(engine) == wanted
    in_cache(table_for(loaded(engine).program))
    assert run(built[0]) == wanted


@pytest.mark.parametrize("change", [{"threads": 99}, {"cpu": "Another"}, {"albireo": "0.0.1"}, {"caches": "L2 9M"}])
def test_a_table_measured_elsewhere_is_ignored_with_one_line(
    engine: Path, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    table = table_for(loaded(engine).program)
    write_table(engine / "tuning.json", replace(table, fingerprint=replace(table.fingerprint, **change)))  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        assert tunings(loaded(engine)) == {()}
    (line,) = caplog.messages
    (name, there) = next(iter(change.items()))
    here = getattr(fingerprint(1), name)
    assert (
        f"{engine / 'tuning.json'}: is ignored, it was measured elsewhere ({name} {there} there and {here} here)"
        in line
    )
    assert f"albireo tune {engine}" in line


def test_other_revisions_of_kernels_are_ignored_with_one_line(engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = table_for(loaded(engine).program)
    old = replace(table, entries=tuple(replace(e, revision=e.revision + 1) for e in table.entries))
    write_table(engine / "tuning.json", old)
    with caplog.at_level(logging.WARNING):
        assert tunings(loaded(engine)) == {()}
    (line,) = caplog.messages
    assert f"{len(old.entries)} entries were measured with other kernels and are ignored" in line


def test_a_damaged_table_is_refused_with_what_to_do(engine: Path) -> None:
    path = engine / "tuning.json"
    path.write_text("{")
    with pytest.raises(Corrupt, match=f"delete the file, or measure again: albireo tune {engine}"):
        loaded(engine)
    write_table(
        path,
        table_for(
            load(EngineConfig(model=str(engine), num_threads=1, skip_tokenizer_init=True), is_tuned=False).program
        ),
    )
    data = json.loads(path.read_text())
    data["format"]["major"] = 7
    path.write_text(json.dumps(data))
    with pytest.raises(VersionMismatch, match="delete the file"):
        loaded(engine)


def test_a_damaged_cache_is_ignored_with_one_line(engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = in_cache(TuningTable(fingerprint(1)))
    path.write_text("{")
    with caplog.at_level(logging.WARNING):
        assert tunings(loaded(engine)) == {()}
    (line,) = caplog.messages
    assert str(path) in line and "delete the file" in line


def test_what_of_a_table_is_used(engine: Path) -> None:
    program = loaded(engine).program
    table = table_for(program)
    entries = tuple(e if e.bucket < 3 else replace(e, tuning=Tuning()) for e in table.entries)
    write_table(engine / "tuning.json", replace(table, entries=entries))
    _, (found,) = tuned(program, engine, 1)
    assert found.path == engine / "tuning.json"
    assert (len(found.use.used), len(found.use.changed)) == (len(entries), 3 * len(entries) // len(BUCKETS))


def test_builds_do_not_depend_on_what_was_measured(built: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, engine = built
    in_cache(table_for(loaded(checkpoint).program))
    again = build(checkpoint, tmp_path / "again", BuildConfig()).directory
    names = [str(path.relative_to(engine)) for path in engine.rglob("*") if path.is_file()]
    assert "tuning.json" not in names and "program.json" in names
    assert filecmp.cmpfiles(engine, again, names, shallow=False) == (names, [], [])


def test_a_manifest_cannot_list_a_table() -> None:
    from albireo.artifact.layout import TUNING, is_known_file

    assert not is_known_file(TUNING)
