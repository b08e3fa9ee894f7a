"""The engine process: loads a model, then obeys messages and steps while there is work; each step is one message out.

Started by client.py as `python -m albireo.engine_process`. Ends when the socket closes, so it never outlives the
server. Knows token ids only: no text, no HTTP; grammars are compiled beside the steps (grammars.py).
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import time
from array import array
from pathlib import Path

import msgspec

from albireo.api.guarded_engine import GuardedEngine
from albireo.api.load import Loaded, load
from albireo.api.sources.locate import locate_model
from albireo.artifact.reader import tokenizer_directory
from albireo.config import EngineConfig
from albireo.engine.request import SequenceUpdate
from albireo.engine_process.adapter_reader import AdapterRead, AdapterReader
from albireo.engine_process.executor import NotingExecutor
from albireo.engine_process.grammars import Compiled, Grammars, Prepared, vocabulary_of
from albireo.engine_process.inbox import Inbox
from albireo.engine_process.ledger import Ledger
from albireo.engine_process.messages import (
    OF_SETTINGS,
    Abort,
    Add,
    Careful,
    DropAdapter,
    Failed,
    Finish,
    ForgetPrefixes,
    FromWorker,
    LoadAdapter,
    Loading,
    PrefixesForgotten,
    Progress,
    Ready,
    Refused,
    Start,
    Stepped,
    ToWorker,
    Update,
    Watch,
    frame,
)
from albireo.engine_process.model_files import Marks, marks_of
from albireo.engine_process.watcher import Watcher
from albireo.errors import DeviceLost, EngineError, InvalidParams, RankLost

_LOG = logging.getLogger(__name__)


def run(socket_path: str, ledger_path: str) -> None:
    """Serve one client until it closes the socket. Logs go to stderr."""
    # They may reach both processes; the client decides what they mean, and closes the socket at the end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(socket_path)
        except OSError:  # the server was killed before it listened to anybody
            _clear(socket_path)
            return
        inbox = Inbox(connection)
        start = inbox.wait()
        if not isinstance(start, Start):
            _clear(socket_path)
            return
        try:
            loaded, files = _load(start, connection)
        except EngineError as error:
            connection.sendall(frame(Failed(type(error).__name__, str(error))))
            return
        ledger = Ledger(Path(ledger_path))
        grammars = Grammars(lambda: vocabulary_of(loaded), inbox.put, ledger)
        worker = Worker(loaded, ledger, connection, grammars, inbox)
        worker.tell(_ready(loaded, files))
        serve(worker)
    _clear(socket_path)


def _clear(socket_path: str) -> None:
    """A server that was killed leaves the directory of its socket behind."""
    shutil.rmtree(Path(socket_path).parent, ignore_errors=True)


def serve(worker: Worker) -> None:
    """Until the client is gone, or the GPU: then the process ends here and now, with a status of its own.

    The client ends whoever closes the socket, which looks like an end from outside; and what is torn down would ask the
    GPU once more. Raises: RankLost, whose processes are to be ended first.
    """
    try:
        worker.serve()
    except RankLost:
        raise
    except DeviceLost as error:
        _LOG.error("the engine process ends: %s", error)
        os._exit(1)


def _load(start: Start, connection: socket.socket) -> tuple[Loaded, Marks]:
    """Returns: the model, and its files as they lay there."""
    told = 0.0

    def tell(fraction: float) -> None:
        nonlocal told
        if fraction - told >= 0.01:
            told = fraction
            connection.sendall(frame(Loading(fraction)))

    # Text is made in the client.
    config = EngineConfig.from_kwargs(**{**start.engine, "skip_tokenizer_init": True})
    files = marks_of(locate_model(config.model))  # before any is read: one that is replaced meanwhile is another
    return load(config, share=start.share, on_progress=tell), files


def _ready(loaded: Loaded, files: Marks) -> Ready:
    return Ready(
        engine=msgspec.to_builtins(loaded.config),
        tokenizer_directory=str(loaded.config.tokenizer or tokenizer_directory(loaded.directory)),
        config_directory=str(loaded.config_directory),
        device=loaded.device,
        defaults=loaded.defaults,
        memory={
            "weights": loaded.memory.weight_bytes + loaded.memory.adapter_bytes,
            "arena": loaded.memory.arena_bytes,
            "kv": loaded.memory.kv_bytes + loaded.memory.state_bytes,
        },
        load_s=loaded.load_s,
        **{name: getattr(loaded.settings, name) for name in OF_SETTINGS},
        files=files,
    )


class Worker:
    """Invariant: every request that Add brought is refused, or its continuations end in an update, exactly once;
    but for those that Abort and Finish end, about which nothing more is said."""

    def __init__(
        self, loaded: Loaded, ledger: Ledger, connection: socket.socket, grammars: Grammars, inbox: Inbox
    ) -> None:
        self._connection = connection
        self._inbox = inbox
        self._grammars = grammars
        self._adapters = AdapterReader(loaded.adapters, inbox.put, self.tell)
        self._executor = NotingExecutor(loaded.execute, ledger)
        self._prepare = loaded.prepare
        self._guarded = GuardedEngine(loaded.settings, self._executor, method=loaded.method, files=loaded.files)
        self._engine = self._guarded.engine
        self._seq_ids: dict[int, range] = {}
        self._fresh: set[int] = set()
        self._compiled_s: dict[int, float] = {}
        self._watcher = Watcher(self._engine, self.tell)

    def tell(self, message: FromWorker) -> None:
        """Send a message; waits while the client has not read the ones before."""
        self._connection.sendall(frame(message))

    def serve(self) -> None:
        """Obey and step until the client is gone; with nothing to do, prepare for steps, a piece between two looks."""
        try:
            while True:
                messages = self._inbox.take()
                if messages is None:
                    return
                if not messages and not self._engine.has_work():
                    if self._prepare():
                        continue
                    self._watcher.show()
                    message = self._inbox.wait()
                    messages = [] if message is None else [message]
                for message in messages:
                    self._obey(message)
                if self._engine.has_work():
                    self._step()
        except BrokenPipeError:
            return

    # -- messages ------------------------------------------------------------------------------------------------------

    def _obey(self, message: ToWorker | Compiled | AdapterRead) -> None:
        if isinstance(message, Add):
            if message.params.structured_outputs is None and message.params.thinking_token_budget is None:
                self._add(message, Prepared())
            elif self._executor.is_careful:
                self._compiled(self._grammars.at_once(message))
            else:
                self._grammars.begin(message)
        elif isinstance(message, Compiled):
            if self._grammars.take_back(message.add.key):
                self._compiled(message)
        elif isinstance(message, Abort):
            self._grammars.take_back(message.key)
            self._engine.abort(str(message.key))
            self._forget(message.key)
        elif isinstance(message, Finish):
            updates = self._engine.finish(str(message.key), message.index, "stop")
            if any(update.is_request_finished for update in updates):
                self._forget(message.key)
        elif isinstance(message, LoadAdapter):
            self._adapters.load(message)
        elif isinstance(message, AdapterRead):
            self._adapters.take(message)
        elif isinstance(message, DropAdapter):
            self._adapters.drop(message)
            self._adapters.let_go(lambda: self._engine.adapters()[1])
        elif isinstance(message, Careful):
            self._executor.is_careful = message.is_on
        elif isinstance(message, ForgetPrefixes):
            self._engine.reset_prefix_cache(with_files=message.with_files)
            self.tell(PrefixesForgotten())
        elif isinstance(message, Watch):
            self._watcher.interval_s = message.interval_s

    def _compiled(self, compiled: Compiled) -> None:
        add, result = compiled.add, compiled.result
        if isinstance(result, EngineError):
            self.tell(Refused(add.key, type(result).__name__, str(result)))
        else:
            if result.constraint is not None:
                self._compiled_s[add.key] = compiled.at_s
            self._add(add, result)

    def _add(self, add: Add, prepared: Prepared) -> None:
        try:
            if not self._adapters.knows(add.adapter):
                raise InvalidParams("the adapter of the request could not be read again, or was unloaded")
            seq_ids = self._engine.add_request(
                str(add.key),
                add.prompt_token_ids,
                add.params,
                priority=add.priority,
                cache_salt=add.cache_salt,
                arrival_s=add.arrival_s,
                constraint=prepared.constraint,
                budget=prepared.budget,
                earlier=add.earlier,
                pooling=add.pooling,
                adapter=add.adapter,
                images=add.images,
            )
        except EngineError as error:  # also of a promise that does not hold: it is of this request alone
            self._compiled_s.pop(add.key, None)
            self.tell(Refused(add.key, type(error).__name__, str(error)))
            return
        self._seq_ids[add.key] = seq_ids
        self._fresh.add(add.key)
        self._executor.owners.update(dict.fromkeys(seq_ids, add.key))

    def _forget(self, key: int) -> None:
        self._fresh.discard(key)
        self._compiled_s.pop(key, None)
        for seq_id in self._seq_ids.pop(key, ()):
            del self._executor.owners[seq_id]

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        started_s = time.monotonic()
        updates = self._guarded.step()
        ended_s = time.monotonic()
        told = [self._update(update) for update in updates]
        stats = self._engine.stats()
        running, unfinished = self._engine.adapters()
        self._adapters.let_go(lambda: unfinished)
        self.tell(
            Stepped(
                told,
                started_s,
                ended_s,
                self._executor.num_prompt,
                self._executor.num_output,
                stats.num_requests_running,
                stats.num_requests_waiting,
                stats.kv_cache_usage,
                stats.num_preemptions,
                stats.prefix_cache_queries,
                stats.prefix_cache_hits,
                stats.num_requests_swapped,
                stats.cpu_cache_usage,
                stats.num_drafts,
                stats.num_draft_tokens,
                stats.num_accepted_tokens,
                stats.num_accepted_tokens_per_pos,
                sorted(running),
                sorted(unfinished - running),
            )
        )
        self._watcher.show_if_due()

    def _update(self, update: SequenceUpdate) -> Update:
        key = int(update.request_id)
        progress = None
        is_first = key in self._fresh
        if is_first or update.is_request_finished:
            self._fresh.discard(key)
            known, metrics = update.progress, update.progress.metrics
            progress = Progress(
                metrics.first_scheduled_s,
                metrics.first_token_s,
                known.num_cached_tokens,
                metrics.num_preemptions,
                metrics.num_prefill_chunks,
                metrics.preempted_s,
                self._compiled_s.get(key),
                known.prompt_logprobs if is_first else None,
            )
        if update.is_request_finished:
            self._forget(key)
        return Update(
            key,
            update.index,
            update.token_ids,
            update.logprobs,
            update.finish_reason,
            update.stop_reason,
            progress,
            None if update.embedding is None else array("f", update.embedding).tobytes(),
        )
