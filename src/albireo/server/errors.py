"""What goes wrong -> status and body, in the shape OpenAI's clients turn into their typed exceptions.

Used by all endpoints. A body never holds paths, addresses or traces: only messages of errors raised on purpose go out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from albireo.engine_process.tracked import SHUTTING_DOWN
from albireo.errors import (
    EngineError,
    InvariantError,
    PromptTooLong,
    RequestError,
    TemplateError,
)

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {**_TYPES, 413: "request_too_large", 503: "overloaded_error", 504: "timeout_error"}
#: Routes of Anthropic's and of Ollama's protocol begin so, and are those of TEI; what goes wrong there is worded their
#: way.
_ANTHROPIC_PATH = "/v1/messages"
_OLLAMA_PATHS = "/api/"
_TEI_PATHS = ("/embed", "/embed_all", "/embed_sparse", "/predict", "/similarity", "/info", "/decode")
_TEI_TYPES = {429: "Overloaded", 503: "Unhealthy"}
#: Told to clients that try again by themselves what would fail again, or kill the engine again.
NO_RETRY = {"x-should-retry": "false"}
_FIELD = re.compile(r"^(?:the prompt |prompts?\[\d+\] )?(?:has )?([a-z_0-9]+)(?:=| holds| must| is| of| names| needs)")
_SEQUENCE = re.compile(r"^sequence \d+: ")
#: Endings of continuations that may be told as they are; see GuardedEngine, which writes the class's name in front.
_TELLABLE = ("InvalidParams: ", "InvariantError: ", "the request ended", "the engine does not", "the server is")


class HttpError(Exception):
    """An answer that is an error.

    Args: param: the field to blame; code: a word for programs; headers: further ones of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """As OpenAI words it."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def anthropic_body(self) -> dict[str, Any]:
        """As Anthropic words it."""
        kind = _ANTHROPIC_TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")
        return {"type": "error", "error": {"type": kind, "message": self.message}}

    def ollama_body(self) -> dict[str, Any]:
        """As Ollama words it."""
        return {"error": self.message}

    def tei_body(self) -> dict[str, Any]:
        """As text-embeddings-inference words it."""
        kind = _TEI_TYPES.get(self.status, "Validation" if self.status < 500 else "Backend")
        return {"error": self.message, "error_type": kind}

    def response(self, path: str = "") -> Response:
        """The whole answer, worded as the protocol of a path has it."""
        if path.startswith(_OLLAMA_PATHS):
            body = self.ollama_body()
        elif path in _TEI_PATHS:
            body = self.tei_body()
        else:
            is_anthropic = path == _ANTHROPIC_PATH or path.startswith(f"{_ANTHROPIC_PATH}/")
            body = self.anthropic_body() if is_anthropic else self.body()
        return Response(msgspec.json.encode(body), self.status, self.headers, "application/json")


def busy(status: int, message: str, code: str, retry_s: int = 1) -> HttpError:
    """An answer that asks to come again: 429 or 503."""
    return HttpError(status, message, code=code, headers={"retry-after": str(retry_s)})


def shutting_down() -> HttpError:
    """To be asked again where the next server is."""
    return busy(503, SHUTTING_DOWN, "shutting_down", 5)


def unsupported(name: str, value: Any, advice: str = "leave it out") -> HttpError:
    """A field that asks for what there is not."""
    return HttpError(400, f"{name}={value!r:.60} is not supported; {advice}", param=name, code="unsupported")


def cannot(error: EngineError) -> HttpError:
    """What the model does not do, whatever is asked for, as an answer."""
    return HttpError(400, str(error), param="model", code="unsupported")


def refused(error: EngineError, prompt_field: str) -> HttpError:
    """What refused a request, as an answer. Args: prompt_field: the field that holds the prompt."""
    message = str(error)
    if isinstance(error, PromptTooLong):
        return HttpError(400, message, param=prompt_field, code="context_length_exceeded")
    if isinstance(error, TemplateError):
        return HttpError(400, message, param=prompt_field, code="invalid_chat")
    if isinstance(error, RequestError):
        field = _FIELD.match(message)
        if field is None and message.startswith(("the prompt", "prompt")):
            return HttpError(400, message, param=prompt_field, code="invalid_value")
        return HttpError(400, message, param=field.group(1) if field else None, code="invalid_value")
    if isinstance(error, InvariantError):
        return HttpError(500, "an internal promise does not hold; the server's log has more", code="internal")
    if str(error) == SHUTTING_DOWN:
        return shutting_down()
    return busy(503, "the engine does not run; the server's log says why", "engine_down")


def ended(reason: int | str | None) -> HttpError:
    """The answer for a continuation that the engine gave up, by its stop_reason."""
    text = str(reason)
    if text == SHUTTING_DOWN:
        return shutting_down()
    if text.startswith("InvalidParams: "):
        return HttpError(400, _SEQUENCE.sub("", text.partition(": ")[2]), code="invalid_value")
    known = text if text.startswith(_TELLABLE) else f"the engine failed on it ({text.partition(':')[0]})"
    message = f"this request was given up, others were not disturbed: {known}"
    return HttpError(500, message, code="request_failed", headers=NO_RETRY)
