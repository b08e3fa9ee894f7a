"""The token ids that models are compared on: of a file, of the sample beside this module, or drawn by chance.

Called by run.py. Does not know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from albireo.errors import ConfigError
from albireo.text.tokenizer import Tokenizer
from albireo.text.vocabularies import vocabulary_files

SAMPLE = Path(__file__).with_name("sample.txt")
#: As many as the sample has, or about.
NUM_DRAWN = 640
_SEED = 12


@dataclass(frozen=True, slots=True)
class TokenText:
    """Token ids, and where they are from.

    Fields:
        name: for the report; the name of the file alone.
        is_text: otherwise drawn by chance, and perplexity means nothing.
        num_left_out: tokens of the file behind those taken.
    """

    name: str
    token_ids: Sequence[int]
    is_text: bool
    num_left_out: int


def token_text(tokenizer_directory: Path, vocab_size: int, path: Path | None, num_tokens: int) -> TokenText:
    """Tokens of a text, at most num_tokens.

    Raises: ConfigError when the file cannot be read, is too short, or the model has no tokenizer for it.
    """
    if not vocabulary_files(tokenizer_directory):
        if path is not None:
            raise ConfigError(f"{path}: the model has no tokenizer, so no text can be read; leave --text out")
        drawn = np.random.default_rng(_SEED).integers(0, vocab_size, min(NUM_DRAWN, num_tokens))
        return TokenText("tokens drawn by chance (the model has no tokenizer)", drawn.tolist(), False, 0)
    token_ids = Tokenizer.from_directory(tokenizer_directory).encode(_read(path or SAMPLE))
    if len(token_ids) < 2:
        raise ConfigError(f"{path}: has {len(token_ids)} tokens; at least 2 are needed to predict one from another")
    if max(token_ids) >= vocab_size:
        raise ConfigError(
            f"the tokenizer gives token {max(token_ids)}, the model has {vocab_size}; they do not belong together"
        )
    name = "the sample that comes with albireo" if path is None else path.name
    return TokenText(name, token_ids[:num_tokens], True, max(0, len(token_ids) - num_tokens))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path}: cannot be read as text: {reason}") from error
