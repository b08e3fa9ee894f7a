"""Splits what a model thought from what it answers: <think>…</think> in front of the answer.

Used by output_parser.py. Does not know tool calls. Line ends next to the tags belong to neither side.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.parsers.events import Event, ReasoningDelta, TextDelta
from albireo.parsers.held_end import could_begin
from albireo.parsers.states import StateParser

_BLANKS = " \t\n\r"


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """What encloses reasoning.

    Fields:
        is_implied: an output begins with reasoning also without the opening tag.
        then: what comes behind the end, before anything else; answer: what an answer begins with.
        left_out: marks of the format that are none of an answer's text.
        keeps_special_tokens: the tags are special tokens, so a text without special tokens has lost them.
    """

    begin: str
    end: str
    is_implied: bool = False
    then: str = ""
    answer: str = ""
    left_out: tuple[str, ...] = ()
    keeps_special_tokens: bool = False


THINK = ReasoningTags("<think>", "</think>")
#: By the names of vLLM's parsers, where it has one.
REASONING_PARSERS = {
    "think": THINK,
    "qwen3": THINK,
    "deepseek_r1": ReasoningTags("<think>", "</think>", is_implied=True),
    "deepseek_v3": THINK,
    "ernie45": THINK,
    "glm45": THINK,
    "kimi_k2": THINK,
    "mimo": THINK,
    "minimax_m2": ReasoningTags("<think>", "</think>", is_implied=True),
    "nemotron_v3": THINK,
    "olmo3": THINK,
    "step3p5": THINK,
    "mistral": ReasoningTags("[THINK]", "[/THINK]", keeps_special_tokens=True),
    "openai_gptoss": ReasoningTags(
        "<|channel|>analysis<|message|>",
        "<|end|>",
        then="<|start|>assistant",
        answer="<|channel|>final<|message|>",
        keeps_special_tokens=True,
    ),
    "muse_glimmer": ReasoningTags(
        " to=self<|message|>",
        "<|eom|>",
        then="<|start|>assistant",
        answer=" to=user<|message|>",
        keeps_special_tokens=True,
    ),
    "gemma4": ReasoningTags("<|channel>thought", "<channel|>", keeps_special_tokens=True),
    "cohere_command3": ReasoningTags(
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        answer="<|START_RESPONSE|>",
        left_out=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        keeps_special_tokens=True,
    ),
    "seed_oss": ReasoningTags("<seed:think>", "</seed:think>", keeps_special_tokens=True),
    "apertus": ReasoningTags("<|inner_prefix|>", "<|inner_suffix|>", keeps_special_tokens=True),
    "minimax_m3": ReasoningTags("<mm:think>", "</mm:think>", left_out=("</mm:think>",), keeps_special_tokens=True),
    "kimi_k3": ReasoningTags(
        "<|open|>think<|sep|>",
        "<|close|>think<|sep|>",
        then="<|open|>response<|sep|>",
        left_out=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
        keeps_special_tokens=True,
    ),
    "step3": ReasoningTags("<think>", "</think>", is_implied=True),
    "hy_v3": ReasoningTags("<think:opensource>", "</think:opensource>", keeps_special_tokens=True),
}


def is_open(prompt: str, tags: ReasoningTags) -> bool:
    """Whether a prompt ends inside reasoning: its template wrote the opening tag already."""
    return prompt.rstrip().endswith(tags.begin)


class ReasoningParser(StateParser):
    """Text in, ReasoningDelta and TextDelta out. The events, joined, do not depend on how the text was cut.

    Invariant: num_scanned is at most a constant times the characters pushed.

    Args: starts_inside: the prompt ended with the opening tag.
    """

    def __init__(self, tags: ReasoningTags, *, starts_inside: bool = False) -> None:
        super().__init__(self._beginning)
        self._tags = tags
        self._starts_inside = starts_inside or tags.is_implied
        self._newlines: list[str] = []
        self._blanks: list[str] = []

    def finish(self) -> list[Event]:
        """No more text comes. Returns: what was held back."""
        if self._state == self._inside or (self._state == self._beginning and self._starts_inside):
            self._think(self._held)
        elif self._state == self._beginning:
            self._answer("".join([*self._blanks, self._held]))
        self._held, self._blanks = "", []
        return self._taken()

    def _beginning(self, buffer: str, pos: int) -> int:
        """Blanks, and perhaps the opening tag."""
        start = _behind(_BLANKS, buffer, pos)
        self._blanks.append(buffer[pos:start])
        begin = self._tags.begin
        if start == len(buffer):
            return start
        if buffer.startswith(begin, start):
            self._state = self._behind_begin
            return start + len(begin)
        if begin.startswith(buffer[start : start + len(begin)]):
            self._waits = True
            return start
        if self._starts_inside:
            self._state = self._inside
        else:
            self._answer("".join(self._blanks))
            self._state = self._answering
        self._blanks = []
        return start

    def _behind_begin(self, buffer: str, pos: int) -> int:
        pos = _behind("\n", buffer, pos)
        if pos < len(buffer):
            self._state = self._inside
        return pos

    def _inside(self, buffer: str, pos: int) -> int:
        end = buffer.find(self._tags.end, pos)
        if end >= 0:
            self._think(buffer[pos:end].rstrip("\n"))
            self._newlines = []
            self._state = self._behind_end
            return end + len(self._tags.end)
        end = len(buffer) - could_begin(self._tags.end, buffer, pos)
        text = buffer[pos:end]
        kept = text.rstrip("\n")
        self._think(kept)
        self._newlines.append(text[len(kept) :])
        self._waits = True
        return end

    def _behind_end(self, buffer: str, pos: int) -> int:
        pos = _behind("\n", buffer, pos)
        if pos < len(buffer):
            self._state = self._answering
        return pos

    def _answering(self, buffer: str, pos: int) -> int:
        self._answer(buffer[pos:])
        return len(buffer)

    def _think(self, text: str) -> None:
        if text:
            self._out.append(ReasoningDelta("".join([*self._newlines, text])))
            self._newlines = []

    def _answer(self, text: str) -> None:
        if text:
            self._out.append(TextDelta(text))


def _behind(chars: str, buffer: str, pos: int) -> int:
    while pos < len(buffer) and buffer[pos] in chars:
        pos += 1
    return pos
