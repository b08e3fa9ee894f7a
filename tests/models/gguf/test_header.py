"""Heads of GGUF files that lie: counts, lengths, offsets, overlaps, nesting; refused at once, whatever they claim."""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from albireo.errors import EngineError, ModelError, UnsupportedModel, WeightMismatch
from albireo.models import build_graph, load_config, open_checkpoint
from albireo.models.gguf.header import MAX_KEYS, MAX_TENSORS, read_header
from albireo.models.gguf.tensors import GgufFile, read_settings
from albireo.text.gguf_tokenizer import gguf_tokenizer
from models.gguf.writer import LLAMA, words, write_gguf

#: `make fuzz` sets another number of rounds, and other seeds.
NUM_ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "100"))
SEED = os.environ.get("FUZZ_SEED", "albireo")


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def tensor(name: str = "w", dims: tuple[int, ...] = (32, 2), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def head(
    keys: list[bytes],
    tensors: list[bytes],
    num_keys: int | None = None,
    num_tensors: int | None = None,
    version: int = 3,
) -> bytes:
    counts = (len(tensors) if num_tensors is None else num_tensors, len(keys) if num_keys is None else num_keys)
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys + tensors)


def padded(data: bytes, num_bytes: int, alignment: int = 32) -> bytes:
    return data + bytes(-len(data) % alignment) + bytes(num_bytes)


def array(kind: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + data


def test_what_a_good_head_says() -> None:
    keys = [
        pair("general.alignment", 4, struct.pack("<I", 64)),
        pair("a", 8, text("é")),
        pair("b", 9, array(8, 2, text("x") + text(""))),
        pair("c", 9, array(5, 3, struct.pack("<3i", 1, -2, 3))),
        pair("d", 7, b"\1"),
        pair("e", 12, struct.pack("<d", 0.5)),
    ]
    data = padded(head(keys, [tensor("v", (3,), 0, 0), tensor("w", (32, 2), 8, 64)]), 64 + 68, 64)
    found = read_header(memoryview(data), "f")
    assert {k: v for k, v in found.settings.items() if k != "c"} == {
        "general.alignment": 64, "a": "é", "b": ["x", ""], "d": True, "e": 0.5,
    }  # fmt: skip
    assert found.settings["c"].tolist() == [1, -2, 3]
    start = found.entries["v"].start
    assert start % 64 == 0 and (found.entries["w"].start, found.entries["w"].stop) == (start + 64, start + 132)
    assert (found.entries["w"].shape, found.entries["w"].kind) == ((2, 32), "Q8_0")


BIG = 2**64 - 1
LIES: list[tuple[bytes, str]] = [
    (b"GGML" + bytes(40), "does not begin with GGUF"),
    (head([], [], version=1), "version 1 is not supported; supported: 2, 3"),
    (head([], [], version=3 << 24), "it is big endian"),
    (head([], [], num_keys=BIG), f"at most {MAX_TENSORS} and {MAX_KEYS} are read"),
    (head([], [], num_tensors=BIG), f"at most {MAX_TENSORS} and {MAX_KEYS} are read"),
    (head([], [], num_tensors=3), "bytes are expected at byte 24; it is truncated"),
    (head([], [], num_keys=3), "bytes are expected at byte 24; it is truncated"),
    (head([struct.pack("<Q", BIG)], []), "a string of 18446744073709551615 bytes at byte 24; at most 1024"),
    (head([pair("k" * 1025, 4, b"")], []), "a string of 1025 bytes"),
    (head([pair("k", 8, struct.pack("<Q", BIG))], []), "a string of 18446744073709551615 bytes"),
    (head([pair("k", 8, struct.pack("<Q", 2**28))], []), "268435456 bytes are expected.*truncated"),
    (head([pair(b"\xff", 4, bytes(4))], []), "is not UTF-8"),
    (head([pair("k", 8, text(b"\xed\xa0\x80"))], []), "is not UTF-8"),
    (head([pair("k", 13, bytes(8))], []), "'k' has type 13, which is not known"),
    (head([pair("k", 9, array(13, 1, bytes(8)))], []), "'k' has type 13"),
    (head([pair("k", 9, array(9, 1, array(9, 1, array(9, 1))))], []), "'k' is an array of arrays"),
    (head([pair("k", 9, array(4, BIG))], []), "73786976294838206460 bytes are expected.*truncated"),
    (head([pair("k", 9, array(8, BIG))], []), "'k' has 18446744073709551615 strings; at most"),
    (head([pair("k", 9, array(8, 2**20))], []), "8 bytes are expected.*truncated"),
    (head([pair("k", 4, bytes(4))] * 2, []), "key 'k' appears twice"),
    (head([pair("general.alignment", 4, struct.pack("<I", 0))], []), "general.alignment=0 must be a power of two"),
    (head([pair("general.alignment", 4, struct.pack("<I", 48))], []), "general.alignment=48 must be a power of two"),
    (head([pair("general.alignment", 4, struct.pack("<I", 2**31))], []), "must be a power of two"),
    (head([pair("general.alignment", 8, text("32"))], []), "general.alignment='32' must be a power of two"),
    (padded(head([], [tensor(dims=())]), 256), "'w': has 0 dimensions"),
    (padded(head([], [tensor(dims=(1,) * 5)]), 256), "'w': has 5 dimensions; 1 to 4"),
    (padded(head([], [text("w") + struct.pack("<I", 2**32 - 1)]), 256), "has 4294967295 dimensions"),
    (padded(head([], [tensor(dims=(0, 4))]), 256), r"shape \[4, 0\] is not that of a weight"),
    (padded(head([], [tensor(dims=(BIG, 2))]), 256), "is not that of a weight"),
    (padded(head([], [tensor(dims=(2**32, 2**32))]), 256), "is not that of a weight"),
    (padded(head([], [tensor(dims=(2**33, 2**33, 2**33, 2**33))]), 256), "is not that of a weight"),
    (padded(head([], [tensor(dims=(33, 2), kind=8)]), 256), "rows of 33 are no whole blocks of 32"),
    (padded(head([], [tensor(kind=5)]), 256), "'w': has type 5, which is not known"),
    (padded(head([], [tensor(kind=2**31)]), 256), "has type 2147483648, which is not known"),
    (padded(head([], [tensor(kind=15, dims=(256, 1))]), 256), "has type Q8_K; supported: F32, F16"),
    (padded(head([], [tensor(), tensor(offset=256)]), 512), "'w' appears twice"),
    (
        padded(head([], [tensor(), tensor("v", offset=128)]), 512),
        "'v' starts at .*: overlaps the tensor before it",
    ),
    (padded(head([], [tensor(), tensor("v")]), 512), "starts at byte .*: overlaps the tensor before it"),
    (padded(head([], [tensor(), tensor("v", offset=512)]), 999), "'v' starts at byte .*: leaves a hole before it"),
    (padded(head([], [tensor(offset=16)]), 512), "'w' starts at byte .*: leaves a hole before it"),
    (padded(head([], [tensor(offset=BIG - 15)]), 512), "leaves a hole before it"),
    (padded(head([], [tensor()]), 255), "'w' ends at byte .* it is truncated"),
    (padded(head([], [tensor(dims=(2**20, 2**20))]), 512), "it is truncated"),
]


@pytest.mark.parametrize(("data", "message"), LIES)
def test_a_head_that_lies_is_refused_at_once(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises((WeightMismatch, UnsupportedModel), match=message) as error:
            GgufFile(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert "m.gguf" in str(error.value)


@pytest.mark.parametrize("size", [0, 3, 23])
def test_a_file_shorter_than_a_head(size: int, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF"[:size] + bytes(max(0, size - 4)))
    with pytest.raises(WeightMismatch, match="less than a GGUF head; it is truncated"):
        GgufFile(tmp_path / "m.gguf")


def test_a_part_of_several_files(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(padded(head([pair("split.count", 2, struct.pack("<H", 3))], [tensor()]), 256))
    with pytest.raises(
        UnsupportedModel, match=r"=3: it is one part of several, which are found by names such as m-00001-of-00003.gguf"
    ):
        GgufFile(tmp_path / "m.gguf")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")  # opening it would hang
    with pytest.raises(ModelError, match="is not a regular file"):
        GgufFile(tmp_path / "m.gguf")


def test_two_names_for_one_weight(tmp_path: Path) -> None:
    names = [tensor("blk.1.attn_q.weight"), tensor("blk.01.attn_q.weight", offset=256)]
    (tmp_path / "m.gguf").write_bytes(padded(head([], names), 512))
    with pytest.raises(WeightMismatch, match=r"'blk.01.attn_q.weight' appears twice, also as 'model\.layers\.1\."):
        GgufFile(tmp_path / "m.gguf")


def read_everything(path: Path) -> None:
    """What loading does, short of packing and running; a model of another size is not worth the minutes."""
    gguf_tokenizer(read_settings(path), str(path))
    config = load_config(path)
    if config.num_layers > 4:
        return
    with open_checkpoint(path, build_graph(config, 16)) as checkpoint:
        for name in checkpoint.names:
            checkpoint.tensor(name)
            checkpoint.release(name)


SMALL = LLAMA | {"num_hidden_layers": 1, "intermediate_size": 256, "num_attention_heads": 2, "head_dim": 128}
PIECES = [0, 1, 7, 8, 31, 32, 33, 255, 2**16, 2**31, 2**32 - 1, 2**40, 2**63, BIG]


def damaged(data: bytes, end: int, rng: random.Random) -> bytes:
    """Bytes replaced, numbers replaced, pieces doubled, moved or cut away in the head; now and then anywhere."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not found:
            break
        at = rng.randrange(min(end, len(found)) if rng.random() < 0.9 else len(found))
        kind = rng.randrange(6)
        if kind == 0:
            found[at] = rng.randrange(256)
        elif kind == 1:
            found[at : at + 8] = struct.pack("<Q", rng.choice(PIECES))
        elif kind == 2:
            found[at : at + 4] = struct.pack("<I", rng.choice(PIECES) % 2**32)
        elif kind == 3:
            length = rng.choice((1, 4, 8, 50))
            found[at:at] = found[at : at + length]
        elif kind == 4:
            del found[at : at + rng.choice((1, 4, 8, 50))]
        elif rng.random() < 0.2:
            del found[at:]
    return bytes(found)


@pytest.mark.parametrize("kind", ["F32", "mixed"])
def test_random_damage_is_refused_or_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, SMALL, kind, tokenizer=words)
    data = path.read_bytes()
    read_everything(path)
    with open_checkpoint(path, build_graph(load_config(path), 16)) as checkpoint:
        end = min(entry.start for entry in checkpoint._stored._entries.values())  # type: ignore[union-attr]
    rng, num_refused = random.Random(f"{SEED} {kind}"), 0
    for i in range(NUM_ROUNDS):
        path.write_bytes(damaged(data, end, rng))
        try:
            read_everything(path)
        except EngineError as error:
            assert str(error), f"round {i}"
            num_refused += 1
    assert NUM_ROUNDS // 3 < num_refused < NUM_ROUNDS


def test_numbers_of_a_type_are_kept_apart_from_the_file(tmp_path: Path) -> None:
    """Settings are copies: the file may go once it is closed."""
    path = tmp_path / "m.gguf"
    path.write_bytes(padded(head([pair("c", 9, array(5, 3, struct.pack("<3i", 1, -2, 3)))], [tensor()]), 256))
    settings = read_settings(path)
    path.write_bytes(b"")
    assert np.array_equal(settings["c"], [1, -2, 3])
