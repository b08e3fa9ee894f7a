"""What a grammar has to know of a tokenizer. Made by api/requests/grammar_compiler.py, used by the backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Fields:
    serialized: gives the tokenizer as the text of a tokenizer.json.
    token_bytes: gives the bytes of each token's text by its id, empty ones for those that no text becomes.
    added: text -> id of tokens that are found before a text is split.
    special_ids: those of them that are no text.
    vocab_size: ids of the model; masks have as many bits, rounded up to whole words.
    eos_token_ids: ids that end an output.
    """

    serialized: Callable[[], str]
    token_bytes: Callable[[], list[bytes]]
    added: dict[str, int]
    special_ids: frozenset[int]
    vocab_size: int
    eos_token_ids: tuple[int, ...]
