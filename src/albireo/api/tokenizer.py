"""The tokenizer of a model: of a directory, or out of a GGUF file; and a GGUF file's as the files of a directory.

Called by load.py, build.py and commands that look at models. What reads a GGUF file is imported when there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from albireo.models.gguf.files import is_gguf
from albireo.text.tokenizer import Tokenizer
from albireo.text.tokenizer_files import read_tokenizer_files


def open_tokenizer(place: Path) -> Tokenizer:
    """Args: place: a directory with a tokenizer, or a GGUF file. Raises: ModelError."""
    if not is_gguf(place):
        return Tokenizer.from_directory(place)
    from albireo.models.gguf.tensors import read_settings
    from albireo.text.gguf_tokenizer import gguf_tokenizer

    return gguf_tokenizer(read_settings(place), str(place))


def chat_templates(place: Path) -> Mapping[str, str]:
    """The chat templates of a model, by name, without its tokenizer where they lie in files beside it.

    Args: place: as of open_tokenizer(). Raises: ModelError.
    """
    return open_tokenizer(place).chat_templates if is_gguf(place) else read_tokenizer_files(place).chat_templates


def gguf_as_files(path: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The tokenizer's files and the configuration's, by name, of the model in a GGUF file. Raises: ModelError."""
    from albireo.models.gguf.config import config_of
    from albireo.models.gguf.recommended import generation_of
    from albireo.models.gguf.tensors import GgufFile

    with closing(GgufFile(path)) as file:
        said = {"config.json": config_of(file), "generation_config.json": generation_of(file.settings)}
    files = {name: json.dumps(data, indent=2, sort_keys=True).encode() for name, data in said.items() if data}
    return open_tokenizer(path).to_files(), files
