"""Grammars of requests, compiled beside the steps: a bomb among them, or a vocabulary to read, holds up no stream.

Used by worker.py. Whose are being compiled is noted in the ledger, so that one that kills the process is found. The
tokenizer is read when the first request asks for a form. Does not know the engine.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from albireo.api.admission import grammar_compiler
from albireo.api.load import Loaded
from albireo.artifact.reader import tokenizer_directory
from albireo.engine_process.ledger import Ledger
from albireo.engine_process.messages import Add
from albireo.errors import EngineError, InvariantError
from albireo.step import TokenConstraint
from albireo.structured.compiler import GrammarCompiler
from albireo.structured_params import StructuredOutputsParams
from albireo.text.tokenizer import Tokenizer

_LOG = logging.getLogger(__name__)
#: Grammars compiled at one time for each backend that requests name: one that takes long holds up few of the others.
NUM_THREADS = 2


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of the grammar of a request: a constraint, or why there is none. at_s: when; monotonic clock."""

    add: Add
    result: TokenConstraint | EngineError
    at_s: float


class Grammars:
    """Invariant: of each request begun, on_done is told once, on another thread, unless it was taken back before."""

    def __init__(
        self, read: Callable[[], GrammarCompiler], on_done: Callable[[Compiled], None], ledger: Ledger
    ) -> None:
        """Args: read: makes the compiler, which takes up to seconds; called at most once."""
        self._ledger = ledger
        self._lock = threading.Lock()
        self._compiling: list[int] = []
        self._read = read
        self._on_done = on_done
        self._reader = ThreadPoolExecutor(1, "albireo-vocabulary")
        self._threads: dict[str | None, ThreadPoolExecutor] = {}
        self._compiler: Future[GrammarCompiler] | None = None
        self._open: dict[int, Future[None]] = {}

    def begin(self, add: Add) -> None:
        """Compile params.structured_outputs."""
        compiler = self._begun()
        form = add.params.structured_outputs
        name = None if form is None else form.backend
        threads = self._threads.get(name)
        if threads is None:
            threads = self._threads[name] = ThreadPoolExecutor(NUM_THREADS, "albireo-compile")
        self._open[add.key] = threads.submit(lambda: self._on_done(self._compile(add, compiler)))

    def at_once(self, add: Add) -> Compiled:
        """Compile it now, with nothing beside it: whoever crashes the process is known then."""
        return self._compile(add, self._begun())

    def take_back(self, key: int) -> bool:
        """It is done, or nobody waits for it any more. Returns: whether it was open."""
        future = self._open.pop(key, None)
        if future is not None:
            future.cancel()
        return future is not None

    def _begun(self) -> Future[GrammarCompiler]:
        if self._compiler is None:
            self._compiler = self._reader.submit(self._read)
        return self._compiler

    @contextmanager
    def _noted(self, key: int) -> Iterator[None]:
        with self._lock:
            self._compiling.append(key)
            self._ledger.note_compiled(self._compiling)
        try:
            yield
        finally:
            with self._lock:
                self._compiling.remove(key)
                self._ledger.note_compiled(self._compiling)

    def _compile(self, add: Add, compiler: Future[GrammarCompiler]) -> Compiled:
        form = add.params.structured_outputs
        assert isinstance(form, StructuredOutputsParams), "only those with a form are begun"
        result: TokenConstraint | EngineError
        try:
            with self._noted(add.key):
                result = compiler.result().compile(form)
        except EngineError as error:
            result = error
        except Exception as error:
            _LOG.error("a grammar could not be compiled", exc_info=error)
            result = InvariantError(f"compiling structured_outputs.{form.kind} failed: {type(error).__name__}")
        return Compiled(add, result, time.monotonic())


def compiler_of(loaded: Loaded) -> GrammarCompiler:
    """Read the vocabulary of a loaded model. Raises: ModelError."""
    place = Path(loaded.config.tokenizer or tokenizer_directory(loaded.directory))
    backend = loaded.config.structured_outputs_backend
    return grammar_compiler(Tokenizer.from_directory(place), loaded.settings.vocab_size, loaded.eos_token_ids, backend)
