"""One HTTP request while the engine works for it: submitted together, watched for a client that leaves, accounted for.

Used by the endpoints. Does not know the shapes of answers.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.errors import EngineError
from albireo.server.accounts import Account
from albireo.server.body import WAITED, ClientGone
from albireo.server.errors import NO_RETRY, HttpError, ended, refused
from albireo.server.guard import ACCOUNT
from albireo.server.keep_alive import KEEP_ALIVE
from albireo.server.serving import Serving

T = TypeVar("T")

#: Answers of at most so many tokens are made on the event loop.
INLINE_TOKENS = 2_000
#: Key of a scope: what is added to the priority of a request that nobody waits at, which has no deadline either.
BEHIND = "albireo.behind"

#: As protocol/fields.py has them.
_ID, _PATH_ID = re.compile(r"[\x21-\x7e]{1,128}"), re.compile(r"[A-Za-z0-9._~:@-]{1,128}")


def new_id(prefix: str, given: str | None) -> str:
    """The id of an answer: the caller's, or a random one."""
    return f"{prefix}-{given or uuid.uuid4().hex}"


def answer_id(serving: Serving, scope: Scope, prefix: str, given: str | None, *, is_in_path: bool = False) -> str:
    """The id of an answer: the caller's, by a field or the header x-request-id, or a random one.

    A header's that is in use is not taken: a proxy sends one again with each try.

    Args: is_in_path: the answer can be asked for by it.
    """
    if given is None:
        header = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        pattern = _PATH_ID if is_in_path else _ID
        if pattern.fullmatch(header) and not serving.accounts.is_open(new_id(prefix, header)):
            given = header
    return new_id(prefix, given)


class Generation:
    """Use it with `async with`: at the end whatever still runs is aborted, so that its blocks are free a step later.

    Attributes:
        requests: one a prompt, in order.
    """

    def __init__(
        self,
        serving: Serving,
        scope: Scope,
        receive: Receive,
        request_id: str,
        submissions: Sequence[Submission],
        *,
        priority: int,
        received_s: float,
        wants_stream: bool,
        is_enough: Callable[[Tracked], bool] | None = None,
    ) -> None:
        """Args: is_enough: asked of each request with news, whether it is to be ended, as by its length."""
        if serving.accounts.is_open(request_id):
            raise HttpError(400, f"request_id {request_id!r} is in use; give each request its own", param="request_id")
        self.requests: list[Tracked] = []
        self.scope = scope
        self._serving, self._receive = serving, receive
        self._submissions = submissions
        self._priority = priority + scope.get(BEHIND, 0)
        self._timeout_s = None if BEHIND in scope else serving.timeout_s(scope["headers"])
        self._is_enough = is_enough
        self._inbox = Inbox(wants_ends_only=not wants_stream and is_enough is None)
        running = sum(tracked.times.last_token_s is not None for tracked in serving.client.requests.values())
        waiting = len(serving.client.requests) - running
        self.account = Account(
            request_id, scope["path"], received_s, time.monotonic(), running, waiting, serving.num_queued_tokens
        )
        self._watching: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Generation:
        serving, account = self._serving, self.account
        for submission in self._submissions:
            try:
                tracked = serving.client.submit(
                    account.request_id,
                    submission,
                    self._inbox,
                    priority=self._priority,
                    arrival_s=account.received_s,
                )
            except EngineError as error:
                raise refused(error, "prompt") from None
            serving.accept(tracked)
            self.requests.append(tracked)
        account.requests = self.requests
        serving.accounts.open(account)
        serving.keep_alive_s = self.scope.get(KEEP_ALIVE)
        self._watching = asyncio.create_task(self._watch())
        if self._timeout_s is not None:
            words = f"the request took longer than {self._timeout_s:g} s"
            left_s = max(0.0, self._timeout_s - self.scope.get(WAITED, 0.0))
            late = HttpError(504, words, code="deadline_exceeded", headers=NO_RETRY)
            self._timer = asyncio.get_running_loop().call_later(left_s, self._inbox.fail, late)
        return self

    async def __aexit__(self, *_: Any) -> None:
        for tracked in self.requests:
            if not tracked.is_over:
                self._serving.client.abort(tracked)
        if self._watching is not None:
            self._watching.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._serving.accounts.close(self.account)
        if self._serving.tracing is not None:
            self._serving.tracing.record(self.account, self.scope["headers"])
        self.scope[ACCOUNT].update(self.account.log())

    async def news(self) -> list[Tracked]:
        """Requests with something new. Raises: ClientGone; HttpError when it took too long."""
        found = await self._inbox.wait()
        if self._is_enough is not None:
            for tracked in found:
                if not tracked.is_over and self._is_enough(tracked):
                    self._serving.client.abort(tracked, "length")
        return found

    async def finished(self) -> None:
        """Wait until all are over. Raises: as news(); HttpError for one that the engine gave up."""
        while not all(tracked.is_over for tracked in self.requests):
            await self.news()
        for tracked in self.requests:
            check(tracked)

    async def made(self, make: Callable[[], T]) -> T:
        """What is made of all that the requests have said: on the event loop, or, where there is much to be read, in a
        thread."""
        num_tokens = sum(tracked.num_output_tokens for tracked in self.requests)
        return make() if num_tokens <= INLINE_TOKENS else await self._serving.in_thread(make)

    async def answer(self, response: Response, send: Send) -> None:
        """Send an answer that is whole."""
        self.account.begin_sending()
        await response(self.scope, self._receive, send)
        self.account.end_sending()

    async def _watch(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._inbox.fail(ClientGone())
                return


def check(tracked: Tracked) -> None:
    """Raises: HttpError when the engine gave it up."""
    if isinstance(tracked.error, EngineError):
        raise refused(tracked.error, "prompt")
    for continuation in tracked.continuations:
        if continuation.finish_reason == "error":
            raise ended(continuation.stop_reason)
