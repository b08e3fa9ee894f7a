"""Where albireo cannot be installed, an install says so, and what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scikit_build_core.settings.skbuild_read_settings import SettingsReader

ROOT = Path(__file__).resolve().parents[2]


def test_on_windows_an_install_ends_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    settings = SettingsReader.from_file(ROOT / "pyproject.toml").settings
    assert settings.fail and "WSL2" in settings.messages.after_failure


def test_on_a_mac_it_is_for_the_oldest_release_that_was_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    settings = SettingsReader.from_file(ROOT / "pyproject.toml").settings
    release = settings.cmake.define["CMAKE_OSX_DEPLOYMENT_TARGET"]
    assert not settings.fail and f'RELEASE = "{release}"' in (ROOT / "tools" / "check_macos.py").read_text()


def test_another_system_is_named_before_a_compiler_is_looked_for(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path), "-DCMAKE_SYSTEM_NAME=FreeBSD"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "this is FreeBSD" in done.stderr and "CMAKE_CXX_COMPILER" not in done.stderr
