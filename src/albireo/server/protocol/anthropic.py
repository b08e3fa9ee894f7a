"""/v1/messages and /v1/messages/count_tokens: requests and answers. Events are made where they are sent."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from albireo.server.protocol.fields import AllOrCount, AtLeastOne, CacheSalt, Text

Blocks = Annotated[list[dict[str, Any]], Meta(max_length=4096)]


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """content: a text, or blocks: text, image, document (of plain text) and tool_result of the user, text,
    thinking and tool_use of the assistant, text of the system, which may say something anywhere."""

    role: str
    content: str | Blocks


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    """format: {"type": "json_schema", "schema"}. effort: given to the chat template, as reasoning_effort."""

    format: dict[str, Any] | None = None
    effort: Annotated[str, Meta(max_length=64)] | None = None


class CountTokensRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A conversation; a last message of the assistant is gone on with.

    Fields:
        system: a text, or blocks of type text.
        tools: those of one's own; tool_choice: auto, any, none, or one of them.
        thinking: turns it on or off, where the model thinks. budget_tokens is thinking_token_budget.
        output_config: the form of the answer. output_format: an older name of its format.
        chat_template_kwargs: as of chats, beyond Anthropic's; they go before what thinking says.
    """

    model: str
    messages: Annotated[list[Message], Meta(min_length=1, max_length=4096)]
    system: str | Blocks | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: OutputConfig | None = None
    output_format: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    # there is no such thing here: neutral values only
    context_management: Any = None
    mcp_servers: Any = None
    speed: Any = None
    # about the caller; changes nothing
    user_profile_id: Any = None
    workspace_id: Any = None
    # a breakpoint of the cache: prefixes are cached without
    cache_control: Any = None


class MessagesRequest(CountTokensRequest, kw_only=True, forbid_unknown_fields=True):
    """What is asked of the model. cache_salt: as of chats, beyond Anthropic's."""

    max_tokens: AtLeastOne
    stop_sequences: list[Text] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_k: AllOrCount | None = None
    top_p: float | None = None
    cache_salt: CacheSalt | None = None
    # about the caller; changes nothing
    metadata: Any = None
    service_tier: Any = None
    container: Any = None
    inference_geo: Any = None
    diagnostics: Any = None


COUNT_NEUTRAL: dict[str, tuple[Any, ...]] = {
    # what was thought is kept as it comes
    "context_management": ({}, {"edits": []}, {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}),
    "mcp_servers": ([],),
    "speed": ("standard",),
}
MESSAGES_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **COUNT_NEUTRAL,
    "service_tier": ("auto", "standard_only"),
    "container": (),
    "inference_geo": (),
    "diagnostics": ({},),
}


class TokenCount(msgspec.Struct):
    """Tokens of a conversation, as the model's template renders it."""

    input_tokens: int


class MessagesUsage(msgspec.Struct):
    """input_tokens: those that no cache held."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int = 0


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    """What the model says."""

    text: str


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking"):
    """What the model thinks before it answers. signature: there is none; thoughts come back as they are."""

    thinking: str
    signature: str = ""


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A call. input: its arguments; empty when they were cut off."""

    id: str
    name: str
    input: dict[str, Any]


ContentBlock = TextBlock | ThinkingBlock | ToolUseBlock


class MessageAnswer(msgspec.Struct, tag_field="type", tag="message"):
    """The whole answer. stop_reason: end_turn, tool_use, max_tokens or stop_sequence."""

    id: str
    model: str
    content: list[ContentBlock]
    usage: MessagesUsage
    stop_reason: str | None = None
    stop_sequence: str | None = None
    role: str = "assistant"
