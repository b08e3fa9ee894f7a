"""tune, build --tune, and what inspect and doctor say of tables."""

from __future__ import annotations

import json

import pytest

from albireo.cli import tune


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "albireo" / "tuning"


def test_a_directory_and_the_cache_are_written(albireo, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "BUDGET_S", 0.2)
    engine = tmp_path / "engine"
    before = albireo("inspect").stdout
    assert "tuning        defaults; albireo tune measures them on this machine" in before
    result = albireo("build", "-o", engine, "--tune")
    assert result.exit_code == 0, result.stderr
    assert "run it        albireo generate" in result.stdout
    (file,) = cache.iterdir()
    assert f"written       {engine / 'tuning.json'}\nwritten       {file}\n" in result.stdout
    table = json.loads((engine / "tuning.json").read_text())
    assert table["entries"] and json.loads(file.read_text()) == table
    manifest = json.loads((engine / "manifest.json").read_text())
    assert "tuning.json" not in manifest["files"]

    number = len(table["entries"])
    assert f"tuning        {engine / 'tuning.json'}: " in albireo("inspect", engine).stdout
    assert f" of {number} choices are not the defaults" in albireo("inspect", engine).stdout
    assert f"tuning        {file}: " in albireo("inspect").stdout
    told = json.loads(albireo("doctor", "--json").stdout)["native"]["tuning"]
    assert told == {"path": str(file), "choices": number, "error": None}
    assert albireo("generate", engine, "Once", "--temperature", "0", "--max-tokens", "8").exit_code == 0


def test_dry_run_writes_nothing(albireo, cache):
    result = albireo("tune", "--budget", "0.1", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "written       nothing (--dry-run)" in result.stdout
    assert "choices measured" in result.stdout
    assert not cache.exists()
    assert "nothing measured yet: albireo tune" in albireo("doctor").stdout


def test_a_damaged_table_is_named_and_tune_mends_it(albireo, cache, tmp_path):
    engine = tmp_path / "engine"
    albireo("build", "-o", engine)
    (engine / "tuning.json").write_text("{")
    result = albireo("inspect", engine)
    assert result.exit_code == 1
    assert f"delete the file, or measure again: albireo tune {engine}" in result.stderr
    assert albireo("tune", engine, "--budget", "0.1").exit_code == 0
    assert albireo("inspect", engine).exit_code == 0


def test_a_damaged_cache_is_shown_by_the_doctor(albireo, cache):
    albireo("tune", "--budget", "0.1")
    (file,) = cache.iterdir()
    file.write_text("{")
    assert "is not valid JSON" in albireo("doctor").stdout


def test_refusals(albireo, cache, tmp_path):
    result = albireo("tune", "--budget", "0")
    assert result.exit_code == 1
    assert "allows no measurement" in result.stderr
    assert albireo("tune", tmp_path).exit_code == 1
    assert albireo("tune", "--num-threads", "0").exit_code == 2
    assert not cache.exists()


def test_where_nothing_can_be_written_nothing_is_measured(albireo, cache, tmp_path):
    (tmp_path / "cache").write_text("no directory")
    result = albireo("tune", "--budget", "600")
    assert result.exit_code == 1 and result.stdout == ""
    assert f"error: what is measured could not be written: {cache}: " in result.stderr
    assert "set XDG_CACHE_HOME, or add --dry-run" in result.stderr
