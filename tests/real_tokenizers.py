"""Tokenizers of directories, each read once for all tests that change nothing of it: a large one takes a second."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from albireo.text.tokenizer import Tokenizer


@cache
def tokenizer_in(directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(directory)
