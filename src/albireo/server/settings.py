"""ServerSettings: where the server listens, who may ask, and how much of anything it takes.

Filled by the command line; each field is a flag. Does not know the engine's settings (config.EngineConfig).
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from albireo.errors import ConfigError
from albireo.params import POOLING_TYPES, PoolingType
from albireo.parsers.output_parser import TOOL_CALL_PARSERS
from albireo.parsers.reasoning import REASONING_PARSERS
from albireo.server.origins import LOOPBACK, parse_origins
from albireo.server.root_path import parse_root_path

#: Names of variables that a caller may hand to a chat template.
TEMPLATE_KWARGS = ("enable_thinking", "thinking", "reasoning_effort")
#: Those of them that turn thinking on and off.
SWITCHES = TEMPLATE_KWARGS[:2]

_HOST, _PORT = "127.0.0.1", 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How to serve.

    Fields:
        host: address to listen on; others than loopback should have an API key.
        port: port to listen on; 0 takes a free one and prints it.
        uds: path of a Unix socket to listen on, in place of host and port. Who may ask is said by its permissions,
            which the umask gives it, and by those of its directory.
        root_path: path that a proxy puts before those of this server, as /llm; requests are answered with it and
            without.
        served_model_name: names the model answers to, the first is told; by default the name of its directory.
        lora_modules: adapters (LoRA) to serve from the start, each as name=path; needs enable_lora.
        api_key: keys of which a request must bring one, but for /health and /; @FILE: those in a file, one a line.
        allowed_origins: pages that a browser lets ask this server, each as http://host:port; *: any. Loopback: those of
            this machine, by any port, which are allowed unless told. An empty list, []: only the server's own.
        ssl_keyfile: key of the certificate, to serve HTTPS.
        ssl_certfile: certificate, to serve HTTPS.
        max_num_queued_requests: accepted requests without a first token; further ones are answered with 429.
        max_num_queued_tokens: their prompt tokens; further requests are answered with 429.
        request_timeout: most seconds for one request, queueing included; 0: no limit. A request may ask for less with
            the header x-request-timeout.
        shutdown_timeout: seconds that running requests are given after SIGTERM, until their answers are read.
        health_timeout: seconds without a step, with work to do, after which /health says so.
        sleep_after: seconds without a request, after which the engine gives its memory back; the next request starts
            it again, and waits for it. 0: never.
        max_awake_models: of several models, most that have their memory at one time. For one that is asked for another
            one is put to sleep, once it rests; each may have memory_utilization divided by this.
        switch_after: of several models, seconds after which one that is always busy takes nothing new while another one
            is waited for.
        sse_keep_alive_interval: seconds without an event after which a stream sends a comment, so that proxies keep the
            connection; its status is 200 then, and what goes wrong later an event. 0: none is sent.
        reader_timeout: seconds a client may read nothing of its stream before it is given up.
        max_body_bytes: largest request body.
        max_n: most continuations of one request, over all its prompts.
        max_stop: most stop strings, and most of other lists of words.
        max_audio_seconds: longest sound of one request, or of a prompt.
        max_embedding_inputs: most inputs of one request for embeddings, and most texts of one for scores.
        pooling_type: what an embedding is made of unless a request says so: last (the hidden state of the last token),
            mean (of all tokens) or cls (of the first); None: what the model's files say, else last.
        chat_template: file with a jinja2 template to use in place of the model's.
        chat_template_kwarg: variables that a caller may hand to the chat template.
        default_chat_template_kwargs: variables for the chat template, where a request does not say otherwise, in JSON:
            {"enable_thinking": false}.
        trust_request_chat_template: requests may bring a chat template; it runs within limits, and sees the chat alone.
        tool_call_parser: how the model writes tool calls: a name of docs/structured-output.md; auto: found in its chat
            template; none: they are text.
        reasoning_parser: how the model writes what it thinks: a name of the same page; auto:
            found in its chat template; none: it is text.
        otlp_endpoint: URL of an OpenTelemetry collector that gets one span a request over HTTP, without its text;
            /v1/traces is meant where it has no path. Needs the extra 'otlp'.
        distributed_executor_backend: who starts the engines of data_parallel_size: mp (processes on this machine) or
            ray (actors on the nodes of a Ray cluster, which RAY_ADDRESS names, or else the one this machine belongs
            to). Needs the extra 'ray'.
        enable_force_include_usage: streams end with their counts, as if each had asked with include_usage.
        leave_out_hosted_tools: of a response's tools leave out those that a server would run (web_search, mcp and the
            like), rather than refuse the request; the answer tells what is left.
        enable_tokenizer_info_endpoint: tell the tokenizer's special tokens and the chat template, at /tokenizer_info.
        batch_dir: directory that files and batches are kept in, for /v1/files and /v1/batches; None: there are none.
            Goes with scheduling_policy=priority, which is the default then.
        batch_max_inflight: most sequences of batches in the engine at once; None: half of its max_num_seqs.
        batch_max_file_bytes: largest file.
        batch_max_lines: most requests of one file.
        log_requests: log one line a request, without its text.
        watch_interval: seconds between pictures of the KV cache in /v1/stats.
    """

    host: str = _HOST
    port: int = _PORT
    uds: str | None = None
    root_path: str = ""
    served_model_name: tuple[str, ...] = ()
    lora_modules: tuple[str, ...] = ()
    api_key: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = (LOOPBACK,)
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    max_num_queued_requests: int = 1024
    max_num_queued_tokens: int = 1_000_000
    request_timeout: float = 0.0
    shutdown_timeout: float = 30.0
    health_timeout: float = 60.0
    sleep_after: float = 0.0
    max_awake_models: int = 1
    switch_after: float = 5.0
    sse_keep_alive_interval: float = 0.0
    reader_timeout: float = 60.0
    max_body_bytes: int = 10 << 20
    max_n: int = 128
    max_stop: int = 64
    max_audio_seconds: int = 3600
    max_embedding_inputs: int = 2048
    pooling_type: PoolingType | None = None
    chat_template: str | None = None
    chat_template_kwarg: tuple[str, ...] = TEMPLATE_KWARGS
    default_chat_template_kwargs: str | None = None
    trust_request_chat_template: bool = False
    tool_call_parser: str = "auto"
    reasoning_parser: str = "auto"
    otlp_endpoint: str | None = None
    distributed_executor_backend: Literal["mp", "ray"] = "mp"
    enable_force_include_usage: bool = False
    leave_out_hosted_tools: bool = False
    enable_tokenizer_info_endpoint: bool = False
    batch_dir: str | None = None
    batch_max_inflight: int | None = None
    batch_max_file_bytes: int = 200 << 20
    batch_max_lines: int = 50_000
    log_requests: bool = True
    watch_interval: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port={self.port} is not a port; it must be 0 to 65535")
        if self.uds is not None and (self.host, self.port) != (_HOST, _PORT):
            raise ConfigError(f"uds={self.uds} is listened on in place of host and port; leave these out")
        for name in (
            "max_num_queued_requests",
            "max_num_queued_tokens",
            "max_awake_models",
            "max_body_bytes",
            "max_n",
            "max_stop",
            "max_audio_seconds",
            "max_embedding_inputs",
            "batch_max_inflight",
            "batch_max_file_bytes",
            "batch_max_lines",
        ):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is not allowed; it must be at least 1")
        for name in ("request_timeout", "shutdown_timeout", "sleep_after", "switch_after"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)} is not allowed; it must be seconds from 0")
        for name in ("health_timeout", "reader_timeout", "watch_interval"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} is not allowed; it must be seconds above 0")
        if self.pooling_type not in (None, *POOLING_TYPES):
            raise ConfigError(f"pooling_type={self.pooling_type!r:.60} is unknown; choose {' or '.join(POOLING_TYPES)}")
        for name, known in (("tool_call_parser", TOOL_CALL_PARSERS), ("reasoning_parser", REASONING_PARSERS)):
            if getattr(self, name) not in ("auto", "none", *known):
                choices = ", ".join(["auto", "none", *known])
                raise ConfigError(f"{name}={getattr(self, name)!r:.60} is unknown; choose one of {choices}")
        if self.otlp_endpoint is not None:
            object.__setattr__(self, "otlp_endpoint", _traces_url(self.otlp_endpoint))
        object.__setattr__(self, "allowed_origins", parse_origins(self.allowed_origins))
        object.__setattr__(self, "root_path", parse_root_path(self.root_path))
        _ = self.template_defaults
        if any(not name.strip() for name in self.served_model_name):
            raise ConfigError("a served_model_name is blank; leave it out for the name of the model's directory")
        if any(not key.strip() or not key.isascii() for key in self.api_key):
            raise ConfigError("an API key is blank or not ASCII; take another")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ConfigError("HTTPS needs both ssl_certfile and ssl_keyfile; give the other, too")

    @property
    def template_defaults(self) -> dict[str, Any]:
        """default_chat_template_kwargs. Raises: ConfigError where that is no object."""
        text = self.default_chat_template_kwargs
        try:
            found = json.loads(text or "{}")
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ConfigError(
                f"default_chat_template_kwargs={text!r:.80} is no object of JSON; give one like "
                '{"enable_thinking": false}'
            )
        return found

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def _traces_url(endpoint: str) -> str:
    """The URL that spans are sent to. Raises: ConfigError."""
    try:
        url = urlsplit(endpoint)
        is_url = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigError(
            f"otlp_endpoint={endpoint!r:.80} is no URL of a collector that speaks HTTP; give one like http://127.0.0.1:4318"
        )
    return url._replace(path="/v1/traces").geturl() if url.path in ("", "/") else endpoint
