"""Directories altered by someone who can mend hashes, or cannot: each is refused with its reason, before it is used."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albireo import Corrupt, EngineError, EngineFileError, TargetMismatch, UnsupportedModel, VersionMismatch
from albireo.artifact.reader import hinting, is_engine_directory, open_engine
from artifact.engines import alter, make_engine, run, seal
from compiler.ranks import WIDE

Edit = Callable[[Any], Any]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_engine(tmp_path_factory.mktemp("built"), "qwen3", "bfloat16")[1]


@pytest.fixture
def engine(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "engine"))


def put(*keys: Any, value: Any) -> Edit:
    """Set what lies at the end of keys."""

    def edit(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return edit


def drop(*keys: Any) -> Edit:
    def edit(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return edit


def on(op: str, keys: tuple[Any, ...], value: Any) -> Edit:
    """Edit the first node of an op."""

    def edit(data: Any) -> None:
        put(*keys, value=value)(next(node for node in data["nodes"] if node["op"] == op))

    return edit


def on_call(family: str, keys: tuple[Any, ...], value: Any) -> Edit:
    def edit(data: Any) -> None:
        put(*keys, value=value)(next(call for call in data["calls"] if call["family"] == family))

    return edit


def swap_offsets(data: Any) -> None:
    a, b = data["constants"][1], data["constants"][2]
    a["offset"] = b["offset"]


def widen_vocabulary(data: Any) -> None:
    """Everything a consistent lie about the table needs, so that ids would index behind it."""
    data["vocab_size"] *= 2


MANIFEST: list[tuple[str, Edit, type[EngineError], str]] = [
    ("another major", put("format", "major", value=3), VersionMismatch, "version 3.31, this albireo reads 2.0 to 2.31"),
    ("a newer minor", put("format", "minor", value=32), VersionMismatch, "version 2.32"),
    ("another format", put("format", "name", value="gguf"), Corrupt, "another kind of directory"),
    ("an unknown key", put("run", value="rm -rf /"), Corrupt, "unknown key 'run'"),
    ("an unknown option", put("options", "tp", value=2), Corrupt, "unknown key 'tp'"),
    ("an unknown profile", put("options", "profile", value="calm"), Corrupt, "profile='calm' must be one of balanced"),
    ("a pass of another type", put("options", "without", value=[3]), Corrupt, "must be a list of strings"),
    ("an unknown pass", put("options", "without", value=["fuse_all"]), TargetMismatch, "'fuse_all' names no pass"),
    ("an obligatory pass", put("options", "without", value=["fuse_embed"]), TargetMismatch, "cannot be left out"),
    ("overrides of another type", put("options", "hf_overrides", value=[1]), Corrupt, "must be an object"),
    ("no overrides", drop("options", "hf_overrides"), Corrupt, "hf_overrides is missing"),
    ("no settings of pictures", drop("options", "mm_processor_kwargs"), Corrupt, "mm_processor_kwargs is missing"),
    ("a missing profile", drop("options", "profile"), Corrupt, "profile is missing"),
    ("a missing key", drop("options", "dtype"), Corrupt, "dtype is missing"),
    ("an unknown dtype", put("options", "dtype", value="int4"), Corrupt, "must be one of"),
    ("more ranks than files", put("options", "tensor_parallel_size", value=2), Corrupt, "weights.1.bin is missing"),
    ("more ranks than any", put("options", "tensor_parallel_size", value=16), Corrupt, "tensor_parallel_size=16"),
    ("an order that is no flag", put("options", "tp_invariant", value=1), Corrupt, "must be true or false"),
    ("a length of nothing", put("options", "max_model_len", value=0), Corrupt, "max_model_len=0"),
    ("a length that is true", put("options", "max_model_len", value=True), Corrupt, "max_model_len=True"),
    ("a length beyond reason", put("options", "max_model_len", value=10**400), Corrupt, "max_model_len="),
    ("a path upwards", put("files", "../../etc/passwd", value={"size": 1, "sha256": "0" * 64}), Corrupt, "no file of"),
    ("an absolute path", put("files", "/etc/passwd", value={"size": 1, "sha256": "0" * 64}), Corrupt, "no file of"),
    ("code", put("files", "config/run.py", value={"size": 1, "sha256": "0" * 64}), Corrupt, "no file of"),
    ("no graph", drop("files", "graph.json"), Corrupt, "graph.json is missing"),
    ("a negative size", put("files", "weights.0.bin", "size", value=-1), Corrupt, "size=-1"),
    ("a short hash", put("files", "graph.json", "sha256", value="ab"), Corrupt, "64 hexadecimal digits"),
    ("a foreign hash", put("files", "graph.json", "sha256", value="0" * 64), Corrupt, "hash is not the manifest's"),
    ("files as a list", put("files", value=[]), Corrupt, "wanted an object"),
    ("another dtype", put("options", "dtype", value="float32"), Corrupt, "graph.json computes in bfloat16"),
    ("another architecture", put("model_type", value="llama"), TargetMismatch, "manifest.json says llama"),
    ("a list", lambda _: [], Corrupt, "not an object"),
]

GRAPH: list[tuple[str, Edit, type[EngineError], str]] = [
    ("an unknown op", on("rms_norm", ("op",), "system"), Corrupt, "op='system'"),
    ("a fused op", on("rms_norm", ("op",), "fused"), Corrupt, "op='fused'"),
    ("an unknown key", put("code", value="x"), Corrupt, "unknown key 'code'"),
    ("a missing role", lambda d: d["nodes"][1]["inputs"].clear(), Corrupt, "roles missing"),
    ("an extra role", on("linear", ("inputs", "extra"), "token_ids"), Corrupt, "a role that linear does not have"),
    ("an extra attribute", on("linear", ("attrs", "n"), 4), Corrupt, "unknown key 'n'"),
    ("an unknown role of a linear", on("linear", ("attrs", "role"), "column"), Corrupt, "role='column' must be one of"),
    ("a tree in what is stored", on("linear", ("attrs", "chunks"), 2), Corrupt, "is cut for ranks already"),
    ("chunks of nothing", on("linear", ("attrs", "chunks"), 7), Corrupt, "chunks=7 must be a power of two from 2 to 8"),
    ("a value of nowhere", on("linear", ("inputs", "x"), "nowhere"), Corrupt, "not defined before it is read"),
    ("a value of the future", on("rms_norm", ("inputs", "x"), "30"), Corrupt, "not defined before it is read"),
    ("a wrong type", on("linear", ("outputs", 0, "dims"), ["T", 7]), Corrupt, "outputs should be"),
    ("a huge head", on("attention", ("attrs", "head_dim"), 2**40), Corrupt, ""),
    ("fewer KV heads", on("attention", ("attrs", "num_kv_heads"), 1), Corrupt, "KV heads"),
    ("a layer beyond", on("attention", ("attrs", "layer"), 99), Corrupt, "read before it is written"),
    ("a layer below", on("kv_write", ("attrs", "layer"), -1), Corrupt, "layer=-1"),
    ("a text for a number", on("rms_norm", ("attrs", "eps"), "tiny"), Corrupt, "eps='tiny'"),
    ("slopes of no head", on("attention", ("attrs", "slopes"), [0.5]), Corrupt, "1 slopes: wanted one for each of"),
    ("a rising slope", on("attention", ("attrs", "slopes"), [-0.5, 0.5]), Corrupt, "numbers above 0, and at most 1"),
    ("a slope that is none", on("attention", ("attrs", "slopes"), ["0.5"]), Corrupt, "must be a finite number"),
    ("a list for a number", on("rms_norm", ("attrs", "eps"), [1]), Corrupt, "eps=\\(1,\\)"),
    ("a rope of nowhere", on("rope", ("attrs", "rope"), {"rope": 7}), Corrupt, "rope=7"),
    ("a short rope", drop("ropes", 0, "inv_freq", -1), Corrupt, "pairs"),
    ("an infinite frequency", put("ropes", 0, "inv_freq", 0, value=1e300), Corrupt, "outside what float32 holds"),
    ("a rotation of far behind", put("ropes", 0, "behind", value=2**31), Corrupt, "behind=2147483648 must be"),
    ("growth of no period", put("ropes", 0, "growth", value=[0.1, 0, 0]), Corrupt, "a period of at least 1"),
    ("growth of a long period", put("ropes", 0, "growth", value=[0.1, 2**31, 0]), Corrupt, "a period of at least 1"),
    ("growth that shrinks", put("ropes", 0, "growth", value=[-0.1, 8, 0]), Corrupt, "must be a number of at least 0"),
    ("chunks of no length", on("attention", ("attrs", "in_chunks"), True), Corrupt, "in chunks of window=None"),
    ("positions for ids", on("embed", ("inputs", "ids"), "positions"), Corrupt, "a table of"),
    ("ids for positions", on("rope", ("inputs", "positions"), "token_ids"), Corrupt, "positions are"),
    ("ids for rows", on("gather_rows", ("inputs", "rows"), "token_ids"), Corrupt, ""),
    ("no logits", drop("outputs", 0), Corrupt, "outputs are"),
    ("an output twice", lambda d: d["outputs"].append(dict(d["outputs"][0])), Corrupt, "appears twice"),
    ("kv for logits", put("outputs", 0, "value", value="kv"), Corrupt, ""),
    ("a lost input", drop("inputs", 1), Corrupt, ""),
    ("a renamed input", put("inputs", 0, "name", value="x"), Corrupt, ""),
    ("an input of another type", put("inputs", 2, "dtype", value="int64"), Corrupt, ""),
    ("rows that are not there", put("constants", 1, "segments", 0, 2, value=10**9), Corrupt, "segments have"),
    ("rows that are no numbers", put("constants", 1, "segments", 0, 1, value="0"), Corrupt, "from a first to a later"),
    ("a rope of two", on("rope", ("attrs", "rope"), {"rope": 0, "x": 1}), Corrupt, "unknown key 'x'"),
    ("rows backwards", put("constants", 1, "segments", 0, value=["w", 9, 3]), Corrupt, "from a first to a later"),
    ("a shorter table", put("constants", 0, "dims", 0, value=3), Corrupt, ""),
    ("a dim of nothing", put("constants", 1, "dims", 0, value=0), Corrupt, "dims="),
    ("constants of one name", put("constants", 1, "name", value="token_ids"), Corrupt, "defined twice"),
]

ROPE = {"attention_factor": 1.0, "inv_freq": [1.0]}

PROGRAM: list[tuple[str, Edit, type[EngineError], str]] = [
    ("slopes of no head", on_call("attention", ("attrs", "slopes"), [0.5]), Corrupt, "one of each of num_heads="),
    ("chunks of no length", on_call("attention", ("attrs", "in_chunks"), True), Corrupt, "chunks need a length"),
    ("chunks of no group", put("kv", "in_chunks", value=[0]), Corrupt, "groups \\(0,\\) see chunks"),
    ("a group for groups", put("kv", "in_chunks", value=["0"]), Corrupt, "must be the number of a block group"),
    ("a slope for slopes", on_call("attention", ("attrs", "slopes"), 0.5), Corrupt, "must be a list of at most 4096"),
    ("an offset behind the end", put("constants", -1, "offset", value=4096 * 10**9), Corrupt, "the file at"),
    ("a negative offset", put("constants", 1, "offset", value=-4096), Corrupt, "offset=-4096"),
    ("an odd offset", put("constants", 1, "offset", value=4097), Corrupt, "multiple of 4096"),
    ("two at one place", swap_offsets, Corrupt, "overlaps"),
    ("a larger constant", put("constants", -1, "num_bytes", value=2**45), Corrupt, ""),
    ("a smaller constant", put("constants", 1, "num_bytes", value=1), TargetMismatch, "in 1 bytes, wanted"),
    ("another packing", put("constants", 0, "packing", value="row.float32"), TargetMismatch, "stored as row.float32"),
    ("an unknown packing", put("constants", 0, "packing", value="p64.int4"), Corrupt, "must be one of"),
    ("other rows", put("constants", 0, "made_of", value="0" * 64), TargetMismatch, "in another order"),
    ("a lost constant", drop("constants", 1), EngineFileError, ""),
    ("a constant twice", lambda d: d["constants"].append(d["constants"][0]), Corrupt, "appears twice"),
    ("an unknown family", on_call("linear", ("family",), "exec"), Corrupt, "family='exec'"),
    ("an unknown role", on_call("linear", ("args", "code"), "x"), Corrupt, "a role that linear"),
    ("a buffer outside", put("buffers", 0, "offset", value=2**40), Corrupt, "inside an arena"),
    ("a kernel without name", on_call("linear", ("kernel",), ""), Corrupt, "kernel unknown"),
    ("a lost barrier", lambda d: [c.update(barrier=False) for c in d["calls"]] and None, Corrupt, "no barrier"),
    ("no maxima", put("maxima", value={}), Corrupt, "T is missing"),
    ("a rank too many", put("other_ranks", value=[{"constants": []}]), Corrupt, "constants of 2 ranks, manifest.json"),
    ("a rank that is code", put("other_ranks", value=["import os"]), Corrupt, "wanted an object"),
    ("an unknown key", put("constants", 0, "loader", value="pickle"), Corrupt, "unknown key 'loader'"),
    ("an unknown key of a buffer", put("buffers", 0, "at", value=0), Corrupt, "unknown key 'at'"),
    ("an unknown key of a call", on_call("linear", ("code",), "x"), Corrupt, "unknown key 'code'"),
    ("an unknown attribute", on_call("linear", ("attrs", "m"), 4), Corrupt, "unknown key 'm'"),
    ("an unknown maximum", put("maxima", "Z", value=1), Corrupt, "unknown key 'Z'"),
    ("rows of no symbol", put("buffers", 0, "rows", value="N"), Corrupt, "rows='N' must be one of"),
    ("a rope of a matrix", put("constants", 1, "rope", value=ROPE), Corrupt, "does not go with packing"),
    ("a kernel of a number", on_call("linear", ("kernel",), 3), Corrupt, "kernel=3 must be a string"),
    ("a value of a number", on_call("linear", ("args", "x"), 3), Corrupt, "must be an object of strings"),
    ("a state of no dims", put("states", value=[[]]), Corrupt, "must be 1 to"),
    ("a state of many dims", put("states", value=[[1] * 99]), Corrupt, "must be 1 to"),
    ("a state of nothing", put("states", value=[[4, 0]]), Corrupt, "must be 1 to"),
    ("a number for a state", put("states", value=[4]), Corrupt, "must be 1 to"),
    ("shapes of other layers", put("kv", "shapes", value=[[1, 16]]), Corrupt, "must be one of each of"),
    ("a shape of three", put("kv", "shapes", value=[[1, 16, 1]]), Corrupt, "two whole numbers of at least 1"),
    ("a shape of nothing", put("kv", "shapes", value=[[1, 0]]), Corrupt, "two whole numbers of at least 1"),
    ("a window of nothing", put("kv", "windows", value=[0]), Corrupt, "of at least 1, or null"),
    ("a window that is true", put("kv", "windows", value=[True]), Corrupt, "of at least 1, or null"),
    ("a group of no layer", put("kv", "groups", value=[[-1]]), Corrupt, "lists of numbers of layers"),
    ("a layer for groups", put("kv", "groups", value=[0]), Corrupt, "lists of numbers of layers"),
]


@pytest.mark.parametrize("what, edit, error, message", MANIFEST, ids=[row[0] for row in MANIFEST])
def test_manifest(what: str, edit: Edit, error: type[EngineError], message: str, engine: Path) -> None:
    alter(engine, "manifest.json", edit)
    refused(engine, error, message)


@pytest.mark.parametrize("what, edit, error, message", GRAPH, ids=[row[0] for row in GRAPH])
def test_graph(what: str, edit: Edit, error: type[EngineError], message: str, engine: Path) -> None:
    alter(engine, "graph.json", edit)
    refused(engine, error, message)


@pytest.mark.parametrize("what, edit, error, message", PROGRAM, ids=[row[0] for row in PROGRAM])
def test_program(what: str, edit: Edit, error: type[EngineError], message: str, engine: Path) -> None:
    alter(engine, "program.json", edit)
    refused(engine, error, message)


@pytest.mark.parametrize("name", ["graph.json", "program.json", "target.json", "report.md", "config/config.json"])
def test_a_file_that_does_not_fit_its_hash(name: str, engine: Path) -> None:
    data = (engine / name).read_bytes()
    (engine / name).write_bytes(data[:-2] + b" \n")
    refused(engine, Corrupt, f"{name}: the hash is not the manifest's")
    (engine / name).write_bytes(data[:-1])
    refused(engine, Corrupt, f"{name}: has .* truncated")
    (engine / name).unlink()
    refused(engine, Corrupt, f"{name}: cannot be read")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1, "a": 2}', b"null", b"[1]"], ids=repr
)
@pytest.mark.parametrize("name", ["manifest.json", "graph.json", "program.json", "target.json"])
def test_what_is_no_object(name: str, text: bytes, engine: Path) -> None:
    (engine / name).write_bytes(text)
    if name != "manifest.json":
        seal(engine, name)
    refused(engine, Corrupt, name)


def test_levels_that_are_no_names(engine: Path) -> None:
    alter(engine, "target.json", put("isa_levels", value=["avx2", 2]))
    refused(engine, Corrupt, "must be a list of strings")


def test_big_endian_weights(engine: Path) -> None:
    alter(engine, "target.json", put("byte_order", value="big"))
    refused(engine, TargetMismatch, "big-endian")


def test_weights_of_another_size(engine: Path) -> None:
    path = engine / "weights.0.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused(engine, Corrupt, "it is truncated")
    path.write_bytes(whole + b"\0")
    refused(engine, Corrupt, "longer than it was")
    path.write_bytes(whole[: len(whole) // 2])
    seal(engine, "weights.0.bin")
    refused(engine, Corrupt, "the file at")
    path.unlink()
    refused(engine, Corrupt, "cannot be read")


@pytest.mark.parametrize("name", ["weights.0.bin", "graph.json", "manifest.json"])
def test_what_is_no_file(name: str, engine: Path) -> None:
    """Whoever opened it would wait for somebody who writes."""
    path = engine / name
    path.unlink()
    os.mkfifo(path)
    refused(engine, Corrupt, "is not a regular file")


def test_what_may_not_be_read_is_not_to_be_built_again(tmp_path: Path) -> None:
    path = str(tmp_path / "weights.0.bin")
    says = re.escape(f"{path}: cannot be read: Permission denied; let this user read it")
    with pytest.raises(Corrupt, match=f"^{says}$"), hinting(tmp_path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    with pytest.raises(Corrupt, match=r"cannot be read: Input/output error; build it again"), hinting(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)


@pytest.mark.parametrize("where", ["in a constant", "between constants"])
def test_altered_weights_are_found_when_asked(where: str, engine: Path) -> None:
    constants = json.loads((engine / "program.json").read_text())["constants"]
    third = constants[2]
    place = third["offset"] + (1 if where == "in a constant" else third["num_bytes"])
    with open(engine / "weights.0.bin", "r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))
    message = f"the hash of {third['name']}" if where == "in a constant" else "between constants"
    with pytest.raises(Corrupt, match=re.escape(message)):
        run(engine, verify_hashes=True)


RANKS: list[tuple[str, str, Edit, type[EngineError], str]] = [
    ("fewer ranks", "manifest.json", put("options", "tensor_parallel_size", value=1), Corrupt, "belongs to no rank"),
    ("no ranks", "manifest.json", put("options", "tensor_parallel_size", value=0), Corrupt, "tensor_parallel_size=0"),
    ("a lost rank", "program.json", drop("other_ranks", 0), Corrupt, "constants of 1 ranks, manifest.json says 2"),
    ("a rank twice", "program.json", lambda d: d["other_ranks"].append(d["other_ranks"][0]), Corrupt, "of 3 ranks"),
    ("an unknown key", "program.json", put("other_ranks", 0, "host", value="10.0.0.1"), Corrupt, "unknown key 'host'"),
    (
        "an offset behind the end",
        "program.json",
        put("other_ranks", 0, "constants", -1, "offset", value=2**40),
        Corrupt,
        "weights.1.bin: .* the file at",
    ),
    (
        "the other rank's rows",
        "program.json",
        lambda d: d["other_ranks"][0].update(constants=d["constants"]),
        TargetMismatch,
        "in another order",
    ),
    ("no roles", "graph.json", lambda d: [n["attrs"].pop("role", 0) for n in d["nodes"]] and None, Corrupt, "no line"),
    ("a role lost", "graph.json", drop("nodes", 3, "attrs", "role"), UnsupportedModel, "is not a rank's part"),
    ("another role", "graph.json", on("linear", ("attrs", "role"), "row"), UnsupportedModel, "is not a rank's part"),
]


@pytest.fixture(scope="module")
def built_for_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    return make_engine(root, "qwen3", "bfloat16", WIDE, tensor_parallel_size=2)[1]


@pytest.mark.parametrize("what, name, edit, error, message", RANKS, ids=[row[0] for row in RANKS])
def test_ranks(
    what: str, name: str, edit: Edit, error: type[EngineError], message: str, built_for_two: Path, tmp_path: Path
) -> None:
    engine = Path(shutil.copytree(built_for_two, tmp_path / "engine"))
    alter(engine, name, edit)
    refused(engine, error, message, num_threads=2)


def test_weights_of_a_second_rank(built_for_two: Path, tmp_path: Path) -> None:
    """Missing, cut short, of the first rank, altered."""
    engine = Path(shutil.copytree(built_for_two, tmp_path / "engine"))
    path = engine / "weights.1.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused(engine, Corrupt, "weights.1.bin: has .* truncated", num_threads=2)
    for data in ((engine / "weights.0.bin").read_bytes(), whole[:9000] + b"?" + whole[9001:]):
        path.write_bytes(data)
        with pytest.raises(Corrupt, match=r"weights\.1\.bin: the hash of .* is another one"):
            run(engine, verify_hashes=True, num_threads=2)
    path.unlink()
    refused(engine, Corrupt, "weights.1.bin: cannot be read", num_threads=2)


def test_a_vocabulary_wider_than_its_table(engine: Path) -> None:
    alter(engine, "config/config.json", widen_vocabulary)
    refused(engine, Corrupt, "config.json implies")


def test_a_checkpoint_with_a_manifest_of_its_own_is_a_checkpoint(tmp_path: Path) -> None:
    checkpoint, _ = make_engine(tmp_path, "llama", "float32")
    (checkpoint / "manifest.json").write_text("{}")
    assert not is_engine_directory(checkpoint)
    assert run(checkpoint)


def test_files_beside_those_of_the_manifest_do_not_matter(engine: Path) -> None:
    (engine / "tuning.json").write_text("{}")
    assert open_engine(engine).manifest.model_type == "qwen3"


def refused(engine: Path, error: type[EngineError], message: str, **settings: Any) -> None:
    with pytest.raises(error, match=message or None) as caught:
        run(engine, **settings)
    assert f"albireo build MODEL -o {engine}" in str(caught.value)
