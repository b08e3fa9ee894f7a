"""What stands before and behind a gap -> the prompt of a model that was trained to fill it (fill in the middle).

Called by api/requests/prompt_encoder.py. Does not know models: which marks there are says what a model was trained
with. Marks are tokens of their own, so their text in a prompt becomes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from albireo.text.tokenizer import Tokenizer

#: A letter that these tokenizers join to nothing that follows: behind it a text begins without a space of theirs.
_STAND_IN = "☺"


@dataclass(frozen=True, slots=True)
class InfillMarks:
    """Texts before what comes first, before what comes behind the gap, and before what fills it.

    Fields:
        end_token_ids: with one of these what fills the gap has ended.
        has_parts: each part is encoded by itself; else the prompt is as one text.
        is_suffix_first: what is behind the gap goes in front, and the prompt ends before it; there is no middle.
        file: before the name of a file, where the model was trained with several; empty: it was not.
    """

    prefix: str
    suffix: str
    middle: str
    end_token_ids: tuple[int, ...]
    has_parts: bool = False
    is_suffix_first: bool = False
    file: str = ""

    def files(self, given: Sequence[tuple[str, str]]) -> str:
        """Other files in front of a prompt, each by its name and its text. Behind them the prompt's own file begins,
        whose name is not known: as llama.cpp has it, it is called filename."""
        if not given:
            return ""
        if not self.file:
            return "".join(f"{text}\n" for _, text in given)
        return "".join(f"{self.file}{name}\n{text}" for name, text in given) + f"{self.file}filename\n"

    def joined(self, prefix: str, suffix: str) -> str:
        """The prompt as a text."""
        if self.is_suffix_first:
            return f"{self.suffix}{suffix}{self.prefix}{prefix}"
        return f"{self.prefix}{prefix}{self.suffix}{suffix}{self.middle}"

    def ids(
        self,
        tokenizer: Tokenizer,
        prefix: str,
        suffix: str,
        *,
        add_special_tokens: bool = True,
        before: str = "",
        begun: str = "",
    ) -> list[int]:
        """The prompt as the model gets it. Args: before: stands in front of all of it; begun: what fills the gap begins
        so.

        In parts what comes first is encoded as a text is, with the space that SentencePiece puts in front; what is
        behind the gap has none.
        """
        if not self.has_parts:
            text = f"{before}{self.joined(prefix, suffix)}{begun}"
            return tokenizer.encode(text, add_special_tokens=add_special_tokens)
        marks = {name: tokenizer.token_to_id(name) for name in (self.prefix, self.suffix, self.middle) if name}
        first = [marks[self.prefix], *tokenizer.encode(prefix, add_special_tokens=False)]
        behind = [marks[self.suffix], *_without_space(tokenizer, suffix)]
        parts = [*behind, *first] if self.is_suffix_first else [*first, *behind, marks[self.middle]]
        begin = tokenizer.encode("", add_special_tokens=add_special_tokens)
        front = tokenizer.encode(before, add_special_tokens=False) if before else []
        last = _without_space(tokenizer, begun) if begun else []
        return [*begin, *front, *(token_id for token_id in parts if token_id is not None), *last]


#: Marks of prefix, suffix and middle. Source: what the models' cards say, of Qwen's coders and CodeGemma; StarCoder,
#: Granite and StableCode; SantaCoder; DeepSeek's coders, whose middle is told by two marks round the suffix.
_FORMATS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
)
#: CodeLlama's, and what it writes behind what fills a gap. Source: the code that it was published with.
_CODE_LLAMA = ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>")
#: Codestral's, which other models of Mistral's have without having been trained with them. Source: mistral-common.
_CODESTRAL = ("[PREFIX]", "[SUFFIX]", "[MIDDLE]")
#: What such models write where a file ends, beside the end of text.
_ENDS = (
    "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>", "<|file_separator|>", "<fim_pad>", "<file_sep>", "<repo_name>",
    "<reponame>", "<filename>", "<fim-pad>",
)  # fmt: skip

#: Before the name of a file. Source: what was published of Qwen's coders and StarCoder 2.
_FILES = ("<|file_sep|>", "<file_sep>")


def infill_marks(added: Mapping[str, int]) -> InfillMarks | None:
    """The marks of a model, None where it has none that are known. Args: added: text -> id of tokens that are whole."""
    for marks in _FORMATS:
        if all(mark in added for mark in marks):
            ends = tuple(added[text] for text in (*marks, *_ENDS) if text in added)
            return InfillMarks(*marks, ends, file=next((text for text in _FILES if text in added), ""))
    if all(mark in added for mark in _CODE_LLAMA):
        return InfillMarks(*_CODE_LLAMA[:3], tuple(added[text] for text in _CODE_LLAMA), has_parts=True)
    if all(mark in added for mark in _CODESTRAL):
        ends = tuple(added[text] for text in _CODESTRAL)
        return InfillMarks(*_CODESTRAL[:2], "", ends, has_parts=True, is_suffix_first=True)
    return None


def _without_space(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text that goes on with another."""
    alone = tokenizer.encode(text, add_special_tokens=False)
    before = tokenizer.encode(_STAND_IN, add_special_tokens=False)
    behind = tokenizer.encode(_STAND_IN + text, add_special_tokens=False)
    return behind[len(before) :] if behind[: len(before)] == before else alone
