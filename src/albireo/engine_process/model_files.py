"""A model's files as an engine process found them, and which of them are others when the next process loads.

The worker marks them before it reads any; the client compares what two processes found. Does not know what is in them.
"""

from __future__ import annotations

from pathlib import Path

from albireo.models.gguf.files import part_paths

#: Name below the directory -> bytes, time of the last change in nanoseconds, inode.
Marks = dict[str, tuple[int, int, int]]

_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt")


def marks_of(model: Path) -> Marks:
    """Of a file and the other parts of it, or of all files of a directory but hidden ones, which are others' (.git,
    .cache): models have none. What cannot be looked at has no mark."""
    found: Marks = {}
    folder = model.parent if model.is_file() else model
    for path in part_paths(model) if model.is_file() else sorted(model.rglob("*")):
        try:
            name = path.relative_to(folder)
            if path.is_file() and (folder != model or not any(part.startswith(".") for part in name.parts)):
                stat = path.stat()
                found[str(name)] = stat.st_size, stat.st_mtime_ns, stat.st_ino
        except OSError:
            continue
    return found


def told(before: Marks, now: Marks) -> str | None:
    """What to say of files that are others than an earlier process found; None: they are the same."""
    others = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if not others:
        return None
    shown = ", ".join(_change(name, before.get(name), now.get(name)) for name in others[:4])
    more = f" and {len(others) - 4} more" if len(others) > 4 else ""
    words = f"files of the model are others than before: {shown}{more}; answers are from now on theirs"
    if all(name.endswith(_WEIGHTS) for name in others):
        return words
    return f"{words}, while tokenizer, template and limits are those of the start: start the server again"


def _change(name: str, before: tuple[int, int, int] | None, now: tuple[int, int, int] | None) -> str:
    if before is None or now is None:
        return f"{name} ({'new' if before is None else 'gone'})"
    if before[0] != now[0]:
        return f"{name} ({before[0]} bytes, now {now[0]})"
    return f"{name} ({'another file' if before[2] != now[2] else 'written to'})"
