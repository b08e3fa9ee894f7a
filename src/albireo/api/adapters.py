"""Adapters: the adapters (LoRA) of a loaded model: read, numbered, and let go when nobody runs with them any more.

Made by load.py, called by front doors from the thread that steps. Does not know how requests name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from albireo.errors import InvalidParams
from albireo.execution.adapters import AdapterRunner
from albireo.models.checkpoint.peft import PeftAdapter, adapter_rank, read_adapter
from albireo.models.gguf.files import is_gguf


class Adapters:
    """Invariant: a number stands for one adapter for ever; what is read again gets another.

    So KV blocks that were computed with an adapter are found by requests with the same one only.
    """

    def __init__(
        self, runner: AdapterRunner, shapes: Mapping[str, tuple[int, int]], max_rank: int, head_dim: int
    ) -> None:
        """Args: shapes: module -> outputs, inputs. max_rank: that slots have room for. head_dim: of the model, by which
        rows in GGUF files are put in order."""
        #: What steps are run with.
        self.runner = runner
        self._shapes = shapes
        self._max_rank = max_rank
        self._head_dim = head_dim
        self._last = 0
        self._leaving: set[int] = set()

    def read(self, path: str | Path) -> PeftAdapter:
        """Read and check an adapter; from any thread. Raises: ModelError."""
        if not is_gguf(Path(path)):
            return read_adapter(Path(path), self._shapes, self._max_rank)
        from albireo.models.gguf.adapter import read_gguf_adapter

        return read_gguf_adapter(Path(path), self._shapes, self._max_rank, self._head_dim)

    def add(self, adapter: PeftAdapter, number: int | None = None) -> int:
        """Let requests run with it. Args: number: that nothing had before; None: the next one.

        Returns: its number. Between steps.
        """
        self._last = self._last + 1 if number is None else number
        self.runner.add(self._last, adapter)
        return self._last

    def load(self, path: str | Path) -> int:
        """read() and add(). Between steps."""
        return self.add(self.read(path))

    def compile(self) -> None:
        """Compile the program with adapters now, not when the first step wants it."""
        self.runner.program()

    def remove(self, number: int) -> None:
        """No new request will have it; it goes when the last that does is over, see let_go(). Between steps."""
        if number in self.runner.numbers:
            self._leaving.add(number)

    def let_go(self, in_use: set[int]) -> None:
        """Forget those removed that no unfinished request has. Between steps."""
        for number in self._leaving - in_use:
            self.runner.remove(number)
            self._leaving.discard(number)

    @property
    def has_leaving(self) -> bool:
        """Whether let_go() may have something to do."""
        return bool(self._leaving)


def rank_of(path: Path) -> int:
    """Rank that a slot needs for an adapter, of a directory or in a GGUF file. Raises: ModelError."""
    if not is_gguf(path):
        return adapter_rank(path)
    from albireo.models.gguf.adapter import gguf_adapter_rank

    return gguf_adapter_rank(path)


def no_adapters() -> InvalidParams:
    """What a request with an adapter is told where there are none."""
    return InvalidParams("a request has an adapter, and this engine runs none; start it with enable_lora=True")
