"""Models in several GGUF files, as the gguf package writes them: read as one, and refused where parts do not fit."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel, WeightMismatch
from albireo.models import build_graph, load_config, open_checkpoint
from albireo.models.checkpoint.weights import Checkpoint, weight_files
from albireo.models.gguf.files import MAX_PARTS, part_paths
from albireo.models.gguf.tensors import GgufFile
from models.gguf.test_header import array, head, pair
from models.gguf.writer import LLAMA, MIXTURES, write_gguf

EIGHT = {"split_max_tensors": 8}


def write_parts(directory: Path, kind: str = "Q8_0", seed: int = 3, **split: Any) -> dict[str, np.ndarray]:
    """LLAMA, 21 tensors: three files by default."""
    return write_gguf(directory / "m.gguf", LLAMA, kind, seed=seed, split=split or EIGHT)


def part(directory: Path, number: int, count: int = 3) -> Path:
    return directory / f"m-{number:05}-of-{count:05}.gguf"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_part_stands_for_all(number: int, tmp_path: Path) -> None:
    numbers = write_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [part(tmp_path, i).name for i in (1, 2, 3)]
    path = part(tmp_path, number)
    config = load_config(path)
    with open_checkpoint(path, build_graph(config, 64)) as checkpoint:
        assert checkpoint.names == tuple(sorted(numbers))
        for name, wanted in numbers.items():
            np.testing.assert_array_equal(checkpoint.tensor(name).to_float32(), wanted)
            checkpoint.release(name)
    assert weight_files(path) == [part(tmp_path, i) for i in (1, 2, 3)]


def test_a_first_part_without_tensors(tmp_path: Path) -> None:
    numbers = write_parts(tmp_path, split_max_tensors=11, small_first_shard=True)
    with Checkpoint(part(tmp_path, 2)) as checkpoint:
        assert checkpoint.names == tuple(sorted(numbers))


def test_experts_are_cut_out_of_the_file_that_has_them(tmp_path: Path) -> None:
    numbers = write_gguf(tmp_path / "m.gguf", MIXTURES["qwen3_moe"], "Q4_0", seed=3, split={"split_max_tensors": 5})
    with Checkpoint(next(iter(sorted(tmp_path.iterdir())))) as checkpoint:
        for name, wanted in numbers.items():
            np.testing.assert_array_equal(checkpoint.tensor(name).to_float32(), wanted)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    write_parts(tmp_path)
    part(tmp_path, 2).unlink()
    for number in (1, 3):
        with pytest.raises(ModelError, match=r"of 3 parts of a model 1 missing: m-00002-of-00003\.gguf"):
            GgufFile(part(tmp_path, number))
    assert weight_files(part(tmp_path, 1)) == [part(tmp_path, 1), part(tmp_path, 3)]


def test_a_part_of_another_model(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_parts(tmp_path)
    other = {"tie_word_embeddings": True, "num_hidden_layers": 3}
    write_gguf(tmp_path / "other" / "m.gguf", LLAMA | other, "F32", split={"split_max_tensors": 10})
    shutil.copy(part(tmp_path / "other", 2), part(tmp_path, 2))
    with pytest.raises(WeightMismatch, match=r"00002.*'split.tensors.count'=29, and 21 in m-00001.*different models"):
        GgufFile(part(tmp_path, 1))


def test_parts_of_two_ways_of_splitting(tmp_path: Path) -> None:
    """Three files of one model, and as many tensors said by each."""
    (tmp_path / "other").mkdir()
    write_parts(tmp_path)
    write_parts(tmp_path / "other", split_max_tensors=7)
    shutil.copy(part(tmp_path / "other", 2), part(tmp_path, 2))
    with pytest.raises(WeightMismatch, match=r"tensor '[\w.]+' is also in m-0000\d-of-00003\.gguf"):
        GgufFile(part(tmp_path, 1))
    shutil.copy(part(tmp_path / "other", 1), part(tmp_path, 1))
    with pytest.raises(WeightMismatch, match=r"split.tensors.count=21, but 3 parts have 19 tensors"):
        GgufFile(part(tmp_path, 1))


def test_files_under_each_others_names(tmp_path: Path) -> None:
    write_parts(tmp_path)
    shutil.move(part(tmp_path, 2), tmp_path / "kept")
    shutil.copy(part(tmp_path, 3), part(tmp_path, 2))
    with pytest.raises(WeightMismatch, match=r"00002.*split.no=2, but by its name it is number 1"):
        GgufFile(part(tmp_path, 1))


def test_names_that_do_not_say_where_the_others_are(tmp_path: Path) -> None:
    write_parts(tmp_path)
    shutil.copy(part(tmp_path, 1), tmp_path / "renamed.gguf")
    with pytest.raises(UnsupportedModel, match=r"split.count=3.*found by names such as renamed-00001-of-00003.gguf"):
        GgufFile(tmp_path / "renamed.gguf")
    shutil.copy(part(tmp_path, 1), part(tmp_path, 1, 4))
    with pytest.raises(WeightMismatch, match=r"split.count=3, but its name says 4 parts"):
        GgufFile(part(tmp_path, 1, 4))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("split.count", r"split.count=array\(\[1, 1\].* must be a number from 1 to 512"),
        ("split.no", r"split.no=array.*by its name it is number 0"),
        ("split.tensors.count", r"split.tensors.count=array.*2 parts have 0 tensors"),
    ],
)
def test_settings_that_are_no_numbers(key: str, message: str, tmp_path: Path) -> None:
    values = {"split.count": 2, "split.no": 0, "split.tensors.count": 0}
    for number in (1, 2):
        keys = [pair(name, 4, struct.pack("<I", value)) for name, value in (values | {"split.no": number - 1}).items()]
        keys = [pair(key, 9, array(4, 2, struct.pack("<2I", 1, 1))) if key.encode() in k[:30] else k for k in keys]
        part(tmp_path, number, 2).write_bytes(head(keys, []))
    with pytest.raises(WeightMismatch, match=message):
        GgufFile(part(tmp_path, 1, 2))


@pytest.mark.parametrize("count", [0, MAX_PARTS + 1])
def test_numbers_of_parts_that_cannot_be(count: int, tmp_path: Path) -> None:
    part(tmp_path, 1).write_bytes(head([pair("split.count", 4, struct.pack("<I", count))], []))
    with pytest.raises(WeightMismatch, match=f"split.count={count} must be a number from 1 to 512"):
        GgufFile(part(tmp_path, 1))


def test_a_whole_file_may_have_such_a_name(tmp_path: Path) -> None:
    write_gguf(part(tmp_path, 1), LLAMA)
    with Checkpoint(part(tmp_path, 1)) as checkpoint:
        assert len(checkpoint.names) == 21
    assert weight_files(part(tmp_path, 1)) == [part(tmp_path, 1)]


@pytest.mark.parametrize(
    "name",
    [
        "m.gguf",
        "m-00000-of-00003.gguf",
        "m-00004-of-00003.gguf",
        "m-1-of-3.gguf",
        f"m-00001-of-{MAX_PARTS + 1:05}.gguf",
    ],
)
def test_names_of_whole_files(name: str) -> None:
    assert part_paths(Path(name)) == [Path(name)]


def test_a_part_that_becomes_shorter_is_refused_before_it_is_touched(tmp_path: Path) -> None:
    write_parts(tmp_path)
    file = GgufFile(part(tmp_path, 1))
    for number in (1, 2, 3):
        os.truncate(part(tmp_path, number), 64)
    for name in file.names:
        with pytest.raises(WeightMismatch, match=r"m-0000\d-of-00003.gguf: has 64 bytes now, .* when it was opened"):
            file.buffer(name)
