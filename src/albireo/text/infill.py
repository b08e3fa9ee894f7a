"""What stands before and behind a gap -> the prompt of a model that was trained to fill it (fill in the middle).

Called by api/admission.py. Does not know models: which marks there are says what a model was trained with. Marks are
tokens of their own, so their text in a prompt becomes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InfillMarks:
    """Texts before what comes first, before what comes behind the gap, and before what fills it.

    end_token_ids: with one of these what fills the gap has ended.
    """

    prefix: str
    suffix: str
    middle: str
    end_token_ids: tuple[int, ...]

    def joined(self, prefix: str, suffix: str) -> str:
        """The prompt. Source: the order that all of _FORMATS were trained with, prefix, suffix, middle."""
        return f"{self.prefix}{prefix}{self.suffix}{suffix}{self.middle}"


#: Marks of prefix, suffix and middle. Source: what the models' cards say, of Qwen's coders and CodeGemma; StarCoder,
#: Granite and StableCode; SantaCoder; DeepSeek's coders, whose middle is told by two marks round the suffix.
_FORMATS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
)
#: What such models write where a file ends, beside the end of text.
_ENDS = (
    "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>", "<|file_separator|>", "<fim_pad>", "<file_sep>", "<repo_name>",
    "<reponame>", "<filename>", "<fim-pad>",
)  # fmt: skip


def infill_marks(added: Mapping[str, int]) -> InfillMarks | None:
    """The marks of a model, None where it has none that are known. Args: added: text -> id of tokens that are whole."""
    for marks in _FORMATS:
        if all(mark in added for mark in marks):
            return InfillMarks(*marks, tuple(added[text] for text in (*marks, *_ENDS) if text in added))
    return None
