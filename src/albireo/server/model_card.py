"""What is told of a model beside its name: its kind, its size and what it can do.

Used by the routes of Ollama's protocol. Files are read when somebody first asks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from albireo.errors import EngineError
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


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Fields:
    family: model_type of config.json; empty where it is not known. digest: of config.json and the sizes of files.
    modified_at: of config.json. encoding: how weights are written.
    num_bytes: of weights. info: numbers of config.json by names of GGUF. can: what Ollama calls capabilities.
    """

    family: str = ""
    digest: str = hashlib.sha256(b"").hexdigest()
    modified_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    encoding: str = ""
    num_bytes: int = 0
    info: dict[str, Any] = field(default_factory=dict)
    can: tuple[str, ...] = ("completion",)


def card_of(serving: Serving) -> ModelCard:
    """Of one that was loaded; of another, which nobody has read yet, the default."""
    if not serving.is_loaded:
        return ModelCard()
    ready = serving.ready
    path = Path(ready.config_directory) / "config.json"
    try:
        raw, modified_s = path.read_bytes(), path.stat().st_mtime
        config = msgspec.json.decode(raw, type=dict[str, Any])
        sizes = sorted((each.name, each.stat().st_size) for each in path.parent.iterdir() if each.is_file())
    except (OSError, msgspec.DecodeError):  # it may be on another machine
        raw, config, sizes, modified_s = b"", {}, [], serving.started_s
    family = str(config.get("model_type", ""))
    inner = next((config[name] for name in _TEXT_PARTS if isinstance(config.get(name), dict)), config)
    info = {f"{family}.{theirs}": inner[ours] for ours, theirs in _KEYS.items() if isinstance(inner.get(ours), int)}
    dtype = ready.engine["dtype"]
    if dtype == "auto":
        dtype = inner.get("dtype") or inner.get("torch_dtype") or "auto"
    return ModelCard(
        family=family,
        digest=hashlib.sha256(raw + repr((serving.names[0], sizes)).encode()).hexdigest(),
        modified_at=datetime.fromtimestamp(modified_s, UTC),
        encoding=str(ready.engine["quantization"] or _SHORT.get(str(dtype), dtype)),
        num_bytes=ready.memory.get("weights", 0),
        info={
            "general.architecture": family,
            "general.basename": serving.names[0],
            f"{family}.context_length": ready.max_model_len,
            **info,
        },
        can=_capabilities(serving),
    )


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
