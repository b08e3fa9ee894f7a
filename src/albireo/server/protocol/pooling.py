"""Fields and counts that requests share whose prompts are pooled: embeddings, scores, rankings, classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from albireo.server.protocol.chat import ChatTurn
from albireo.server.protocol.fields import AllOrCount, CacheSalt, Count, Id, Priority


class PoolingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """None: not said."""

    model: str | None = None

    # names of PoolingParams
    pooling_type: Annotated[str, Meta(max_length=16)] | None = None
    use_activation: bool | None = None
    truncate_prompt_tokens: AllOrCount | None = None
    truncation_side: Literal["left", "right"] | None = None

    # how it is run
    priority: Priority | None = None
    cache_salt: CacheSalt | None = None
    request_id: Id | None = None

    # about the caller; it changes nothing here, in other servers neither
    user: Any = None

    # there is no such thing here: neutral values only
    padding: Any = None
    mm_processor_kwargs: Any = None


class InputFields(PoolingFields, kw_only=True):
    """input: a text, several, token ids, or several lists of them. messages: a chat in its place, as the model's
    template writes it. One of both is given."""

    input: str | list[str | Count | list[Count]] | None = None
    messages: Annotated[list[ChatTurn], Meta(min_length=1, max_length=4096)] | None = None
    add_special_tokens: bool | None = None

    # how a chat is written
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class EncodedFields(InputFields, kw_only=True):
    """What is told as numbers, or as base64 of their bytes: read by packing.py. prompt_name: of what the model's files
    say that such texts begin with."""

    prompt_name: Annotated[str, Meta(max_length=256)] | None = None

    encoding_format: Literal["float", "base64"] | None = None
    embed_dtype: Annotated[str, Meta(max_length=16)] | None = None
    endianness: Annotated[str, Meta(max_length=16)] | None = None


#: Field -> values beside null that ask for nothing.
POOLING_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "padding": ("do_not_pad",),
    "mm_processor_kwargs": ({},),
}


class PoolingUsage(msgspec.Struct):
    """Tokens of all that was computed."""

    prompt_tokens: int
    total_tokens: int
