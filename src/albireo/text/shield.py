"""Disguises: a chat with the caller's text replaced, character for character, by characters nobody uses.

Called by chat_prompt.py. Does not know tokenizers or templates; a template only renders the disguised chat. Where a
rendering, undone, is the same as that of the undisguised chat, every character still in disguise came from the caller,
and every special token seen in it was written by the template.

A template may look into the messages (Qwen3 searches "</think>") and answer a disguise with something else. So there
are three, each thinner than the one before, and all of them cover whatever of a message could become part of a special
token:
1. all characters that special tokens are made of;
2. whole tokens, and ends, beginnings and middles of tokens at the edge of a string (a template may join strings);
3. as 2, but special tokens only: not the other tokens that the template writes.
The role of a message and strings that the template itself mentions ("function") are left alone, because they steer it.
What an assistant said is covered as in 3: the other tokens in it ("<think>") are the model's own words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from albireo.errors import TemplateError
from albireo.text.conversation import Conversation

#: The supplementary private-use planes: 131,000 characters that mean nothing to anybody. The last few are left to
#: the marks of chat_template.py and plain_encoder.py.
_FIRST, _LAST = 0xF0000, 0x10FFEF

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Disguise:
    """A disguised conversation, and the way back for text rendered from it."""

    conversation: Conversation
    _back: dict[int, str]

    def undo(self, text: str) -> str:
        return text.translate(self._back)


class Shield:
    """Makes disguises for one template and one set of tokens.

    Attributes:
        pattern: finds tokens in a text as the tokenizers library does: leftmost, then longest.
    """

    def __init__(self, tokens: Iterable[str], specials: Iterable[str], words: frozenset[str]) -> None:
        """Args:
        tokens: all texts to keep apart; specials: those that must be kept apart at any price.
        words: strings that the template mentions.
        """
        self._tokens = _TokenTexts(tokens)
        self._specials = _TokenTexts(specials)
        self._words = words
        self.pattern = self._tokens.pattern
        alphabet = sorted({character for token in self._tokens.texts for character in token if not character.isspace()})
        self._alphabet = "".join(alphabet)

    def disguises(self, chat: Conversation, text: str) -> Iterator[Disguise]:
        """Disguises of chat, the thickest first. text is its rendering: their characters must not be in it."""
        first = self._free(text)
        table = {ord(character): chr(first + index) for index, character in enumerate(self._alphabet)}
        back = {first + index: character for index, character in enumerate(self._alphabet)}
        everything = _covering(table)
        whole = self._tokens.cover(table)
        special = self._specials.cover(table)
        for cover in (everything, whole, special):
            yield Disguise(self._disguise(chat, cover, special), back)

    def _free(self, text: str) -> int:
        """First of a range of private-use characters as long as the alphabet, none of them in text."""
        size = max(len(self._alphabet), 1)
        used = {(ord(character) - _FIRST) // size for character in text if ord(character) >= _FIRST}
        for index in range((_LAST - _FIRST) // size - 1):
            if index not in used:
                return _FIRST + index * size
        raise TemplateError("the messages use up the private-use characters of Unicode; take these characters out")

    def _disguise(self, chat: Conversation, cover: _Cover, special: _Cover) -> Conversation:
        return Conversation(
            [self._message(message, cover, special) for message in chat.messages],
            self._value(chat.tools, cover),
            self._value(chat.documents, cover),
            chat.add_generation_prompt,
            chat.continue_field,
            # Their names are the template's; what they hold is the caller's.
            {name: self._value(value, cover) for name, value in chat.variables.items()},
        )

    def _message(self, message: dict[str, Any], cover: _Cover, special: _Cover) -> dict[str, Any]:
        role = message["role"]
        hidden = self._value(message, special if role == "assistant" else cover)
        return {**hidden, "role": role}

    def _value(self, value: Any, cover: _Cover) -> Any:
        if isinstance(value, str):
            return self._text(value, cover)
        if isinstance(value, Mapping):
            return {self._text(key, cover): self._value(item, cover) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item, cover) for item in value]
        return value

    def _text(self, text: str, cover: _Cover) -> str:
        return text if text in self._words and _WORD.fullmatch(text) else cover(text)


_Cover = Callable[[str], str]


def _covering(table: dict[int, str]) -> _Cover:
    return lambda text: text.translate(table)


class _TokenTexts:
    """A set of tokens' texts, and what of another text could be part of one."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = sorted(texts, key=lambda text: (-len(text), text))
        # (?!) matches nothing: a tokenizer may have no special tokens.
        self.pattern = re.compile("|".join(map(re.escape, self.texts)) or "(?!)")
        self._heads = frozenset(text[:length] for text in self.texts for length in range(1, len(text)))
        self._tails = frozenset(text[-length:] for text in self.texts for length in range(1, len(text)))
        self._longest = max(map(len, self.texts), default=0)
        # Joined by a character that no token has, so that nothing is found across two of them.
        self._joined = "\0".join(self.texts)

    def cover(self, table: dict[int, str]) -> _Cover:
        """A function that disguises what of a string is a token, or could be a part of one after joining."""

        def cover(text: str) -> str:
            if len(text) < self._longest and text in self._joined:
                return text.translate(table)
            text = self.pattern.sub(lambda match: match[0].translate(table), text)
            reach = min(self._longest - 1, len(text))
            head = next((length for length in range(reach, 0, -1) if text[:length] in self._tails), 0)
            tail = next((length for length in range(reach, 0, -1) if text[len(text) - length :] in self._heads), 0)
            text = text[:head].translate(table) + text[head:]
            return text[: len(text) - tail] + text[len(text) - tail :].translate(table)

        return cover
