"""/v1/chat/completions: request, answer, chunk."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from albireo.server.llama_timings import Timings
from albireo.server.protocol.fields import NEUTRAL, AtLeastOne, GenerationFields, Usage

#: What a document of the protocol says of shapes that are checked where they are read: templates know further fields.
_PARTS = {"type": "array", "items": {"type": "object", "properties": {"type": {"type": "string"}}}}
ChatTurn = Annotated[
    dict[str, Any],
    Meta(
        extra_json_schema={
            "properties": {
                "role": {"type": "string"},
                "content": {"anyOf": [{"type": "string"}, {"type": "null"}, _PARTS]},
                "tool_calls": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "object"}}]},
            },
            "required": ["role"],
        }
    ),
]
ToolShape = Annotated[
    dict[str, Any],
    Meta(
        extra_json_schema={
            "properties": {
                "type": {"const": "function"},
                "function": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "pattern": "^[A-Za-z0-9_.:/-]{1,64}$"},
                        "parameters": {"type": ["object", "null"]},
                    },
                    "required": ["name"],
                },
            },
            "required": ["type", "function"],
        }
    ),
]


ChatTurns = Annotated[list[ChatTurn], Meta(min_length=1, max_length=4096)]


class ChatFields(GenerationFields, kw_only=True, forbid_unknown_fields=True):
    """Fields of chats, but for what is said in them."""

    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    max_completion_tokens: AtLeastOne | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: Annotated[str, Meta(max_length=64)] | None = None
    chat_template: str | None = None
    documents: Annotated[list[dict[str, Any]], Meta(max_length=4096)] | None = None
    echo: bool | None = None

    # tool calls and reasoning: read by output_plan.py
    tools: list[ToolShape] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    include_reasoning: bool | None = None

    #: prompt_text of the answer: the chat as the model's template wrote it.
    return_prompt_text: bool | None = None

    functions: Any = None
    function_call: Any = None

    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    verbosity: Any = None
    mm_processor_kwargs: Any = None
    media_io_kwargs: Any = None
    return_assistant_tokens_mask: Any = None


class ChatRequest(ChatFields, kw_only=True, forbid_unknown_fields=True):
    """messages: as chat templates read them; their shape is checked where they are rendered."""

    messages: ChatTurns


class ChatBatchRequest(ChatFields, kw_only=True, forbid_unknown_fields=True):
    """/v1/chat/completions/batch. messages: of several conversations, each of which is answered."""

    messages: Annotated[list[ChatTurns], Meta(min_length=1, max_length=4096)]


CHAT_NEUTRAL = {
    **NEUTRAL,
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "verbosity": ("medium",),
    "mm_processor_kwargs": ({}, {"use_audio_in_video": False}),
    "media_io_kwargs": ({},),
    "return_assistant_tokens_mask": (False,),
    "add_special_tokens": (False,),
}


class TopLogprob(msgspec.Struct):
    """One of the best tokens at a place. bytes: of its text."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(msgspec.Struct):
    """The token at a place, and the best ones."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct):
    """One entry a token."""

    content: list[TokenLogprob]


class FunctionCall(msgspec.Struct):
    """arguments: JSON, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    """One call of a tool."""

    id: str
    function: FunctionCall
    type: str = "function"


class ChatMessage(msgspec.Struct):
    """What the model says. reasoning_content, reasoning: the same, by its two names."""

    content: str | None
    role: str = "assistant"
    refusal: None = None
    tool_calls: list[ToolCall] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET


class ChatChoice(msgspec.Struct):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(msgspec.Struct):
    """The whole answer."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    object: str = "chat.completion"
    usage: Usage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_text: str | UnsetType = UNSET
    prompt_logprobs: list[dict[str, Any] | None] | UnsetType = UNSET


class FunctionDelta(msgspec.Struct):
    """What is new of a call's function."""

    arguments: str
    name: str | UnsetType = UNSET


class ToolCallDelta(msgspec.Struct):
    """What is new of a call; id, type and name come once. index: among the calls of the answer."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class Delta(msgspec.Struct):
    """What is new of an answer."""

    content: str | UnsetType = UNSET
    role: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET

    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return self == Delta()


class ChunkChoice(msgspec.Struct):
    """What is new of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET


class ChatChunk(msgspec.Struct):
    """A chunk of the answer."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    object: str = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_text: str | UnsetType = UNSET
