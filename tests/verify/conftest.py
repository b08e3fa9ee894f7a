"""A tiny engine directory and its checkpoint, made once; and copies to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact.engines import make_engine


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint and engine directory; not to be changed."""
    return make_engine(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def copied(built: tuple[Path, Path], tmp_path: Path) -> Callable[[], tuple[Path, Path]]:
    """The same pair, with an engine directory that may be changed."""

    def copy() -> tuple[Path, Path]:
        return built[0], Path(shutil.copytree(built[1], tmp_path / "engine"))

    return copy
