"""Encodes prompts that repeat one another: what stands between two special tokens is encoded once and remembered.

Used by chat_prompt.py. A turn of an agent is the conversation so far and a little more; encoding all of it anew takes
longer than computing what is new. Does not know templates.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from albireo.text.tokenizer import Tokenizer

#: Characters of all segments that are remembered; the ones unused for longest go first.
MAX_KEPT_CHARS = 8 << 20
#: Characters of a text that is worth the search for special tokens.
MIN_CHARS = 1024

#: A tokenizer that encodes each of these by itself as it does behind a special token has no memory across one.
_PROBES = ("Hello", " Hello", "Hello ", "\n", "\n\n x", "  ", "9", "é", "\u0301e", "世界", "'s", "x\t", "ﬁ")


class Segments:
    """Ids of texts, as Tokenizer.encode(text, add_special_tokens=False) gives them. Safe for threads.

    Attributes: num_kept_chars: of the segments that are remembered now.
    """

    def __init__(self, tokenizer: Tokenizer, max_kept_chars: int = MAX_KEPT_CHARS) -> None:
        self._tokenizer = tokenizer
        self._max_kept_chars = max_kept_chars
        self._kept: OrderedDict[tuple[str | None, str], array[int]] = OrderedDict()
        self._lock = threading.Lock()
        self.num_kept_chars = 0

    @cached_property
    def _ids(self) -> dict[str, int]:
        return self._tokenizer.cutting_tokens()

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """Special tokens, which cut a text so that its parts may be encoded by themselves; None where they do not, and
        nothing is remembered."""
        if not self._ids or not self._has_no_memory(next(iter(self._ids))):
            return None
        names = sorted(map(re.escape, self._ids), key=len, reverse=True)
        return re.compile(f"({'|'.join(names)})")

    def encode(self, text: str, salt: str | None = None) -> list[int]:
        """Ids of a text.

        Args: salt: what is remembered is found with the same one alone, so that nobody learns from how long it takes
            what others have asked.
        Raises: InvalidParams for text that is not Unicode.
        """
        if len(text) < MIN_CHARS or self.pattern is None:
            return self._plain(text)
        found: list[int] = []
        for idx, part in enumerate(self.pattern.split(text)):
            if idx % 2:
                found.append(self._ids[part])
            elif part:
                found.extend(self._segment(salt, part))
        return found

    def _segment(self, salt: str | None, part: str) -> array[int]:
        key = salt, part
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        made = array("i", self._plain(part))
        with self._lock:
            if key not in self._kept and len(part) <= self._max_kept_chars:
                self._kept[key] = made
                self.num_kept_chars += len(part)
            while self.num_kept_chars > self._max_kept_chars:
                (_, gone), _ = self._kept.popitem(last=False)
                self.num_kept_chars -= len(gone)
        return made

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _has_no_memory(self, special: str) -> bool:
        token_id = self._ids[special]
        alone = {probe: self._plain(probe) for probe in _PROBES}
        return all(
            self._plain(f"{before}{special}{after}") == [*alone[before], token_id, *alone[after]]
            for before, after in zip(_PROBES, (*_PROBES[3:], *_PROBES[:3]), strict=True)
        )
