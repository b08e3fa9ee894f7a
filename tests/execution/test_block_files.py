"""Blocks in files: what is read is what was kept, or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from albireo.execution import block_files
from albireo.execution.block_files import BlockDirectory

SIZE = 48


class Memory:
    """Blocks of two parts each, whose bytes say which block they are of."""

    def __init__(self, num_blocks: int = 40) -> None:
        self.parts = [[bytearray([n]) * 16, bytearray([n + 100]) * 32] for n in range(num_blocks)]

    def block_content(self, block: int) -> list[memoryview]:
        return [memoryview(part) for part in self.parts[block]]

    def state_content(self, slot: int) -> list[memoryview]:
        return [memoryview(bytes([slot]) * 7)]


def key(number: int) -> bytes:
    return hashlib.sha256(bytes([number])).digest()


def content(number: int) -> bytes:
    return bytes([number]) * 16 + bytes([number + 100]) * 32


def opened(root: Path, model: str = "model", max_bytes: int = 1 << 20) -> BlockDirectory:
    return BlockDirectory(root, model, Memory(), max_bytes)


def kept(root: Path, numbers: range, **kwargs: object) -> None:
    """Keep some, and wait until they are written."""
    directory = opened(root, **kwargs)  # type: ignore[arg-type]
    directory.keep([(key(n), n) for n in numbers])
    directory.close()


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_the_next_process_reads_what_was_kept(tmp_path: Path) -> None:
    kept(tmp_path, range(1, 6))
    found = opened(tmp_path).read([key(n) for n in (1, 2, 3, 9, 4)])
    assert found == [content(n) for n in (1, 2, 3)], "those behind one that is missing are of no use"
    assert opened(tmp_path, "other").read([key(1)]) == []
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path)}
    assert len(files(tmp_path)) == 5 and modes == {0o600}


@pytest.mark.parametrize(("most", "num"), [(SIZE, 1), (3 * SIZE - 1, 2), (3 * SIZE, 3)])
def test_no_more_is_read_at_a_time_than_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, num: int
) -> None:
    kept(tmp_path, range(1, 6))
    monkeypatch.setattr(block_files, "MAX_READ_BYTES", most)
    assert opened(tmp_path).read([key(n) for n in range(1, 6)]) == [content(n) for n in range(1, num + 1)]


def test_states_are_kept_beside_blocks(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    directory.keep([(key(1), 1)])
    directory.keep_state(key(1), 5)
    directory.close()
    found = opened(tmp_path)
    assert (found.has_state(key(1)), found.has_state(key(2))) == (True, False)
    assert (found.read_state(key(1)), found.read_state(key(2))) == (bytes([5]) * 7, None)
    assert found.read([key(1)]) == [content(1)]
    (path,) = tmp_path.rglob("*.state")
    path.write_bytes(path.read_bytes()[:-1])
    assert found.read_state(key(1)) is None and not found.has_state(key(1))


def test_a_block_is_kept_as_it_was_then(tmp_path: Path) -> None:
    memory = Memory()
    directory = BlockDirectory(tmp_path, "model", memory, 1 << 20)
    directory.keep([(key(3), 3)])
    memory.parts[3][0][:] = bytes(16)
    directory.keep([(key(3), 3)])
    directory.close()
    assert opened(tmp_path).read([key(3)]) == [content(3)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"a",
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: b"anything",
    ],
)
def test_what_is_damaged_is_no_block_and_goes(tmp_path: Path, damage: object) -> None:
    kept(tmp_path, range(1, 3))
    (path,) = tmp_path.rglob(f"{key(2).hex()}*")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert opened(tmp_path).read([key(1), key(2)]) == [content(1)]
    assert not path.exists()
    kept(tmp_path, range(2, 3))
    assert opened(tmp_path).read([key(1), key(2)]) == [content(1), content(2)]


def test_what_is_damaged_and_cannot_be_removed_is_no_block_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept(tmp_path, range(1, 3))
    (path,) = tmp_path.rglob(f"{key(2).hex()}*")
    path.write_bytes(b"anything")

    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    assert opened(tmp_path).read([key(1), key(2)]) == [content(1)]
    assert path.exists() and "no whole block" in caplog.text


def test_a_folder_that_cannot_be_looked_into_is_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(tmp_path, range(1, 3))
    directory, look = opened(tmp_path), os.stat

    def refused(path: object, *args: object, **kwargs: object) -> os.stat_result:
        if str(path).startswith(str(tmp_path)):
            raise OSError(errno.EIO, "Input/output error")
        return look(path, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refused)
        assert not directory.has(key(1)) and not directory.has_state(key(1))
        directory.keep([(key(1), 1)])
        directory.keep_state(key(1), 1)
    directory.close()
    assert opened(tmp_path).has(key(1))


def test_those_of_no_use_for_longest_go_first(tmp_path: Path) -> None:
    size = SIZE + 32
    kept(tmp_path, range(10), model="other")
    for n, path in enumerate(sorted(files(tmp_path), key=lambda path: path.name)):
        os.utime(path, ns=(n, n))
    oldest = [path.stem for path in sorted(files(tmp_path), key=lambda path: path.stat().st_mtime_ns)]
    directory = opened(tmp_path, "other")
    used = next(n for n in range(10) if key(n).hex() == oldest[0])
    assert directory.read([key(used)]) == [content(used)]
    kept(tmp_path, range(20, 22), max_bytes=11 * size)
    left = {path.stem for path in files(tmp_path)}
    assert {oldest[0], key(20).hex(), key(21).hex()} <= left, "what was read is younger"
    assert oldest[1] not in left and sum(path.stat().st_size for path in files(tmp_path)) <= 11 * size


def test_what_is_not_its_own_is_neither_counted_nor_removed(tmp_path: Path) -> None:
    own = key(1).hex()
    others = [
        tmp_path / "thesis.txt",
        tmp_path / "model" / own[:2] / "notes.block",
        tmp_path / "ab" / "cd" / "ef.block",
    ]
    others += [tmp_path / f"{own}.block", tmp_path / "model" / f"{own}.block"]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(10_000))
        os.utime(path, ns=(1, 1))
    left_unfinished = tmp_path / "model" / own[:2] / f"{own}.123"
    left_unfinished.write_bytes(bytes(SIZE))
    os.utime(left_unfinished, ns=(1, 1))
    kept(tmp_path, range(8), max_bytes=6 * (SIZE + 32))
    assert all(path.read_bytes() == bytes(10_000) for path in others)
    assert not left_unfinished.exists()
    assert 4 <= len(set(files(tmp_path)) - set(others)) <= 6


def test_a_folder_that_cannot_be_written_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **kwargs: object) -> object:
        raise OSError(28, "No space left on device")

    kept(tmp_path, range(1, 2))
    monkeypatch.setattr(block_files, "_private", full)
    directory = opened(tmp_path)
    directory.keep([(key(n), n) for n in range(2, 12)])
    directory.close()
    assert len(caplog.records) == 1 and "No space left" in caplog.text
    directory.keep([(key(30), 30)])
    assert directory.read([key(1)]) == [content(1)], "what is there is still read"
    assert len(files(tmp_path)) == 1


def test_who_keeps_faster_than_files_are_written_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_files, "MAX_WAITING_BYTES", 3 * SIZE)
    directory, gate = opened(tmp_path), threading.Event()
    directory._thread.submit(gate.wait, 30)
    directory.keep([(key(n), n) for n in range(10)])
    gate.set()
    directory.close()
    assert opened(tmp_path).read([key(n) for n in range(10)]) == [content(n) for n in range(3)]


def test_all_of_a_model_is_removed_what_waits_too(tmp_path: Path) -> None:
    kept(tmp_path, range(1, 4))
    kept(tmp_path, range(4, 6), model="other")
    (other,) = {path.parent.parent for path in files(tmp_path)} - {tmp_path / "model"}
    stranger = files(tmp_path / "model")[0].with_name("notes.txt")
    stranger.write_text("mine")
    directory = opened(tmp_path)
    # the thread is held, so that two are not written yet
    gate = threading.Event()
    directory._thread.submit(gate.wait)
    directory.keep([(key(n), n) for n in (7, 8)])
    threading.Timer(0.05, gate.set).start()
    directory.remove()
    assert files(tmp_path / "model") == [stranger] and len(files(other)) == 2
    directory.keep([(key(7), 7)])
    directory.close()
    assert opened(tmp_path).read([key(7)]) == [content(7)]


def test_what_cannot_be_listed_stays_and_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept(tmp_path, range(1, 3))
    directory = opened(tmp_path)

    def refused(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "glob", refused)
    directory.remove()
    directory.close()
    assert "Input/output error" in caplog.text and opened(tmp_path).has(key(1))
