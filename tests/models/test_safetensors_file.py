"""safetensors files against the safetensors library, and damaged ones."""

from __future__ import annotations

import ctypes
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albireo.errors import ModelError, WeightMismatch
from albireo.json_file import MAX_VALUES, read_json
from albireo.models.checkpoint.safetensors_file import SafetensorsFile

safetensors_numpy = pytest.importorskip("safetensors.numpy")

GOOD = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(start: int, stop: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(stop - start) // 4] if shape is None else shape, "data_offsets": [start, stop]}


def test_tensors_equal_the_librarys(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch_format = pytest.importorskip("safetensors.torch")
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "f32": torch.randn(3, 5, generator=generator),
        "f16": torch.randn(7, generator=generator).half(),
        "bf16": torch.randn(2, 3, 4, generator=generator).bfloat16(),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 4),
        "odd name/..\n": torch.ones(1),
    }
    torch_format.save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert set(file.names) == set(tensors)
    for name, expected in tensors.items():
        raw = file.tensor(name)
        assert raw.dtype == str(expected.dtype).removeprefix("torch.")
        assert raw.shape == tuple(expected.shape) == file.shape(name)
        assert raw.num_bytes == expected.numel() * expected.element_size()
        np.testing.assert_array_equal(raw.to_float32(), expected.float().numpy())
        assert ctypes.string_at(raw.address, raw.num_bytes) == bytes(raw.buffer)


def test_the_mapping_is_not_copied_and_survives_close(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors_numpy.save_file({"a": np.arange(6, dtype=np.float32)}, path)
    file = SafetensorsFile(path)
    raw = file.tensor("a")
    assert raw.buffer.readonly
    with path.open("r+b") as out:  # a shared mapping shows a change of the file
        out.seek(-4, os.SEEK_END)
        out.write(np.float32(42).tobytes())
    assert raw.to_float32()[-1] == 42
    file.close()
    assert raw.to_float32()[-1] == 42


def test_released_pages_leave_memory_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    values = np.arange(2**20, dtype=np.float32)
    safetensors_numpy.save_file({"a": values, "b": np.ones(3, np.float32)}, path)
    file = SafetensorsFile(path)
    raw = file.tensor("a")
    assert raw.to_float32().sum() > 0
    assert resident_bytes(raw.address) >= raw.num_bytes
    file.release("a")
    assert resident_bytes(raw.address) < 2**17
    np.testing.assert_array_equal(raw.to_float32(), values)


def resident_bytes(address: int) -> int:
    """Rss of the mapping around address."""
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        if "-" in fields[0] and not fields[0].endswith(":"):
            low, high = (int(x, 16) for x in fields[0].split("-"))
            found = low <= address < high
        elif found and fields[0] == "Rss:":
            return int(fields[1]) * 1024
    raise AssertionError("address is not mapped")


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        (b"", b"", "not a JSON object"),
        (b"[]", b"", "not a JSON object"),
        (b'{"a": ', b"", "not valid JSON"),
        (b'{"a": 1}', b"", "its entry is 1"),
        (b'{"\xff": 1}', b"", "not UTF-8"),
        (b'{"a":' + b"[" * 100_000, b"", "nested too deeply"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"1234", "not dtype, shape and data_offsets"),
        ({"a": entry(0, 4) | {"extra": 1}}, b"1234", "not dtype, shape and data_offsets"),
        ({"a": entry(0, 4, dtype="F31")}, b"1234", "unknown type 'F31'"),
        ({"a": entry(0, 4) | {"dtype": ["F32"]}}, b"1234", "unknown type"),
        ({"a": entry(0, 4, [-1])}, b"1234", "not a list of at most"),
        ({"a": entry(0, 4, [1.0])}, b"1234", "not a list of at most"),
        ({"a": entry(0, 4, [True])}, b"1234", "not a list of at most"),
        ({"a": entry(0, 4, [1] * 9)}, b"1234", "not a list of at most 8"),
        ({"a": entry(0, 4) | {"shape": "1"}}, b"1234", "not a list of at most"),
        ({"a": entry(0, 4, [2**62, 2**62])}, b"1234", "data_offsets .* differ"),
        ({"a": entry(0, 8, [1])}, b"12345678", "takes 4 bytes, data_offsets .* differ"),
        ({"a": entry(4, 0, [1])}, b"1234", "data_offsets .* differ"),
        ({"a": entry(0, 4) | {"data_offsets": [0]}}, b"1234", "not two whole numbers"),
        ({"a": entry(0, 4) | {"data_offsets": [-4, 0]}}, b"1234", "not two whole numbers"),
        ({"a": entry(0, 2**60)}, b"1234", "truncated"),
        ({"a": entry(0, 4)}, b"123", "truncated"),
        ({"a": entry(0, 4)}, b"12345", "1 bytes follow the last tensor"),
        ({"a": entry(0, 4), "b": entry(0, 4)}, b"1234", "overlaps"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, b"123456781234", "overlaps"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, b"123456781234", "leaves a hole"),
        ({"a": entry(4, 8)}, b"12345678", "leaves a hole"),
        ({}, b"1", "1 bytes follow"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_damage_is_named_and_the_library_refuses_too(tmp_path: Path, header: Any, data: bytes, reason: str) -> None:
    path = write(tmp_path / "x.safetensors", header, data)
    with pytest.raises(WeightMismatch, match=rf"x\.safetensors: .*{reason}"):
        SafetensorsFile(path)
    if reason not in ("not dtype, shape and data_offsets", "not a list of at most 8"):  # where we are stricter
        with pytest.raises(Exception):  # noqa: B017 the library has many kinds of error
            safetensors_numpy.load_file(path)


@pytest.mark.parametrize("is_header", [True, False])
def test_memory_for_values_is_bounded(is_header: bool, tmp_path: Path) -> None:
    """Python has a list of nothing in 60 bytes; the file, in three."""
    header = b'{"a":[' + b"[]," * MAX_VALUES + b"[]]}"
    path = write(tmp_path / "x.safetensors", header)
    (tmp_path / "x.json").write_bytes(header)
    tracemalloc.start()
    with pytest.raises(ModelError, match=f"has {MAX_VALUES + 1} values; at most {MAX_VALUES}"):
        SafetensorsFile(path) if is_header else read_json(tmp_path / "x.json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(header)


@pytest.mark.parametrize("size", [0, 1, 7])
def test_files_too_short_for_a_length(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\0" * size)
    with pytest.raises(WeightMismatch, match=f"has {size} bytes"):
        SafetensorsFile(tmp_path / "x.safetensors")


@pytest.mark.parametrize("length", [10_000, 2**40, 2**64 - 1])
def test_a_header_longer_than_the_file(tmp_path: Path, length: int) -> None:
    with pytest.raises(WeightMismatch, match="header of"):
        SafetensorsFile(write(tmp_path / "x.safetensors", GOOD, b"\0" * 24, length))


@pytest.mark.parametrize("cut", [1, 24, 25, 60, 80])
def test_every_truncation_is_noticed(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "x.safetensors", GOOD, b"\0" * 24)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(WeightMismatch):
        SafetensorsFile(path)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_byte_gives_tensors_or_a_model_error(tmp_path: Path, data: st.DataObject) -> None:
    header = {"a": entry(0, 24, [2, 3]), "b": entry(24, 32, [2, 2], "BF16"), "__metadata__": {"format": "pt"}}
    content = bytearray(write(tmp_path / "good.safetensors", header, b"\1" * 32).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    try:
        file = SafetensorsFile(path)
        for name in file.names:
            if file.dtype(name) is not None:
                assert file.tensor(name).to_float32().shape == file.shape(name)
        file.close()
    except ModelError as error:
        assert "bad.safetensors" in str(error)


def test_other_types_are_named_when_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors_numpy.save_file({"ids": np.arange(3), "w": np.ones(2, np.float32)}, path)
    file = SafetensorsFile(path)
    assert file.dtype("ids") is None and file.tensor("w").num_bytes == 8
    with pytest.raises(WeightMismatch, match="tensor 'ids' has type I64"):
        file.tensor("ids")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="not a regular file"):
        SafetensorsFile(tmp_path / "x.safetensors")


def test_a_file_that_becomes_shorter_is_refused_before_it_is_touched(tmp_path: Path) -> None:
    """What is mapped behind the end of a file ends the process."""
    path = write(tmp_path / "x.safetensors", {"a": entry(0, 2**16)}, bytes(2**16))
    file = SafetensorsFile(path)
    assert file.tensor("a").num_bytes == 2**16
    os.truncate(path, 2**12)
    for read in (file.tensor, file.buffer):
        with pytest.raises(
            WeightMismatch, match=r"has 4096 bytes now, 65\d+ when it was opened; something writes to it"
        ):
            read("a")


def test_a_file_that_is_written_to_is_refused_and_one_replaced_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"a": entry(0, 2**12)}, bytes(2**12))
    file = SafetensorsFile(path)
    other = write(tmp_path / "y.safetensors", {"a": entry(0, 2**12)}, b"\1" * 2**12)
    os.replace(other, path)
    assert not any(file.buffer("a"))
    path.unlink()
    assert not any(file.buffer("a"))

    path = write(tmp_path / "z.safetensors", {"a": entry(0, 2**12)}, bytes(2**12))
    file = SafetensorsFile(path)
    with path.open("r+b") as written:
        written.seek(-1, os.SEEK_END)
        written.write(b"\1")
    os.utime(path, ns=(0, file._file.identity[2] + 1))  # whatever the clock of the disk can tell apart
    with pytest.raises(WeightMismatch, match=r"z\.safetensors: was written to since it was opened"):
        file.buffer("a")
