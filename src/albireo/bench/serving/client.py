"""One request over HTTP: what is sent, and how the answer is read.

Used by session.py. The only file that knows the HTTP library. Does not know when requests are sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from albireo.bench.serving.outcome import Outcome, StreamError, StreamReader, error_text
from albireo.bench.serving.request import ServeRequest
from albireo.bench.serving.sse import EventParser
from albireo.errors import ConfigError, ResourceError

#: vLLM's limit for one request.
_TIMEOUT_S = 6 * 60 * 60
#: For the list of models, which no server has to think about.
_MODELS_TIMEOUT_S = 10.0
#: Most of an error's body that is read.
_MOST_ERROR_BYTES = 8192
#: Paths of the endpoints, by the backend's name.
ENDPOINTS = {"openai": "/v1/completions", "openai-chat": "/v1/chat/completions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where requests go.

    Fields:
        backend: openai or openai-chat.
        base_url: scheme, host and port; endpoint: the path of the completions.
        headers: sent with every request; they may hold secrets and are never shown.
        is_verified: whether TLS certificates are checked.
    """

    base_url: str
    backend: str = "openai"
    endpoint: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_verified: bool = True

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"--base-url {self.base_url} is no address; give one such as http://127.0.0.1:8000")

    @property
    def url(self) -> str:
        return self.base_url.rstrip("/") + "/" + (self.endpoint or ENDPOINTS[self.backend]).lstrip("/")

    @property
    def shown_url(self) -> str:
        """The address without a name and password in it."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))

    @property
    def is_chat(self) -> bool:
        return self.backend == "openai-chat"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The first model a server lists. root: the name or directory it was loaded from, where the server says."""

    model_id: str
    root: str | None


class Client:
    """Connections to one server; used as an asynchronous context manager.

    Args: model: name in the requests; body: fields added to each; clock: seconds, only ever forward.
    """

    def __init__(self, server: Server, body: Mapping[str, Any], clock: Callable[[], float]) -> None:
        self._server, self._body, self._clock = server, body, clock
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Client:
        self._session = aiohttp.ClientSession(
            # Nothing waits for a connection: how many requests run at once is decided where they are sent.
            connector=aiohttp.TCPConnector(limit=0, ssl=self._server.is_verified),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            headers=self._server.headers,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def first_model(self) -> ServedModel:
        """The first model of /v1/models. Raises: ResourceError when there is no such answer."""
        url = self._server.base_url.rstrip("/") + "/v1/models"
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=_MODELS_TIMEOUT_S)) as response:
                if response.status != 200:
                    raise ResourceError(f"{url} answers {await _refusal(response)}; name the model with --model")
                listed = (await response.json(content_type=None))["data"][0]
                return ServedModel(listed["id"], listed.get("root"))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ResourceError(f"there is no server at {self._server.base_url}: {_one_line(error)}") from None
        except (ValueError, LookupError, TypeError):
            raise ResourceError(f"{url} lists no model; name it with --model") from None

    async def send(self, model: str, request: ServeRequest, request_id: str | None = None) -> Outcome:
        """Send one request and read its stream to the end. What goes wrong is in the outcome, never raised."""
        outcome = Outcome(prompt_len=request.prompt_len, wanted_len=request.output_len)
        payload = json.dumps(self._payload(model, request)).encode()
        headers = {"Content-Type": "application/json"} | ({"x-request-id": request_id} if request_id else {})
        outcome.start_s = self._clock()
        try:
            async with self._session.post(self._server.url, data=payload, headers=headers) as response:
                if response.status != 200:
                    outcome.error = await _refusal(response)
                else:
                    await self._read(response, StreamReader(outcome))
        except StreamError as error:
            outcome.error = str(error)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            outcome.error = _one_line(error)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            outcome.error = f"the stream is no completion: {_one_line(error)}"
        return outcome

    async def _read(self, response: aiohttp.ClientResponse, reader: StreamReader) -> None:
        if response.content_type == "application/json":
            # The body asked for no stream: the whole answer is one chunk.
            whole = await response.read()
            reader.take(json.loads(whole), self._clock())
            reader.done()
            reader.close()
            return
        parser = EventParser()
        async for chunk in response.content.iter_any():
            # Before anything is decoded: what came together has one time.
            now_s = self._clock()
            for data in parser.feed(chunk):
                _event(reader, data, now_s)
        for data in parser.finish():
            _event(reader, data, self._clock())
        reader.close()

    def _payload(self, model: str, request: ServeRequest) -> dict[str, Any]:
        common = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
        if self._server.is_chat:
            content = [{"type": "text", "text": request.prompt}]
            asked = {"messages": [{"role": "user", "content": content}], "max_completion_tokens": request.output_len}
        else:
            asked = {"prompt": request.prompt, "max_tokens": request.output_len}
        return {**common, **asked, **self._body}


def _event(reader: StreamReader, data: bytes, now_s: float) -> None:
    if data.strip() == b"[DONE]":
        reader.done()
    else:
        reader.take(json.loads(data), now_s)


async def _refusal(response: aiohttp.ClientResponse) -> str:
    """Status and message of an answer that is no success."""
    body = await response.content.read(_MOST_ERROR_BYTES)
    try:
        said = error_text(json.loads(body))
    except ValueError:
        said = " ".join(body.decode("utf-8", "replace").split())[:300] or (response.reason or "")
    return f"HTTP {response.status}: {said}"


def _one_line(error: BaseException) -> str:
    said = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
