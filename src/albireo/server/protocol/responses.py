"""/v1/responses: request and answer. Events of the stream are made where they are sent."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from albireo.server.protocol.chat import TokenLogprob
from albireo.server.protocol.conversations import ConversationName
from albireo.server.protocol.fields import ASKED_NEUTRAL, AllOrCount, AskedFields, AtLeastOne, Id, PathId


class TextOptions(msgspec.Struct, forbid_unknown_fields=True):
    """format: of the output, as in chats' response_format."""

    format: dict[str, Any] | None = None
    verbosity: Any = None


class Reasoning(msgspec.Struct, forbid_unknown_fields=True):
    """effort: given to the chat template, where it is on the list of those that may be."""

    effort: Annotated[str, Meta(max_length=64)] | None = None
    summary: Any = None
    generate_summary: Any = None


class ResponseRequest(AskedFields, kw_only=True, forbid_unknown_fields=True):
    """What is asked of the model.

    Fields:
        input: a text, or a list of messages, calls, results of calls, and thoughts.
        tools: functions, namespaces of them, and custom tools, whose input is a text.
        store: keep the answer, so that it can be asked for; by default on.
        include: what else is told: message.output_text.logprobs, with the top_logprobs best at each place.
        truncation: auto: of a conversation that does not fit the oldest turns are left out; disabled: none are.
    """

    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=4096)]
    instructions: str | None = None
    previous_response_id: Id | None = None
    max_output_tokens: AtLeastOne | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    store: bool | None = None
    background: bool | None = None
    metadata: dict[str, str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    truncation: str | None = None
    include: list[str] | None = None
    top_logprobs: AllOrCount | None = None

    # beyond OpenAI's
    include_reasoning: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    request_id: PathId | None = None

    # at most so many calls of a server's own tools, of which there are none
    max_tool_calls: AtLeastOne | None = None

    # about the caller; they change nothing
    prompt_cache_options: Any = None
    client_metadata: Any = None

    #: One that is kept, by its id.
    conversation: PathId | ConversationName | None = None

    # there is no such thing here: neutral values only
    context_management: Any = None
    moderation: Any = None
    prompt: Any = None
    mm_processor_kwargs: Any = None
    media_io_kwargs: Any = None
    enable_response_messages: Any = None
    previous_input_messages: Any = None


RESPONSE_NEUTRAL: dict[str, tuple[Any, ...]] = ASKED_NEUTRAL | {
    "context_management": ([],),
    "moderation": (),
    "prompt": (),
    "mm_processor_kwargs": ({},),
    "media_io_kwargs": ({},),
    "enable_response_messages": (False,),
    "previous_input_messages": ([],),
}

#: What an answer may include. What was thought comes in the clear, and can be handed back so.
LOGPROBS = "message.output_text.logprobs"
INCLUDABLE = (LOGPROBS, "reasoning.encrypted_content")

#: Fields that a chat has by the same name, with the same meaning.
AS_IN_CHATS = (
    "model", "stream", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "stop", "stop_token_ids", "include_stop_str_in_output", "ignore_eos", "min_tokens",
    "logit_bias", "bad_words", "structured_outputs", "thinking_token_budget", "chat_template_kwargs", "priority",
    "cache_salt", "parallel_tool_calls", "top_logprobs",
    "skip_special_tokens", "include_reasoning",
)  # fmt: skip


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """What the model says. logprobs: one entry a token of it, where they were asked for."""

    text: str
    annotations: list[Any] = msgspec.field(default_factory=list)
    logprobs: list[TokenLogprob] = msgspec.field(default_factory=list)


class OutputMessage(msgspec.Struct, tag_field="type", tag="message"):
    """status: in_progress, completed or incomplete."""

    id: str
    status: str
    content: list[OutputText]
    role: str = "assistant"


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    """What the model thinks."""

    text: str


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning"):
    """What the model thinks before it answers."""

    id: str
    status: str
    content: list[ReasoningText]
    summary: list[Any] = msgspec.field(default_factory=list)


class FunctionCallItem(msgspec.Struct, tag_field="type", tag="function_call"):
    """A call. arguments: JSON, as the model wrote it. call_id: names it to its result. namespace: of the function."""

    id: str
    status: str
    call_id: str
    name: str
    arguments: str
    namespace: str | UnsetType = UNSET


class CustomCallItem(msgspec.Struct, tag_field="type", tag="custom_tool_call"):
    """A call of a tool whose input is a text."""

    id: str
    status: str
    call_id: str
    name: str
    input: str


OutputItem = OutputMessage | ReasoningItem | FunctionCallItem | CustomCallItem


class ResponseUsage(msgspec.Struct):
    """Tokens of an answer. input_tokens: all of them, those from the cache included."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens_details: dict[str, int]


class ResponseAnswer(msgspec.Struct, kw_only=True):
    """The answer. status: queued, in_progress, completed, incomplete, failed or cancelled."""

    id: str
    created_at: int
    model: str
    status: str
    background: bool
    store: bool
    max_output_tokens: int | None
    temperature: float
    top_p: float
    text: dict[str, Any]
    reasoning: dict[str, Any]
    metadata: dict[str, str]
    instructions: str | None
    previous_response_id: str | None
    parallel_tool_calls: bool = True
    tool_choice: str | dict[str, Any] = "auto"
    tools: list[dict[str, Any]] = msgspec.field(default_factory=list)
    output: list[OutputItem] = msgspec.field(default_factory=list)
    usage: ResponseUsage | None = None
    error: dict[str, Any] | None = None
    incomplete_details: dict[str, Any] | None = None
    completed_at: int | None = None
    object: str = "response"
    top_logprobs: int = 0
    truncation: str = "disabled"
    service_tier: str = "default"
    user: str | None = None
    conversation: ConversationName | UnsetType = UNSET


class InputTokens(msgspec.Struct):
    """Tokens of a conversation, as the model's template renders it."""

    input_tokens: int
    object: str = "response.input_tokens"


class Deleted(msgspec.Struct):
    """A response that is kept no more."""

    id: str
    object: str = "response"
    deleted: bool = True
