"""Grammars of requests, compiled beside the steps: a bomb among them, or a vocabulary to read, holds up no stream.

Used by worker.py. Whose are being compiled is noted in the ledger, so that one that kills the process is found. The
tokenizer is read when the first request asks for a form, or for a budget of its thinking. Does not know the engine.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from albireo.api.load import Loaded
from albireo.api.requests.grammar_compiler import grammar_compiler
from albireo.api.tokenizer import open_tokenizer
from albireo.artifact.reader import tokenizer_directory
from albireo.engine_process.ledger import Ledger
from albireo.engine_process.messages import Add
from albireo.errors import EngineError, InvariantError
from albireo.params import SamplingParams
from albireo.step import ThinkingBudget, TokenConstraint
from albireo.structured.compiler import GrammarCompiler
from albireo.text.thinking_budget import ThinkingMeter
from albireo.text.tokenizer import Tokenizer

_LOG = logging.getLogger(__name__)
#: Grammars compiled at one time for each backend that requests name: one that takes long holds up few of the others.
NUM_THREADS = 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a request needs of the vocabulary; see Engine.add_request()."""

    constraint: TokenConstraint | None = None
    budget: Callable[[], ThinkingBudget] | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of the grammar of a request, or why there is none. at_s: when; monotonic clock."""

    add: Add
    result: Prepared | EngineError
    at_s: float


class Grammars:
    """Invariant: of each request begun, on_done is told once, on another thread, unless it was taken back before."""

    def __init__(
        self, read: Callable[[], tuple[Tokenizer, GrammarCompiler]], on_done: Callable[[Compiled], None], ledger: Ledger
    ) -> None:
        """Args: read: makes both, which takes up to seconds; called at most once."""
        self._ledger = ledger
        self._lock = threading.Lock()
        self._compiling: list[int] = []
        self._read = read
        self._on_done = on_done
        self._reader = ThreadPoolExecutor(1, "albireo-vocabulary")
        self._threads: dict[str | None, ThreadPoolExecutor] = {}
        self._vocabulary: Future[tuple[Tokenizer, GrammarCompiler]] | None = None
        self._open: dict[int, Future[None]] = {}

    def begin(self, add: Add) -> None:
        """Compile params.structured_outputs, and make what watches params.thinking_token_budget."""
        vocabulary = self._begun()
        form = add.params.structured_outputs
        name = None if form is None else form.backend
        threads = self._threads.get(name)
        if threads is None:
            threads = self._threads[name] = ThreadPoolExecutor(NUM_THREADS, "albireo-compile")
        self._open[add.key] = threads.submit(lambda: self._on_done(self._compile(add, vocabulary)))

    def at_once(self, add: Add) -> Compiled:
        """Compile it now, with nothing beside it: whoever crashes the process is known then."""
        return self._compile(add, self._begun())

    def take_back(self, key: int) -> bool:
        """It is done, or nobody waits for it any more. Returns: whether it was open."""
        future = self._open.pop(key, None)
        if future is not None:
            future.cancel()
        return future is not None

    def _begun(self) -> Future[tuple[Tokenizer, GrammarCompiler]]:
        if self._vocabulary is None:
            self._vocabulary = self._reader.submit(self._read)
        return self._vocabulary

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

    def _compile(self, add: Add, vocabulary: Future[tuple[Tokenizer, GrammarCompiler]]) -> Compiled:
        result: Prepared | EngineError
        try:
            with self._noted(add.key):
                result = _prepared(add.params, *vocabulary.result())
        except EngineError as error:
            result = error
        except BaseException as error:  # a library's panic is no Exception, and the request waits for an answer
            _LOG.error("a grammar could not be compiled", exc_info=error)
            form = add.params.structured_outputs
            what = "thinking_token_budget" if form is None else f"structured_outputs.{form.kind}"
            result = InvariantError(f"compiling {what} failed: {type(error).__name__}")
        return Compiled(add, result, time.monotonic())


def _prepared(params: SamplingParams, tokenizer: Tokenizer, compiler: GrammarCompiler) -> Prepared:
    form, marks, budget = params.structured_outputs, params.thinking_marks, params.thinking_token_budget
    constraint = None if form is None else compiler.compile(form)
    if marks is None or budget is None:
        return Prepared(constraint)
    return Prepared(constraint, partial(ThinkingMeter, tokenizer, marks, budget))


def vocabulary_of(loaded: Loaded) -> tuple[Tokenizer, GrammarCompiler]:
    """Read the vocabulary of a loaded model. Raises: ModelError."""
    place = Path(loaded.config.tokenizer or tokenizer_directory(loaded.directory))
    backend = loaded.config.structured_outputs_backend
    tokenizer = open_tokenizer(place)
    return tokenizer, grammar_compiler(tokenizer, loaded.settings.vocab_size, loaded.eos_token_ids, backend)
