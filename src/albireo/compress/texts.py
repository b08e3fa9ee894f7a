"""Texts as windows of token ids: what is calibrated on, and what quality is measured on.

Called by cli/quantize.py. Does not know models beyond their vocabulary and context.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from albireo.compress.forward import Batch
from albireo.errors import ConfigError
from albireo.text.tokenizer import Tokenizer

#: Passages of children's books, in the public domain; see calibration.md beside it.
CALIBRATION = Path(__file__).with_name("calibration.txt")
#: Longest window: what a window begins with has seen nothing, so a few hundred tokens are the least.
WINDOW = 512
#: Rows of a batch: a product of so many is as fast as any.
_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Text:
    """A text to measure quality on. Fields: name: of its file; windows: token ids, of the model's tokenizer."""

    name: str
    windows: tuple[tuple[int, ...], ...]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.windows))


def read_text(path: Path, tokenizer: Tokenizer, vocab_size: int, model_len: int, num_tokens: int) -> Text:
    """The first num_tokens tokens of a file in windows.

    Raises: ConfigError when it cannot be read, has fewer than two tokens, or tokens the model does not have.
    """
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path}: cannot be read as text: {reason}") from error
    token_ids = tokenizer.encode(content)[:num_tokens]
    if len(token_ids) < 2:
        raise ConfigError(f"{path}: has {len(token_ids)} tokens; at least 2 are needed")
    if max(token_ids) >= vocab_size:
        raise ConfigError(f"{path}: gives token {max(token_ids)}, the model has {vocab_size}")
    length = min(WINDOW, model_len)
    cut = [tuple(token_ids[start : start + length]) for start in range(0, len(token_ids), length)]
    return Text(path.name, tuple(window for window in cut if len(window) > 1))


def batches(text: Text) -> list[Batch]:
    """Windows a few at a time."""
    found: list[Batch] = []
    waiting: list[tuple[int, ...]] = []
    for index, window in enumerate(text.windows):
        waiting.append(window)
        if sum(map(len, waiting)) >= _ROWS or index + 1 == len(text.windows):
            found.append(batch(*waiting))
            waiting = []
    return found


def batch(*windows: tuple[int, ...]) -> Batch:
    return Batch(np.concatenate([np.asarray(window, np.int32) for window in windows]), tuple(map(len, windows)))
