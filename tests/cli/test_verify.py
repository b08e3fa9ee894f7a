"""verify: a line a stage, three reports beside the build, and an exit code that tells."""

from __future__ import annotations

import json
import shutil

import pytest

from albireo import build
from albireo.api.sources.locate import BUNDLED
from albireo.config import BuildConfig

REPORTS = ("verify.md", "verify.json", "verify.html")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The bundled model as an engine directory."""
    return build(None, tmp_path_factory.mktemp("built") / "story").directory


def test_verified(albireo, story):
    result = albireo("verify", story, "--against", BUNDLED, "--num-tokens", "40")
    assert result.exit_code == 0, result.output
    assert [line.split()[:2] for line in result.stdout.splitlines()[:6]] == [
        [name, "passed"] for name in ("graph", "weights", "ops", "layers", "tokens", "quality")
    ]
    assert all(str(story / name) in result.stdout.splitlines()[6] for name in REPORTS)
    data = json.loads((story / "verify.json").read_text())
    assert data["verified"] is True
    assert set(data["environment"]) == {"processor", "system", "date"}
    assert str(story) not in "".join((story / name).read_text() for name in REPORTS)
    # it is a directory like any other still
    assert albireo("generate", story, "Once", "--max-tokens", "2", "--verify-hashes").exit_code == 0


def test_out_of_tolerance(albireo, story, tmp_path):
    """The report is written then too; what it says of is named in it."""
    damaged = tmp_path / "damaged"
    shutil.copytree(story, damaged)
    constant = next(
        c for c in json.loads((damaged / "program.json").read_text())["constants"] if "layers.2.mlp.down" in c["name"]
    )
    with open(damaged / "weights.0.bin", "r+b") as file:
        file.seek(constant["offset"] + 1000)
        file.write(b"\x00\x41" * 8)
    result = albireo("verify", damaged, "--against", BUNDLED)
    assert result.exit_code == 1
    assert "weights       FAILED" in result.stdout
    assert "layers.2.mlp.down: model.layers.2.mlp.down_proj.weight is not the checkpoint's: row " in result.stdout
    assert "not run       ops, layers, tokens, quality" in result.stdout
    for name in REPORTS:
        assert "layers.2.mlp.down" in (damaged / name).read_text()


def test_a_directory_that_cannot_be_written_to(albireo, story, tmp_path):
    """The verdict is printed all the same, and counts."""
    engine = tmp_path / "engine"
    shutil.copytree(story, engine, ignore=lambda *_: REPORTS)
    (engine / "verify.md").mkdir()
    (engine / "verify.md" / "in the way").touch()
    result = albireo("verify", engine, "--against", BUNDLED, "--num-tokens", "5")
    assert result.exit_code == 0
    assert f"report        was not written: {engine}: " in result.stdout
    assert sorted(path.name for path in engine.glob("*verify*")) == ["verify.md"]


def test_what_cannot_be_checked(albireo, story, tmp_path):
    result = albireo("verify", BUNDLED, "--against", BUNDLED)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {BUNDLED} is no engine directory")
    assert not (BUNDLED / "verify.md").exists()
    other = tmp_path / "other"
    shutil.copytree(BUNDLED, other)
    (other / "tokenizer.json").write_text("{}")
    result = albireo("verify", story, "--against", other)
    assert result.exit_code == 2
    assert "was not built from" in result.stderr and "tokenizer.json has 2 bytes there" in result.stderr
    result = albireo("verify", story, "--against", BUNDLED, "--text", tmp_path / "none.txt")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "none.txt: cannot be read as text" in result.stderr
    assert albireo("verify", story).exit_code == 2


def test_the_speed_of_a_quantized_directory_stands_in_its_report(albireo, tmp_path):
    engine = build(None, tmp_path / "int8", BuildConfig(quantization="int8")).directory
    result = albireo("verify", engine, "--against", BUNDLED, "--num-tokens", "40")
    assert result.exit_code == 0, result.output
    said = [line for line in result.stdout.splitlines() if "tok/s" in line]
    assert [line.split()[0] for line in said] == ["speed", "unquantized"]
    environment = json.loads((engine / "verify.json").read_text())["environment"]
    assert said[0].endswith(environment["speed"]) and said[1].endswith(environment["unquantized"])
    result = albireo("verify", engine, "--against", BUNDLED, "--num-tokens", "5", "--no-speed")
    assert result.exit_code == 0 and "tok/s" not in result.stdout
