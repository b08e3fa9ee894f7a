"""Encoding in which the text of chosen special tokens is text, and only a marked token is the token.

Called by tokenizer.py and chat_prompt.py. Does not know templates.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

from albireo.errors import InvalidParams, TemplateError
from albireo.text.panics import panics_as

if TYPE_CHECKING:
    import tokenizers


class PlainEncoder:
    """A twin of a tokenizer that shares its vocabulary and knows the chosen tokens by secret names only.

    The library finds added tokens by their text before it does anything else. So the twin carries the chosen tokens
    under names nobody can guess: their real text is ordinary text to it, and everything else (splitting, spaces,
    stripping round tokens) is done by the library as always. Building one costs under a millisecond.
    """

    def __init__(self, backend: tokenizers.Tokenizer, tokens: Iterable[str]) -> None:
        import tokenizers

        secret = secrets.token_hex(16)
        self._marks = {text: f"\U0010fff2{secret}.{index}\U0010fff3" for index, text in enumerate(tokens)}
        twin = tokenizers.Tokenizer(backend.model)
        if backend.normalizer is not None:
            twin.normalizer = backend.normalizer
        if backend.pre_tokenizer is not None:
            twin.pre_tokenizer = backend.pre_tokenizer
        added = sorted(backend.get_added_tokens_decoder().items())
        names = [self._marks.get(token.content, token.content) for _, token in added]
        # In one call: the library builds its search tree anew at each.
        twin.add_tokens(
            [
                tokenizers.AddedToken(
                    name,
                    single_word=token.single_word,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=token.normalized and token.content not in self._marks,
                    special=False,
                )
                for name, (_, token) in zip(names, added, strict=True)
            ]
        )
        self._ids = {twin.token_to_id(name): real_id for name, (real_id, _) in zip(names, added, strict=True)}
        self._chosen = frozenset(self._ids[twin.token_to_id(mark)] for mark in self._marks.values())
        self._twin = twin

    def mark(self, match: re.Match[str]) -> str:
        """The name that stands for the token whose text was found."""
        return self._marks[match[0]]

    def count(self, ids: Iterable[int]) -> int:
        """How many of ids are chosen tokens."""
        return sum(token_id in self._chosen for token_id in ids)

    def encode(self, text: str, num_marks: int = 0) -> list[int]:
        """Ids of text that holds num_marks marks.

        Raises:
            InvalidParams: the text is not Unicode.
            TemplateError: the vocabulary turns plain text into a chosen token, so the two cannot be kept apart.
        """
        try:
            with panics_as(InvalidParams, "encode a text"):
                encoded: list[int] = self._twin.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise InvalidParams("the text is not valid Unicode: it holds half of a surrogate pair") from None
        ids = [self._ids.get(token_id, token_id) for token_id in encoded]
        if self.count(ids) != num_marks:
            raise TemplateError(
                "the text holds the text of a special token, and this tokenizer cannot tell the two apart; "
                "take the special token's text out"
            )
        return ids
