"""A whole measurement of a server: find it ready, warm it up, send the load.

Called by cli/bench/serve. Reads the clock and hands it on. Does not know options, files or what is reported.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from albireo.bench.serving.arrivals import arrival_offsets
from albireo.bench.serving.client import Client, ServedModel, Server
from albireo.bench.serving.load import LoadRun, run_load
from albireo.bench.serving.outcome import Outcome
from albireo.bench.serving.request import ServeRequest
from albireo.errors import ConfigError, ResourceError

#: Between two tries to reach a server that is not ready.
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How requests are sent.

    Fields:
        request_rate: a second; infinity: all at once. A trace with times has its own.
        burstiness: 1: a Poisson process; below: in bursts; above: evenly.
        max_concurrency: most at once; None: no limit.
        num_warmups: times the first request is sent before, uncounted.
        ready_timeout_s: how long a server that does not answer is waited for; 0: it is not tried before.
        body: fields added to every request.
        request_id_prefix: of the x-request-id header.
    """

    request_rate: float = math.inf
    burstiness: float = 1.0
    max_concurrency: int | None = None
    num_warmups: int = 0
    ready_timeout_s: float = 0.0
    seed: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)
    request_id_prefix: str = ""

    def __post_init__(self) -> None:
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ConfigError(f"--max-concurrency {self.max_concurrency} is not allowed; it must be at least 1")
        if self.num_warmups < 0 or self.ready_timeout_s < 0:
            raise ConfigError(f"num_warmups={self.num_warmups} and ready_timeout_s={self.ready_timeout_s} must be >= 0")
        arrival_offsets(0, self.request_rate, self.burstiness, self.seed)  # refuses a rate that is none

    def offsets(self, requests: Sequence[ServeRequest]) -> list[float]:
        """When each request is sent, in seconds from the start."""
        times = [request.arrival_s for request in requests]
        known = [time for time in times if time is not None]
        if len(known) == len(times):
            return known
        return arrival_offsets(len(requests), self.request_rate, self.burstiness, self.seed)


def served_model(server: Server, timeout_s: float) -> ServedModel:
    """The first model a server lists; it is asked for timeout_s. Raises: ResourceError when it does not answer."""

    async def ask() -> ServedModel:
        deadline_s = time.perf_counter() + timeout_s
        async with Client(server, {}, time.perf_counter) as client:
            while True:
                try:
                    return await client.first_model()
                except ResourceError:
                    if time.perf_counter() + _RETRY_S > deadline_s:
                        raise
                await asyncio.sleep(_RETRY_S)

    return asyncio.run(ask())


def measure(
    server: Server,
    model: str,
    requests: Sequence[ServeRequest],
    traffic: Traffic,
    on_stage: Callable[[str, int], Callable[[], None]],
) -> LoadRun:
    """Send the requests and wait for all of them.

    Args: on_stage: told the name of a stage and its number of requests; gives what to call as each is done.
    Raises: ResourceError when the server is not ready in time, or a warm-up fails.
    """

    async def run() -> LoadRun:
        async with Client(server, traffic.body, time.perf_counter) as client:

            async def first() -> Outcome:
                return await client.send(model, requests[0])

            if traffic.ready_timeout_s > 0:
                await wait_until_ready(first, traffic.ready_timeout_s, time.perf_counter, asyncio.sleep)
            await _warm_up(first, traffic, on_stage)
            prefix = traffic.request_id_prefix

            async def send(idx: int) -> Outcome:
                return await client.send(model, requests[idx], f"{prefix}{idx}" if prefix else None)

            on_done = on_stage("Requests", len(requests))
            offsets = traffic.offsets(requests)
            return await run_load(send, offsets, traffic.max_concurrency, time.perf_counter, on_done=on_done)

    return asyncio.run(run())


async def wait_until_ready(
    send: Callable[[], Awaitable[Outcome]],
    timeout_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Send one request over and over until it succeeds. Raises: ResourceError when it has not in time."""
    deadline_s = clock() + timeout_s
    while True:
        try:
            outcome = await asyncio.wait_for(send(), deadline_s - clock())
        except TimeoutError:
            raise ResourceError(f"the server was not ready within {timeout_s:g} s: it does not answer") from None
        if outcome.succeeded:
            return
        if clock() + _RETRY_S >= deadline_s:
            raise ResourceError(f"the server was not ready within {timeout_s:g} s: {outcome.error}")
        await sleep(_RETRY_S)


async def _warm_up(
    send: Callable[[], Awaitable[Outcome]], traffic: Traffic, on_stage: Callable[[str, int], Callable[[], None]]
) -> None:
    if not traffic.num_warmups:
        return
    on_done = on_stage("Warm-up", traffic.num_warmups)
    offsets = [0.0] * traffic.num_warmups
    limit = traffic.max_concurrency
    run = await run_load(lambda _: send(), offsets, limit, time.perf_counter, on_done=on_done)
    failed = [each.error for each in run.outcomes if each.error]
    if failed:
        raise ResourceError(f"{len(failed)} of {traffic.num_warmups} warm-up requests failed: {failed[0]}")
