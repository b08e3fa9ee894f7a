"""Writing: all or nothing, one at a time, and nothing replaced that was not meant."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from albireo import BuildConfig, ConfigError, ModelError, ResourceError, build
from albireo.artifact import writer
from albireo.artifact.reader import is_engine_directory, open_engine
from albireo.artifact.writer import engine_writer
from artifact.engines import make_engine

SOURCE = Path(__file__).resolve().parents[2] / "src"


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_two_builds_are_equal_to_the_byte(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", tmp := "float32")
    build(checkpoint, tmp_path / "elsewhere" / "again", BuildConfig(dtype=tmp))
    assert snapshot(engine) == snapshot(tmp_path / "elsewhere" / "again")
    assert str(tmp_path) not in "".join(
        data.decode() for name, data in snapshot(engine).items() if name != "weights.0.bin"
    )


def test_what_is_there_is_replaced_only_with_force(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", "float32")
    before = snapshot(engine)
    with pytest.raises(ConfigError, match="--force replaces it"):
        build(checkpoint, engine)
    assert snapshot(engine) == before
    build(checkpoint, engine, BuildConfig(dtype="float16", force=True))
    assert open_engine(engine).manifest.options.dtype == "float16"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "engine"]


def test_force_replaces_engine_directories_only(tmp_path: Path) -> None:
    checkpoint, _ = make_engine(tmp_path, "llama", "float32")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    for target in (tmp_path / "home", checkpoint):
        before = snapshot(target)
        with pytest.raises(ConfigError, match="no engine directory"):
            build(checkpoint, target, BuildConfig(force=True))
        assert snapshot(target) == before
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match="no directory"):
            build(checkpoint, tmp_path / name, BuildConfig(force=True))


def test_an_empty_directory_is_free(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    _, engine = make_engine(tmp_path, "llama", "float32")
    assert open_engine(engine).manifest.model_type == "llama"


def test_an_engine_directory_is_no_checkpoint(tmp_path: Path) -> None:
    _, engine = make_engine(tmp_path, "llama", "float32")
    with pytest.raises(ModelError, match="give the checkpoint"):
        build(engine, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_second_of_two_builds_is_refused(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", "float32")
    with engine_writer(engine, force=True):
        with pytest.raises(ConfigError, match="another build is writing"):
            build(checkpoint, engine, BuildConfig(force=True))
        assert open_engine(engine).manifest.options.dtype == "float32"
    build(checkpoint, engine, BuildConfig(force=True))


def test_a_builder_that_was_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", "float32")
    before = snapshot(engine)
    code = (
        "import os, signal, sys\n"
        "from albireo import BuildConfig, build\n"
        "from albireo.artifact.writer import EngineWriter\n"
        "EngineWriter.commit = lambda self, manifest: os.kill(os.getpid(), signal.SIGKILL)\n"
        "build(sys.argv[1], sys.argv[2], BuildConfig(force=True, dtype='float16'))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code, str(checkpoint), str(engine)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    assert snapshot(engine) == before
    left = tmp_path / ".engine.building"
    assert (left / "weights.0.bin").exists(), "the build was killed before it had written anything"
    assert not is_engine_directory(left)
    build(checkpoint, engine, BuildConfig(force=True, dtype="float16"))
    assert open_engine(engine).manifest.options.dtype == "float16"
    assert not left.exists()


@pytest.mark.parametrize("name", ["_write_all", "_sync", "_exchange"])
def test_a_full_disk_leaves_the_old_directory(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", "float32")
    before = snapshot(engine)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer, name, full)
    with pytest.raises(ResourceError, match="No space left on device; nothing was changed"):
        build(checkpoint, engine, BuildConfig(force=True, dtype="float16"))
    assert snapshot(engine) == before
    assert not (tmp_path / ".engine.building").exists()


@pytest.mark.parametrize("functions", [{"renameat2": lambda *_: -1}, {}], ids=["file system", "C library"])
def test_where_there_is_no_exchange(functions: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, engine = make_engine(tmp_path, "llama", "float32")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(**functions))
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EINVAL)
    build(checkpoint, engine, BuildConfig(force=True, dtype="float16"))
    assert open_engine(engine).manifest.options.dtype == "float16"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "engine"]


def test_a_checkpoint_that_cannot_be_compiled_leaves_nothing(tmp_path: Path) -> None:
    checkpoint, _ = make_engine(tmp_path, "llama", "float32")
    (checkpoint / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(ModelError):
        build(checkpoint, tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "engine"]
