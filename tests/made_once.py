"""Directories that take long to make and come out the same for the same arguments: made once, written for each test."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Concatenate, ParamSpec

Said = ParamSpec("Said")


def made_once(make: Callable[Concatenate[Path, Said], Path]) -> Callable[Concatenate[Path, Said], Path]:
    """Of a function that fills a directory and returns it: one that keeps the files in memory by its other arguments,
    and writes them where they are asked for. What a test changes there is its own."""
    kept: dict[str, dict[str, bytes]] = {}

    @wraps(make)
    def written(folder: Path, /, *args: Said.args, **said: Said.kwargs) -> Path:
        key = repr((args, said))
        if key not in kept:
            with TemporaryDirectory() as place:
                made = make(Path(place) / "made", *args, **said)
                files = [path for path in made.rglob("*") if path.is_file()]
                kept[key] = {str(path.relative_to(made)): path.read_bytes() for path in files}
        for name, content in kept[key].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    return written
