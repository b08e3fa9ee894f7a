"""/tokenize and /detokenize, as vLLM has them, and llama.cpp."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from albireo.server.protocol.fields import Count


class TokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A prompt, or the messages and tools of a chat; or llama.cpp's content, with its own words for what is done to it.

    Fields: parse_special: texts of special tokens become them; so it is in a prompt. with_pieces: what each is, too.
    """

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    content: str | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class TokenPiece(msgspec.Struct):
    """A token and its text; its bytes, where these are no text."""

    id: int
    piece: str | list[int]


class Tokenized(msgspec.Struct):
    """tokens: ids, or with_pieces what each is; token_strs: their names in the vocabulary ("Ġthe"), when asked for."""

    count: int
    max_model_len: int
    tokens: list[int | TokenPiece]
    token_strs: list[str] | UnsetType | None = UNSET


class DetokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Token ids."""

    tokens: list[Count]
    model: str | None = None


class Detokenized(msgspec.Struct):
    """Their text, as vLLM and as llama.cpp call it."""

    prompt: str
    content: str
