"""Where pictures go: names that are refused, and files that are whole."""

from __future__ import annotations

import pytest

from albireo.errors import ConfigError, ResourceError
from albireo.inspect.files import picture_path, write_picture


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("picture.png", "ends in .svg or .html"),
        ("folder", "MODEL comes before --graph"),
        ("folder.svg", "is there and is no file"),
        ("nowhere/x.svg", "there is no directory nowhere"),
    ],
)
def test_refused_names(tmp_path, monkeypatch, name, words) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(ConfigError, match=words):
        picture_path(name)


def test_a_file_is_replaced_whole_or_left(tmp_path, monkeypatch) -> None:
    path = picture_path(str(tmp_path / "x.svg"))
    write_picture(path, "é")
    assert path.read_bytes() == "é".encode() and path.stat().st_mode & 0o777 == 0o644

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ResourceError, match="cannot be written: No space left on device"):
        write_picture(path, "new")
    assert path.read_text() == "é" and [p.name for p in tmp_path.iterdir()] == ["x.svg"]
