"""What is told of a model beside its name: its kind, its size and what it can do.

Used by the routes of Ollama's protocol. Files are read when somebody first asks.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

import msgspec

from albireo.errors import EngineError
from albireo.models.gguf.files import gguf_of, is_gguf, part_paths
from albireo.server.serving import Serving

#: Of config.json, where the model has a tower, or is spoken to in another way.
_TEXT_PARTS = ("text_config", "language_config", "llm_config", "thinker_config")
#: Key of config.json -> what GGUF files call it, behind the architecture.
_KEYS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "vocab_size": "vocab_size",
}
_SHORT = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
#: general.file_type of a GGUF file -> how llama.cpp calls files of it.
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
    39: "NVFP4", 40: "Q1_0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Fields:
    format: of its files. family: model_type of config.json, or the architecture of a GGUF file; empty where it is not
    known. digest: of config.json and the sizes of files. modified_at: of config.json, or the GGUF file.
    encoding: how weights are written.
    num_bytes: of weights. num_parameters: numbers in its files; 0: not known, as where several are packed in one.
    info: settings of a GGUF file, or numbers of config.json by their names. can: what Ollama calls capabilities.
    """

    format: str = "safetensors"
    family: str = ""
    digest: str = hashlib.sha256(b"").hexdigest()
    modified_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    encoding: str = ""
    num_bytes: int = 0
    num_parameters: int = 0
    info: dict[str, Any] = field(default_factory=dict)
    can: tuple[str, ...] = ("completion",)


def card_of(serving: Serving) -> ModelCard:
    """Of one that was loaded; of another, which nobody has read yet, the default."""
    if not serving.is_loaded:
        return ModelCard()
    ready = serving.ready
    path = gguf_of(Path(ready.config_directory))
    try:
        told = _of_gguf(path) if is_gguf(path) else _of_directory(path)
    except (OSError, msgspec.DecodeError, EngineError):  # it may be on another machine
        told = _Told()
    dtype = ready.engine["dtype"]
    written = told.encoding if dtype == "auto" else dtype
    return ModelCard(
        format="gguf" if is_gguf(path) else "safetensors",
        family=told.family,
        digest=hashlib.sha256(told.raw + repr((serving.names[0], told.sizes)).encode()).hexdigest(),
        modified_at=datetime.fromtimestamp(serving.started_s if told.modified_s is None else told.modified_s, UTC),
        encoding=str(ready.engine["quantization"] or _SHORT.get(written, written)),
        num_bytes=ready.memory.get("weights", 0),
        num_parameters=told.num_parameters,
        info={
            **told.info,
            "general.architecture": told.family,
            "general.basename": serving.names[0],
            f"{told.family}.context_length": ready.max_model_len,
            **({"general.parameter_count": told.num_parameters} if told.num_parameters else {}),
        },
        can=_capabilities(serving),
    )


@dataclass(frozen=True, slots=True)
class _Told:
    """What files say. Fields: as of ModelCard. sizes: of each file."""

    family: str = ""
    encoding: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[tuple[str, int], ...] = ()
    modified_s: float | None = None
    raw: bytes = b""
    num_parameters: int = 0


def _of_directory(directory: Path) -> _Told:
    """Raises: OSError; msgspec.DecodeError."""
    path = directory / "config.json"
    raw, modified_s = path.read_bytes(), path.stat().st_mtime
    config = msgspec.json.decode(raw, type=dict[str, Any])
    sizes = tuple(sorted((each.name, each.stat().st_size) for each in directory.iterdir() if each.is_file()))
    family = str(config.get("model_type", ""))
    inner = next((config[name] for name in _TEXT_PARTS if isinstance(config.get(name), dict)), config)
    info = {f"{family}.{theirs}": inner[ours] for ours, theirs in _KEYS.items() if isinstance(inner.get(ours), int)}
    num = 0 if _is_packed(config, inner) else _num_numbers(directory)
    return _Told(family, str(inner.get("dtype") or inner.get("torch_dtype") or ""), info, sizes, modified_s, raw, num)


def _is_packed(*configs: dict[str, Any]) -> bool:
    return any(config.get("quantization_config") or config.get("compression_config") for config in configs)


def _num_numbers(directory: Path) -> int:
    """In all tensors of a checkpoint, by the heads of its files; 0 where it has none, as a directory that was built."""
    from albireo.models.checkpoint.safetensors_files import SafetensorsFiles

    try:
        with closing(SafetensorsFiles(directory)) as files:
            return sum(prod(files.shape(name)) for name in files.names)
    except EngineError:
        return 0


def _of_gguf(path: Path) -> _Told:
    """Raises: OSError; ModelError."""
    from albireo.models.gguf.split import open_parts

    files, header = open_parts(path)
    for file in files:
        file.close()
    settings = header.settings
    info = {
        key: value
        for key, value in settings.items()
        if isinstance(value, (bool, int, float, str)) and not key.startswith("tokenizer.")
    }
    sizes = tuple((each.name, each.stat().st_size) for each in part_paths(path))
    encoding = FILE_TYPES.get(settings.get("general.file_type", -1), "")
    num = sum(prod(entry.shape) for entry in header.entries.values())
    family = str(info.get("general.architecture", ""))
    return _Told(family, encoding, info, sizes, path.stat().st_mtime, num_parameters=num)


def _capabilities(serving: Serving) -> tuple[str, ...]:
    ready, dialect = serving.ready, serving.dialect
    if not ready.generates:
        return ("embedding",)
    try:
        serving.admission.prompts.infill_marks()
        fills = True
    except EngineError:
        fills = False
    has = {
        "completion": True,
        "vision": not ready.image_problem,
        "audio": not ready.sound_problem,
        "tools": dialect.tool_call_parser is not None,
        "thinking": dialect.reasoning_parser is not None,
        "insert": fills,
    }
    return tuple(name for name, is_so in has.items() if is_so)
