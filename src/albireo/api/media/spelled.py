"""Marks of pictures that prompts of text spell with letters, some of which are tokens: "(<image>./</image>)".

Called by images.py. Letters before and behind may be one token with others.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.text.tokenizer import Tokenizer

#: Tokens that letters between the two tokens are at most.
_BETWEEN = 4


def with_marks(
    token_ids: Sequence[int], spelled: tuple[str, str, str, str, str], mark: str, tokenizer: Tokenizer
) -> list[int]:
    """A prompt with the mark where it was spelled. Args: spelled: see images.prepared.IsSpelled."""
    before, opens, between, closes, behind = spelled
    first, last, wanted = (tokenizer.token_to_id(token) for token in (opens, closes, mark))
    found: list[int] = []
    start = 0
    for at, token in enumerate(token_ids):
        if token != first or wanted is None or at <= start:
            continue
        end = next((n for n in range(at + 1, min(at + 2 + _BETWEEN, len(token_ids))) if token_ids[n] == last), None)
        if end is None or end + 1 == len(token_ids) or _text(token_ids[at + 1 : end], tokenizer).strip() != between:
            continue
        ahead, after = (_text([token_ids[n]], tokenizer) for n in (at - 1, end + 1))
        if not ahead.endswith(before) or not after.startswith(behind):
            continue
        found += token_ids[start : at - 1]
        found += tokenizer.encode(ahead.removesuffix(before), add_special_tokens=False)
        found.append(wanted)
        found += tokenizer.encode(after.removeprefix(behind), add_special_tokens=False)
        start = end + 2
    return [*found, *token_ids[start:]]


def _text(token_ids: Sequence[int], tokenizer: Tokenizer) -> str:
    return tokenizer.decode(list(token_ids), skip_special_tokens=False)
