"""Log-probabilities of the engine -> the shapes of the protocols.

Used by the endpoints. Texts are those of single tokens; a token that is no character alone shows as U+FFFD, and its
bytes say what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from albireo.server.protocol.chat import ChatLogprobs, TokenLogprob, TopLogprob
from albireo.server.protocol.completions import CompletionLogprobs
from albireo.step import TokenLogprobs
from albireo.text.tokenizer import Tokenizer

#: JSON has no infinity; vLLM's number in its place.
LOWEST = -9999.0


class LogprobWriter:
    """Args: as_ids: tokens are told as "token_id:17" (return_tokens_as_token_ids)."""

    def __init__(self, tokenizer: Tokenizer, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def texts(self, ids: Iterable[int]) -> list[str]:
        """How tokens are told."""
        return [f"token_id:{i}" for i in ids] if self._as_ids else self._tokenizer.token_strings(ids)

    def completion(
        self, token_ids: Sequence[int], entries: Sequence[TokenLogprobs | None], num: int, places: list[int]
    ) -> CompletionLogprobs:
        """One entry a token.

        Args:
            entries: None for a token that nothing predicted.
            places: where the tokens begin in the text.
        """
        return CompletionLogprobs(
            self.texts(token_ids),
            [None if entry is None else max(entry.logprobs[0], LOWEST) for entry in entries],
            [None if entry is None else self._top(entry, num) for entry in entries],
            places,
        )

    def _top(self, entry: TokenLogprobs, num: int) -> dict[str, float]:
        texts = self.texts(entry.token_ids)
        # The best first; of tokens of one text the more likely one is told.
        order = sorted(range(len(texts)), key=entry.ranks.__getitem__, reverse=True)
        found = {texts[i]: max(entry.logprobs[i], LOWEST) for i in order}
        return dict(reversed(found.items())) if num else {texts[0]: max(entry.logprobs[0], LOWEST)}

    def chat(self, entries: Sequence[TokenLogprobs], num: int, named: frozenset[int] | None = None) -> ChatLogprobs:
        """One entry a token, with the num best of each; -1: all. Args: named: these in their place."""
        return ChatLogprobs([self._token(entry, num, named) for entry in entries])

    def _token(self, entry: TokenLogprobs, num: int, named: frozenset[int] | None) -> TokenLogprob:
        texts = self.texts(entry.token_ids)
        asked = [i for i, token_id in enumerate(entry.token_ids) if named is None or token_id in named]
        best = sorted(asked, key=entry.ranks.__getitem__)[: len(texts) if num < 0 or named is not None else num]
        top = [
            TopLogprob(texts[i], max(entry.logprobs[i], LOWEST), self._bytes(entry.token_ids[i], texts[i]))
            for i in best
        ]
        own = self._bytes(entry.token_ids[0], texts[0])
        return TokenLogprob(texts[0], max(entry.logprobs[0], LOWEST), own, top)

    def _bytes(self, token_id: int, text: str) -> list[int]:
        pieces = self._tokenizer.pieces
        piece = None if pieces.kind == "whole" else pieces.piece(token_id)
        return list(piece.data if piece else text.encode())

    def prompt(self, entries: Sequence[TokenLogprobs]) -> list[dict[str, Any] | None]:
        """vLLM's prompt_logprobs: by token id, nothing for the first token."""
        found: list[dict[str, Any] | None] = [None]
        for entry in entries:
            texts = self._tokenizer.token_strings(entry.token_ids)
            found.append(
                {
                    str(token_id): {"logprob": max(logprob, LOWEST), "rank": rank, "decoded_token": text}
                    for token_id, logprob, rank, text in zip(
                        entry.token_ids, entry.logprobs, entry.ranks, texts, strict=True
                    )
                }
            )
        return found
