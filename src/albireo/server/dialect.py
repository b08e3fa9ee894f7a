"""How the served model writes tool calls and reasoning: names of parsers, given or found in its chat template.

Made by serving.py when the model is known. Does not know requests.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.parsers.output_parser import detect_reasoning_parser, detect_tool_call_parser
from albireo.server.settings import ServerSettings
from albireo.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Dialect:
    """Fields:
    template: source of the chat template that renders tools; empty when there is none.
    tool_call_parser, reasoning_parser: names in parsers.output_parser; None: the model has no such format.
    is_off: tool calls are turned off.
    """

    template: str
    tool_call_parser: str | None
    reasoning_parser: str | None
    is_off: bool = False

    @property
    def enforced_parser(self) -> str | None:
        """How a call is written that the model is held to: where it has no format, as an object with a name and
        parameters. None: tool calls are turned off."""
        return None if self.is_off else self.tool_call_parser or "llama3_json"

    @classmethod
    def of(cls, settings: ServerSettings, tokenizer: Tokenizer, chat_template: str | None) -> Dialect:
        """Args: chat_template: source of the template in place of the model's, or None."""
        templates = tokenizer.chat_templates
        template = chat_template or templates.get("tool_use") or templates.get("default") or ""
        calls = _chosen(settings.tool_call_parser, detect_tool_call_parser(template))
        reasoning = _chosen(settings.reasoning_parser, detect_reasoning_parser(template))
        return cls(template, calls, reasoning, is_off=settings.tool_call_parser == "none")


def _chosen(given: str, detected: str | None) -> str | None:
    return detected if given == "auto" else None if given == "none" else given
