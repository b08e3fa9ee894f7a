"""What all endpoints share: the engines, the model's text room, the limits, and who is being served.

Made by app.py. Does not know routes or the shapes of answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from albireo.api.media.reader import open_reader
from albireo.api.requests.admission import Admission
from albireo.api.sources.locate import locate_model
from albireo.api.sources.overrides import overridden
from albireo.api.tokenizer import open_tokenizer
from albireo.config import EngineConfig
from albireo.engine_process.messages import Ready, Stepped
from albireo.engine_process.tracked import Tracked
from albireo.errors import ConfigError, EngineError, TemplateError
from albireo.parsers.output_parser import reasoning_tags
from albireo.replicas.place import Place, local_places
from albireo.replicas.replicas import Replicas
from albireo.server.accounts import Accounts
from albireo.server.adapters import ServedAdapters
from albireo.server.body import Bodies
from albireo.server.dialect import Dialect
from albireo.server.errors import HttpError, busy, shutting_down
from albireo.server.event_stream import EventStream
from albireo.server.live import Live
from albireo.server.metrics import Metrics
from albireo.server.settings import ServerSettings
from albireo.server.tracing import Tracing
from albireo.server.unshown_tools import UnshownTools
from albireo.text.tokenizer import Tokenizer

T = TypeVar("T")

_LOG = logging.getLogger("albireo.server")

#: Prompts of at most so many characters are encoded on the event loop; longer ones in a thread.
INLINE_CHARS = 2_000
#: Added to the priority of requests of batches: whatever these say, they are behind all whose readers wait.
BEHIND_ALL = 1 << 32


class Serving:
    """Attributes:
    client: the engines, as if they were one.
    is_draining: no new requests; those that run are finished.
    adapters: those that are served beside the model.
    streams: answers that are being sent.
    unshown_tools: told of each chat that may call some.
    tracing: told of each request that is over; None: nobody collects traces.
    earlier_metrics: of one in whose place this one is, until it was loaded, and counts on.
    chat_template: source of the template in place of the model's, or None. template_defaults: variables for it.
    max_prompt_chars: a longer text has more tokens than the context, whatever it is.
    keep_alive_s: seconds without a request before the engine sleeps, as the last request said; None: it said nothing.
    num_queued, num_queued_tokens: requests without a token, and their prompts; those of batches do not count.
    """

    def __init__(
        self, settings: ServerSettings, engine: Mapping[str, Any], places: Sequence[Place] | None = None
    ) -> None:
        """Args: engine: fields of EngineConfig; places: where its engines run; None: one on this machine."""
        self.settings = settings
        self.started_s = time.time()
        self.is_draining = False
        self.num_queued = self.num_queued_tokens = 0
        self.max_prompt_chars = 0
        self.keep_alive_s: float | None = None
        self.template_defaults = settings.template_defaults
        self.chat_template = None if settings.chat_template is None else _template(settings.chat_template)
        self.unshown_tools = UnshownTools()
        self.accounts = Accounts()
        self.bodies = Bodies(settings.max_body_bytes)
        self.streams: set[EventStream] = set()
        self.live = Live(self)
        self.tracing = Tracing.to(settings.otlp_endpoint, self.names[0]) if settings.otlp_endpoint else None
        self.metrics: Metrics | None = None
        self.earlier_metrics: Metrics | None = None
        self.client = Replicas(
            engine, places or local_places(), on_step=self._stepped, on_blocks=self.live.blocks, on_over=self._over
        )
        self.adapters = ServedAdapters(self.client, self.names)
        self._ready: Ready | None = None
        self._admission: Admission | None = None
        self._tokenizer: Tokenizer | None = None
        self._dialect: Dialect | None = None
        self._encoding = ThreadPoolExecutor(1, "albireo-encode")
        # images may have to be fetched, and large ones take a while to decode
        self._opening = ThreadPoolExecutor(4, "albireo-images")

    # -- the model -----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Start the engine, and make its text room ready beside. Raises: EngineError."""
        self.client.start()
        ready = await self.client.wait_until_ready()
        try:
            await self._open_text(ready)
        except Exception as error:
            # else the engine would run, and nobody could ever ask it
            told = error if isinstance(error, EngineError) else EngineError(f"its text cannot be read: {error!r}")
            self.client.fail(told)
            raise
        self._ready = ready
        self.metrics = self.earlier_metrics or Metrics(self.names[0], ready, len(self.client.engines))

    async def _open_text(self, ready: Ready) -> None:
        """What is to be known of a model's text. Raises: EngineError."""
        settings = self.settings
        config = EngineConfig.from_kwargs(**{**ready.engine, "skip_tokenizer_init": False})
        tokenizer = await self.in_thread(lambda: open_tokenizer(Path(ready.tokenizer_directory)))
        most_chars = await self.in_thread(lambda: tokenizer.most_chars(ready.max_model_len))
        await self.adapters.load_all(settings.lora_modules)
        self.client.use(tokenizer)
        self.max_prompt_chars = settings.max_body_bytes if most_chars is None else most_chars
        self._tokenizer = tokenizer
        self._dialect = Dialect.of(self.settings, tokenizer, self.chat_template)
        parser = self._dialect.reasoning_parser
        reasoning = None if parser is None else reasoning_tags(parser)
        most_s = self.settings.max_audio_seconds
        directory = await self.in_thread(lambda: self._config_directory(ready, config))
        media = await self.in_thread(lambda: open_reader(config, directory, ready.settings(), tokenizer, most_s))
        self._admission = Admission(
            config, ready.defaults, ready.settings(), tokenizer, reasoning=reasoning, media=media
        )

    def _config_directory(self, ready: Ready, config: EngineConfig) -> Path:
        """Where config.json is on this machine. An engine on another node has its files as overridden there; the model
        is at the same path."""
        if self.settings.distributed_executor_backend == "ray" and (config.hf_overrides or config.mm_processor_kwargs):
            return overridden(locate_model(config.model), config)
        return Path(ready.config_directory)

    @property
    def names(self) -> tuple[str, ...]:
        """What the model answers to."""
        return self.settings.served_model_name or ("story",)

    @property
    def told_metrics(self) -> Metrics | None:
        """Its own, or those that it will go on with."""
        return self.metrics or self.earlier_metrics

    @property
    def is_loaded(self) -> bool:
        """Whether it was once, so that all is known of it, and its text room is there."""
        return self.metrics is not None

    @property
    def ready(self) -> Ready:
        """What is known of the model. Raises: HttpError 503 while it loads."""
        if self._ready is None or self._tokenizer is None:
            raise busy(503, "the model is loading; see /health", "loading", 2)
        return self._ready

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises: HttpError 503 while it loads."""
        if self._tokenizer is None:
            raise busy(503, "the model is loading; see /health", "loading", 2)
        return self._tokenizer

    @property
    def admission(self) -> Admission:
        """Raises: HttpError 503 while it loads."""
        if self._admission is None:
            raise busy(503, "the model is loading; see /health", "loading", 2)
        return self._admission

    @property
    def dialect(self) -> Dialect:
        """Raises: HttpError 503 while it loads."""
        if self._dialect is None:
            raise busy(503, "the model is loading; see /health", "loading", 2)
        return self._dialect

    async def in_thread(self, work: Callable[[], T], with_images: bool = False) -> T:
        """Do what takes long without holding up the streams: one thing at a time, unless it may wait for images."""
        pool = self._opening if with_images else self._encoding
        try:
            waited_for = asyncio.get_running_loop().run_in_executor(pool, work)
        except RuntimeError:  # the pool is closed
            raise shutting_down() from None
        return await waited_for

    # -- who may come in -----------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raises: HttpError 503 when nothing new is taken."""
        if self.is_draining:
            raise shutting_down()
        if self.client.failure is not None:
            raise busy(503, "the engine does not run", "engine_down", 5)
        _ = self.ready

    def check_trusted(self, what: str) -> None:
        """Args: what: may only be done by who may ask for anything. Raises: HttpError 403 where that may be anybody."""
        if not self.settings.is_loopback and not self.settings.api_key:
            raise HttpError(
                403, f"{what} on a server for this machine alone, or with --api-key; start it so", code="forbidden"
            )

    def check_model(self, name: str | None) -> None:
        """An empty name is none. Raises: HttpError 404 for the name of another model, which is no adapter either."""
        if name and name not in self.names and self.adapters.find(name) is None:
            known = [*self.names, *(served.name for served in self.adapters.all())]
            raise HttpError(
                404,
                f"the model {name!r:.100} does not exist; there is {', '.join(known)}",
                param="model",
                code="model_not_found",
            )

    def check_queue(self, num_requests: int, num_tokens: int) -> None:
        """Raises: HttpError 429 when too many wait already."""
        settings = self.settings
        reason = None
        if self.num_queued + num_requests > max(settings.max_num_queued_requests, num_requests):
            reason = f"{self.num_queued} requests wait, at most {settings.max_num_queued_requests} may"
        elif self.num_queued and self.num_queued_tokens + num_tokens > settings.max_num_queued_tokens:
            reason = f"{self.num_queued_tokens} tokens wait, at most {settings.max_num_queued_tokens} may"
        if reason is not None:
            assert self.metrics is not None, "loaded"
            self.metrics.rejected("queue_full")
            raise busy(429, f"the server is busy: {reason}; come again later", "queue_full")

    def accept(self, tracked: Tracked) -> None:
        """It waits now."""
        if _is_waited_for(tracked):
            self.num_queued += 1
            self.num_queued_tokens += len(tracked.submission.prompt_token_ids)

    def timeout_s(self, headers: list[tuple[bytes, bytes]]) -> float | None:
        """Seconds that a request may take; None: any. Raises: HttpError 400."""
        limit = self.settings.request_timeout or math.inf
        for name, value in headers:
            if name == b"x-request-timeout":
                try:
                    asked = float(value)
                except ValueError:
                    asked = math.nan
                if not asked > 0:
                    raise HttpError(400, "the header x-request-timeout must be seconds above 0", param=name.decode())
                limit = min(limit, asked)
        return None if limit == math.inf else limit

    # -- what the engine does ------------------------------------------------------------------------------------------

    def _stepped(self, index: int, step: Stepped, requests: Mapping[int, Tracked]) -> None:
        for update in step.updates:
            tracked = requests.get(update.key)
            if tracked is not None and tracked.times.last_token_s is None:
                self._left_queue(tracked)
        if self.metrics is not None:
            self.metrics.stepped(index, step, requests)
            self.metrics.adapters(
                self.adapters.names(step.running_adapters), self.adapters.names(step.waiting_adapters)
            )
        self.live.stepped(index, step, requests)

    def _over(self, tracked: Tracked) -> None:
        if tracked.times.last_token_s is None:
            self._left_queue(tracked)
        if self.metrics is not None:
            self.metrics.over(tracked)
        self.live.over(tracked)

    def _left_queue(self, tracked: Tracked) -> None:
        if not tracked.has_left_queue:
            tracked.has_left_queue = True
            if _is_waited_for(tracked):
                self.num_queued -= 1
                self.num_queued_tokens -= len(tracked.submission.prompt_token_ids)

    # -- the end -------------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Take nothing new, and let what runs finish within the time there is for it."""
        self.is_draining = True
        deadline = time.monotonic() + self.settings.shutdown_timeout
        while self.client.requests and time.monotonic() < deadline and self.client.failure is None:
            await asyncio.sleep(0.02)

    @property
    def servings(self) -> list[Serving]:
        """Itself, as several.py has several."""
        return [self]

    @property
    def sleep_after_s(self) -> float:
        """Seconds without a request before the engine sleeps; math.inf: it does not."""
        return self.settings.sleep_after or math.inf if self.keep_alive_s is None else self.keep_alive_s

    async def rest(self) -> None:
        """Send the engine to sleep, if nobody wanted anything of it for long."""
        after_s = self.sleep_after_s
        if 0 < self.client.rest_s() >= after_s and not self.client.is_asleep:
            await self.client.sleep()
            _LOG.info('{"time":%.3f,"event":"asleep","rest_s":%g}', time.time(), after_s)

    async def close(self) -> None:
        """End everything."""
        await self.client.close()
        if self.tracing is not None:
            await self.tracing.close()
        self.live.close()
        self._encoding.shutdown(wait=False)
        self._opening.shutdown(wait=False)

    def failure(self) -> EngineError | None:
        """Why the engine will not run any more."""
        return self.client.failure

    async def wait_until_failed(self) -> EngineError:
        """Returns: why it will not run any more; never, while it may."""
        return await self.client.wait_until_failed()


def _is_waited_for(tracked: Tracked) -> bool:
    """Whether it is no batch's: no other request has a priority of that size."""
    return tracked.priority < BEHIND_ALL // 2


def _template(path: str) -> str:
    """The source of a chat template. Raises: ConfigError, also where it is none."""
    from albireo.text.chat_template import ChatTemplate

    try:
        source = Path(path).read_text("utf-8")
        ChatTemplate(source)
    except OSError as error:
        raise ConfigError(f"chat_template={path}: the file cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"chat_template={path}: the file is not UTF-8") from None
    except TemplateError as error:
        raise ConfigError(f"chat_template={path}: {error}") from None
    if "{" not in source:
        raise ConfigError(f"chat_template={path} is no jinja2 template: nothing in it stands for a message")
    return source
