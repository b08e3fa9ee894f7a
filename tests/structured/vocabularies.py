"""The tokenizers of real models and of the bundled one, and constraints compiled for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

import albireo
from albireo.step import TokenConstraint, TokenMatcher
from albireo.structured.compiler import GrammarCompiler
from albireo.structured.vocabulary import Vocabulary
from albireo.structured.xgrammar.backend import is_installed
from albireo.structured_params import StructuredOutputsParams
from albireo.text.tokenizer import Tokenizer
from real_tokenizers import tokenizer_in
from tiny_models import SHARED_DATA, shared_data
from vocabulary_writers import tekken_of, write_tekken

#: Each with the reason why its tests are left out, if there is one.
BACKENDS = [
    "llguidance",
    pytest.param("xgrammar", marks=pytest.mark.skipif(not is_installed(), reason="xgrammar is not installed")),
]
BUNDLED = Path(albireo.__file__).parent / "models" / "bundled" / "story"
#: Of Qwen 2.5, whose vocabulary is that of Qwen 3 with four added tokens fewer, a thorough run makes sure: each takes
#: seconds to be read.
REAL = [
    pytest.param(name, marks=pytest.mark.thorough) if name == "qwen2.5" else name
    for name in sorted(path.parent.name for path in (SHARED_DATA / "tokenizers").glob("*/tokenizer.json"))
]


@cache
def _tekken() -> Tokenizer:
    with TemporaryDirectory() as place:
        return Tokenizer.from_directory(write_tekken(Path(place), tekken_of(BUNDLED, num_ordinary=4000)))


def tokenizer(name: str) -> Tokenizer:
    if name == "tekken":
        return _tekken()
    return tokenizer_in(BUNDLED if name == "bundled" else shared_data("tokenizers", name))


@cache
def compiler(name: str = "bundled", num_more_rows: int = 0) -> GrammarCompiler:
    """Args: num_more_rows: rows of the model beyond the tokenizer's."""
    return GrammarCompiler(vocabulary(name, num_more_rows), deadline_s=60.0)


def vocabulary(name: str = "bundled", num_more_rows: int = 0) -> Vocabulary:
    """Args: num_more_rows: rows of the model beyond the tokenizer's."""
    known = tokenizer(name)
    eos = known.eos_token_id if known.eos_token_id is not None else known.vocab_size - 1
    return Vocabulary(
        serialized=known.serialized,
        token_bytes=known.token_bytes,
        added=known.added_tokens(),
        special_ids=known.special_ids,
        vocab_size=known.vocab_size + num_more_rows,
        eos_token_ids=(eos,),
    )


def constraint(name: str = "bundled", **params: Any) -> TokenConstraint:
    return compiler(name).compile(StructuredOutputsParams(**params))


def allowed_ids(matcher: TokenMatcher, output: Sequence[int]) -> list[int]:
    bits = np.unpackbits(np.frombuffer(matcher.allowed(output), np.uint8), bitorder="little")
    found: list[int] = np.flatnonzero(bits).tolist()
    return found


def follows(name: str, text: str, **params: Any) -> bool:
    """Whether the text, as this tokenizer writes it, is an output the grammar lets begin, go on and end."""
    matcher = constraint(name, **params).matcher()
    ids = tokenizer(name).encode(text, add_special_tokens=False)
    output: list[int] = []
    for token_id in ids:
        if token_id not in allowed_ids(matcher, output):
            return False
        output.append(token_id)
    return bool(set(matcher.eos_token_ids) & set(allowed_ids(matcher, output)))
