"""/v1/files and /v1/batches: requests and answers, and the lines of a batch's files. Shapes are OpenAI's."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

#: Paths that a line may ask for.
ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/responses",
    "/v1/score",
)
#: Of a batch: these are over.
OVER = ("failed", "completed", "expired", "cancelled")

_Key = Annotated[str, Meta(max_length=64)]
_Value = Annotated[str, Meta(max_length=512)]


# -- files -------------------------------------------------------------------------------------------------------------


class FileObject(msgspec.Struct):
    """A file. purpose: batch, or batch_output."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    object: str = "file"
    status: str = "processed"
    expires_at: int | None = None
    status_details: str | None = None


class Deleted(msgspec.Struct):
    """That a file is there no more."""

    id: str
    object: str = "file"
    deleted: bool = True


class FileList(msgspec.Struct):
    """Some of the files."""

    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


# -- batches -----------------------------------------------------------------------------------------------------------


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What makes a batch of a file."""

    input_file_id: str
    endpoint: str
    completion_window: Annotated[str, Meta(max_length=16)]
    metadata: Annotated[dict[_Key, _Value], Meta(max_length=16)] | None = None
    # there is no such thing here: neutral values only
    output_expires_after: Any = None


#: Field -> values beside null that ask for nothing.
BATCH_NEUTRAL: dict[str, tuple[Any, ...]] = {"output_expires_after": ()}


class BatchError(msgspec.Struct):
    """What is wrong with a line of the input. line: its number, from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchErrors(msgspec.Struct):
    """All that is wrong."""

    data: list[BatchError]
    object: str = "list"


class RequestCounts(msgspec.Struct):
    """Lines. failed: those whose answer is an error, or that were never run."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchUsage(msgspec.Struct):
    """Tokens of all answers so far."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: dict[str, int] = msgspec.field(default_factory=lambda: {"cached_tokens": 0})
    output_tokens_details: dict[str, int] = msgspec.field(default_factory=lambda: {"reasoning_tokens": 0})


class Batch(msgspec.Struct, kw_only=True):
    """A batch. status: validating, failed, in_progress, finalizing, completed, expired, cancelling or cancelled."""

    id: str
    object: str = "batch"
    endpoint: str
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str
    status: str = "validating"
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = msgspec.field(default_factory=RequestCounts)
    usage: BatchUsage = msgspec.field(default_factory=BatchUsage)
    model: str | None = None
    metadata: dict[str, str] | None = None


class BatchList(msgspec.Struct):
    """Some of the batches."""

    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


# -- lines -------------------------------------------------------------------------------------------------------------


class InputLine(msgspec.Struct, forbid_unknown_fields=True):
    """One request of a batch."""

    custom_id: Annotated[str, Meta(min_length=1, max_length=512)]
    method: str
    url: str
    body: msgspec.Raw


class LineAnswer(msgspec.Struct):
    """What the endpoint answered."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class LineError(msgspec.Struct):
    """Why a line was never run. code: batch_expired or batch_cancelled."""

    code: str
    message: str


class OutputLine(msgspec.Struct):
    """What became of one request: an answer, or an error."""

    id: str
    custom_id: str
    response: LineAnswer | None
    error: LineError | None
