"""One thread inside, as many as before behind; and nothing at all where there is no OpenBLAS."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.verify import blas_threads
from albireo.verify.blas_threads import _controls, _libraries, one_blas_thread


def counts() -> list[int]:
    return [pair[0]() for path in _libraries() if (pair := _controls(path)) is not None]


def test_threads_come_back() -> None:
    before = counts()
    if not before:
        pytest.skip("this numpy has no OpenBLAS")
    with one_blas_thread():
        assert counts() == [1] * len(before)
    assert counts() == before
    with pytest.raises(ValueError, match="any"), one_blas_thread():
        raise ValueError("any")
    assert counts() == before


def test_another_library_is_let_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(blas_threads, "_MAPS", tmp_path / "none")
    before = counts()
    with one_blas_thread():
        assert counts() == before == []
