"""Names, versions and limits of the engine directory, and the one way its JSON is written.

Used by every file of this room. Does not know what the files mean.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

FORMAT = "albireo-engine"
#: A reader refuses another major; a minor adds keys, or gives codes another order (CODES_SINCE, NESTS_SINCE) or type.
MAJOR, MINOR = 2, 31
#: The first minor whose codes in row.fp8* and row.int4* lie as this version reads them (backends/cuda/matrix.py).
CODES_SINCE = 4
#: The first minor whose K types have each nest before its units (csrc/include/albireo/encoded.h).
NESTS_SINCE = 27
#: Rows of activations that programs had before: one scale a token. The minor since which there are none.
OLD_ROWS, ROWS_SINCE = "fp8.token", 7

MANIFEST, TARGET, GRAPH, PROGRAM, REPORT = "manifest.json", "target.json", "graph.json", "program.json", "report.md"
WEIGHTS = "weights.0.bin"
#: The tensors of what reads images, as the checkpoint has them.
VISION = "vision/model.safetensors"
#: Measured speeds of one machine; no part of what was built, so the manifest does not list it.
TUNING = "tuning.json"
TOKENIZER, CONFIG = "tokenizer", "config"
#: Written beside the build by whoever verifies it; no manifest lists them, so they are not looked at. Reports of
#: whoever made the checkpoint may lie there in the same way, under names of their own.
VERIFY_TEXT, VERIFY_JSON, VERIFY_PAGE = "verify.md", "verify.json", "verify.html"
BUILD_COMMAND = "albireo build MODEL"

#: Files that every directory has, the manifest aside.
REQUIRED = (TARGET, GRAPH, PROGRAM, WEIGHTS, REPORT, f"{CONFIG}/config.json")
#: Copied verbatim when the checkpoint has them, beside its vocabulary: patterns relative to it.
TOKENIZER_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template*",
    "additional_chat_templates/*.jinja",
)
#: How images and videos are prepared; and of sentence-transformers: what becomes of hidden states.
CONFIG_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "[0-9]_*/config.json",
    "[0-9]_*/model.safetensors",
)
#: Beside them: what a classifier has behind pooling, where it has anything.
POOLED_HEAD = "pooled_head.safetensors"

_OPTIONAL = re.compile(
    r"weights\.[0-7]\.bin|vision/model\.safetensors|"
    r"config/(config|generation_config|modules|config_sentence_transformers|(video_)?preprocessor_config|"
    r"processor_config)\.json|"
    r"config/pooled_head\.safetensors|"
    r"config/[0-9]_\w+/(config\.json|model\.safetensors)|"
    r"tokenizer/(tokenizer|tekken|vocab|tokenizer_config|special_tokens_map|(pre)?processor_config)\.json|tokenizer/merges\.txt|"
    r"tokenizer/chat_template[\w.\-]*|tokenizer/additional_chat_templates/[\w\-][\w.\-]*\.jinja"
)


def is_known_file(name: str) -> bool:
    """Whether a manifest may list a file of this name; none of them leads out of the directory."""
    return name in REQUIRED or _OPTIONAL.fullmatch(name) is not None


def weights_name(rank: int) -> str:
    """The file of a rank's packed constants."""
    return f"weights.{rank}.bin"


def is_weights(name: str) -> bool:
    """Whether a file is large, and hashed when that is asked for."""
    return name.startswith("weights.") or name == VISION


def json_bytes(value: Any) -> bytes:
    """Sorted and pretty-printed, so that two builds can be compared with diff."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def rebuild_hint(directory: object, dtype: str | None = None) -> str:
    """The command that mends a directory."""
    wanted = f" --dtype {dtype}" if dtype else ""
    return f"build it again: {BUILD_COMMAND} -o {directory}{wanted} --force"
