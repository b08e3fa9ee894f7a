"""Manifest: what a directory says it is, and the size and hash of every file in it.

Called by writer.py and reader.py. Does not open files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.artifact.layout import FORMAT, MAJOR, MINOR, REQUIRED, VISION, is_known_file, is_weights, weights_name
from albireo.artifact.record import Record, read_version
from albireo.dtypes import COMPUTE_DTYPES, KV_CODES
from albireo.errors import Corrupt, short
from albireo.graph.op_numbers import MAX_RANKS
from albireo.profiles import DEFAULT, PROFILES, Profile
from albireo.quantization.schemes import HEADS, SCHEMES

_KV_DTYPES = ("auto", *COMPUTE_DTYPES, *KV_CODES)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file's size in bytes and its sha256 in hexadecimal."""

    size: int
    sha256: str


#: Written for what was not asked for.
_NONE = "none"


@dataclass(frozen=True, slots=True)
class Options:
    """What a directory was built for. dtype, ranks and passes are binding, the others can be asked for anew where it
    is run.

    Fields, all since 2.1 (an older directory has one rank, is balanced and has every pass):
        tensor_parallel_size: ranks; tp_invariant: sums in the order of several, though there may be one.
        profile; without: passes left out.
    Fields, all since 2.2 (an older directory holds weights as numbers):
        quantization, quantization_head: asked for at the build; graph.json says what each matrix is.
        kv_cache_dtype: type of the KV cache; auto: the compute type, as before.
    Fields, all since 2.25:
        hf_overrides: what config/config.json says in place of the checkpoint's; mm_processor_kwargs: what the files
            beside it do that prepare pictures and videos; None: nothing.
    """

    dtype: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    tensor_parallel_size: int = 1
    tp_invariant: bool = False
    profile: Profile = DEFAULT
    without: tuple[str, ...] = ()
    quantization: str | None = None
    quantization_head: str | None = None
    kv_cache_dtype: str = "auto"
    hf_overrides: Mapping[str, Any] | None = None
    mm_processor_kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Fields:
    version: of the program that wrote it.
    model_type: architecture.
    source: weight files of the checkpoint, by name.
    files: of the directory, by name, the manifest aside.
    minor: of the format it is written in; the major is always MAJOR.
    """

    version: str
    model_type: str
    options: Options
    source: Mapping[str, FileEntry]
    files: Mapping[str, FileEntry]
    minor: int = MINOR


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    options = manifest.options
    return {
        "format": {"name": FORMAT, "major": MAJOR, "minor": MINOR},
        "created_by": f"albireo {manifest.version}",
        "model_type": manifest.model_type,
        "options": {
            "dtype": options.dtype,
            "max_model_len": options.max_model_len,
            "max_num_seqs": options.max_num_seqs,
            "max_num_batched_tokens": options.max_num_batched_tokens,
            "block_size": options.block_size,
            "tensor_parallel_size": options.tensor_parallel_size,
            "tp_invariant": options.tp_invariant,
            "profile": options.profile,
            "without": list(options.without),
            "quantization": options.quantization or _NONE,
            "quantization_head": options.quantization_head or _NONE,
            "kv_cache_dtype": options.kv_cache_dtype,
            "hf_overrides": dict(options.hf_overrides or {}),
            "mm_processor_kwargs": dict(options.mm_processor_kwargs or {}),
        },
        "source": _entries(manifest.source),
        "files": _entries(manifest.files),
    }


def manifest_from_json(data: Any, where: str) -> Manifest:
    """The manifest, every key known and every name one that a directory may have.

    Raises: Corrupt; VersionMismatch for another major, or a newer minor.
    """
    top = Record(data, where)
    minor = read_version(top.record("format"), FORMAT, MAJOR, MINOR, "directory")
    options = top.record("options")
    manifest = Manifest(
        version=top.text("created_by").removeprefix("albireo "),
        model_type=top.text("model_type"),
        options=Options(
            dtype=options.choice("dtype", COMPUTE_DTYPES),
            max_model_len=options.count("max_model_len", 1),
            max_num_seqs=options.count("max_num_seqs", 1),
            max_num_batched_tokens=options.count("max_num_batched_tokens", 1),
            block_size=options.count("block_size", 1),
            **(_since_1(options) if minor >= 1 else {}),
            **(_since_2(options) if minor >= 2 else {}),
            **(_since_25(options) if minor >= 25 else {}),
        ),
        source=_read_entries(top.record("source")),
        files=_read_entries(top.record("files")),
        minor=minor,
    )
    options.done()
    top.done()
    for name in manifest.files:
        if not is_known_file(name):
            raise Corrupt(f"{where}: files: {short(name)} is no file of an engine directory")
    weights = {weights_name(rank) for rank in range(manifest.options.tensor_parallel_size)}
    for name in sorted({*REQUIRED, *weights}):
        if name not in manifest.files:
            raise Corrupt(f"{where}: files: {name} is missing")
    for name in manifest.files:
        if is_weights(name) and name not in (*weights, VISION):
            raise Corrupt(f"{where}: files: {name} belongs to no rank, there are {len(weights)}")
    return manifest


def _since_1(options: Record) -> dict[str, Any]:
    """The options that format 2.1 added."""
    without = options.items("without")
    if not all(isinstance(name, str) for name in without):
        options.fail("without", without, "must be a list of strings")
    return {
        "tensor_parallel_size": options.count("tensor_parallel_size", 1, MAX_RANKS),
        "tp_invariant": options.flag("tp_invariant"),
        "profile": options.choice("profile", tuple(PROFILES)),
        "without": tuple(without),
    }


def _since_2(options: Record) -> dict[str, Any]:
    """The options that format 2.2 added."""
    scheme = options.choice("quantization", (_NONE, *SCHEMES))
    head = options.choice("quantization_head", (_NONE, *HEADS))
    return {
        "quantization": None if scheme == _NONE else scheme,
        "quantization_head": None if head == _NONE else head,
        "kv_cache_dtype": options.choice("kv_cache_dtype", _KV_DTYPES),
    }


def _since_25(options: Record) -> dict[str, Any]:
    """The options that format 2.25 added: the files in config/ have them already, so that nothing is run by them."""
    return {name: _object(options, name) for name in ("hf_overrides", "mm_processor_kwargs")}


def _object(options: Record, name: str) -> dict[str, Any] | None:
    found = options.raw(name)
    if not isinstance(found, dict):
        options.fail(name, found, "must be an object")
    return found or None


def _entries(entries: Mapping[str, FileEntry]) -> dict[str, Any]:
    return {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in entries.items()}


def _read_entries(record: Record) -> dict[str, FileEntry]:
    entries = {}
    for name in record.keys():  # noqa: SIM118
        entry = record.record(name)
        entries[name] = FileEntry(entry.count("size"), entry.digest("sha256"))
        entry.done()
    return entries
