"""Ollama's /api/chat, /api/generate, /api/embed and /api/embeddings: requests and answers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from albireo.server.protocol.chat import TokenLogprob, ToolShape
from albireo.server.protocol.fields import AllOrCount, AtLeastOne, Count, LlamaSampling

KeepAlive = float | Annotated[str, Meta(max_length=64)]
Images = Annotated[list[str], Meta(max_length=4096)]


class Options(LlamaSampling, kw_only=True, forbid_unknown_fields=True):
    """What `options` may hold; None: not said.

    Fields:
        num_predict: most tokens of the answer; 0 or less: as many as there is room for.
        num_ctx: the room that is asked for; a conversation that does not fit it is cut.
        num_keep: says something of others only; see ollama_options.py.
    """

    num_ctx: Count | None = None
    num_predict: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    mirostat: Any = None
    num_keep: AllOrCount | None = None

    # there is no such thing here, or it is said where the server is started: neutral values only
    typical_p: Any = None
    tfs_z: Any = None
    penalize_newline: Any = None
    num_batch: Any = None
    num_gpu: Any = None
    main_gpu: Any = None
    num_thread: Any = None
    num_gqa: Any = None
    low_vram: Any = None
    f16_kv: Any = None
    logits_all: Any = None
    vocab_only: Any = None
    embedding_only: Any = None
    use_mmap: Any = None
    use_mlock: Any = None
    numa: Any = None


class ModelFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Fields of all that a model is asked for. options: read as Options. keep_alive: see keep_alive.py."""

    model: str | None = None
    options: dict[str, Any] | None = None
    keep_alive: KeepAlive | None = None


class TextFields(ModelFields, kw_only=True):
    """Fields of chats and generations.

    Fields:
        stream: true where it is not said.
        format: "json", a JSON schema, or "" for none.
        think: turns the model's thinking on or off, or says how much of it.
        truncate: what does not fit is cut; true where it is not said.
    """

    stream: bool | None = None
    format: Any = None
    think: bool | Annotated[str, Meta(max_length=64)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    truncate: bool | None = None

    # there is no such thing here: neutral values only
    shift: Any = None


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """tool_calls: with arguments as objects. tool_name, tool_call_id: of which call it is the result."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: Images | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ChatAsk(TextFields, kw_only=True):
    """/api/chat. messages: none: the model is to be made ready."""

    messages: Annotated[list[Message], Meta(max_length=4096)] | None = None
    tools: list[ToolShape] | None = None


class GenerateAsk(TextFields, kw_only=True):
    """/api/generate.

    Fields:
        prompt: none: the model is to be made ready.
        suffix: what stands behind the gap to be filled. raw: the prompt is taken as it stands.
        context: what an earlier answer gave.
    """

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None
    images: Images | None = None
    context: list[Count] | None = None

    # there is no such thing here: neutral values only
    template: Any = None
    width: Any = None
    height: Any = None
    steps: Any = None


TEXT_NEUTRAL: dict[str, tuple[Any, ...]] = {"shift": (False,)}
GENERATE_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **TEXT_NEUTRAL,
    "template": ("",),
    "width": (0,),
    "height": (0,),
    "steps": (0,),
}


class EmbedAsk(ModelFields, kw_only=True):
    """/api/embed. input: none: the model is to be made ready. truncate: as of chats; the first tokens stay."""

    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: AtLeastOne | None = None


class EmbeddingAsk(ModelFields, kw_only=True):
    """/api/embeddings, the older one: of one prompt, and not scaled to length 1."""

    prompt: str | None = None


class CalledFunction(msgspec.Struct):
    """Of a call: which of the answer's it is, the tool and its arguments."""

    index: int
    name: str
    arguments: dict[str, Any]


class Call(msgspec.Struct):
    """One call of a tool."""

    id: str
    function: CalledFunction


class Said(msgspec.Struct):
    """A message of the model, or what is new of it."""

    content: str
    role: str = "assistant"
    thinking: str | UnsetType = UNSET
    tool_calls: list[Call] | UnsetType = UNSET


class Answered(msgspec.Struct, kw_only=True):
    """What chats and generations answer with: the whole, or a line of a stream, whose last one is done.

    Fields: done_reason: stop, length, load or unload. Durations are nanoseconds, counts tokens.
    """

    model: str
    created_at: str
    done: bool = False
    done_reason: str | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    logprobs: list[TokenLogprob] | UnsetType = UNSET


class ChatAnswered(Answered, kw_only=True):
    """Of /api/chat."""

    message: Said


class GenerateAnswered(Answered, kw_only=True):
    """Of /api/generate. context: tokens of the prompt and of the answer, at its end."""

    response: str
    thinking: str | UnsetType = UNSET
    context: list[int] | UnsetType = UNSET


class Embedded(msgspec.Struct):
    """Of /api/embed: one embedding an input, in order."""

    model: str
    embeddings: Any
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddedOne(msgspec.Struct):
    """Of /api/embeddings."""

    embedding: Any


class ShowAsk(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """/api/show. name: an older name of model."""

    model: str | None = None
    name: str | None = None

    # there is no such thing here: neutral values only
    verbose: Any = None
    system: Any = None
    template: Any = None
    options: Any = None


class PullAsk(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """/api/pull. stream: the answer is one line either way."""

    model: str | None = None
    name: str | None = None
    stream: bool | None = None

    # nothing is fetched: neutral values only
    insecure: Any = None
    username: Any = None
    password: Any = None


SHOW_NEUTRAL: dict[str, tuple[Any, ...]] = {"verbose": (False,), "system": ("",), "template": ("",), "options": ({},)}
PULL_NEUTRAL: dict[str, tuple[Any, ...]] = {"insecure": (False,), "username": ("",), "password": ("",)}
