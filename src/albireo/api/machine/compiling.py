"""Kernels of programs for a GPU, a model's and its draft model's, compiled by processes of their own while weights are
loaded.

A machine that serves a model for the first time compiles some seventy kernels, each for a part of a second, and the
first requests would wait for them. Used by cuda_device.py; the processes run compile_ahead.py, and what they make is in
Triton's cache. Whatever goes wrong there is a line in the log: a kernel that is missing is compiled when it is
launched.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.config import EngineConfig
from albireo.control_group import control_group, threads_allowed
from albireo.devflags import compiling_environment
from albireo.graph.program import Program
from albireo.own_python import command_of
from albireo.system import usable_processors

if TYPE_CHECKING:
    from albireo.backends.cuda.chip import Chip

_LOG = logging.getLogger(__name__)

_MOST_PROCESSES = 8
#: After which serving starts without what is not compiled yet.
_MOST_SECONDS = 120.0
_DONE = "albireo-{}.done"


class Compiling:
    """Processes that compile. Args: done: a file that is made when all of them have."""

    def __init__(self, orders: list[dict[str, Any]], done: Path) -> None:
        self._done = done
        self._processes: list[subprocess.Popen[str]] = []
        #: Where they say which of them compiles a kernel; None: nowhere, and each compiles all.
        self._claims: tempfile.TemporaryDirectory[str] | None = None
        if orders:
            with suppress(OSError):
                self._claims = tempfile.TemporaryDirectory(prefix="albireo-claims-", ignore_cleanup_errors=True)
        claims = os.devnull if self._claims is None else self._claims.name
        for order in orders:
            process = subprocess.Popen(
                command_of("albireo.api.machine.compile_ahead"),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=compiling_environment(),
            )
            self._processes.append(process)
            assert process.stdin is not None
            process.stdin.write(json.dumps(order | {"claims": claims}))
            process.stdin.close()
            process.stdin = None

    def wait(self, seconds: float = _MOST_SECONDS) -> None:
        """Until all is compiled, or for so long."""
        end = time.monotonic() + seconds
        problems = []
        for process in self._processes:
            try:
                _, errors = process.communicate(timeout=max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                problems.append(f"not done after {seconds:.0f} s")
                continue
            if process.returncode:
                problems.append((errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1])
        if problems:
            _LOG.warning("compiling kernels ahead: %s; what is missing is compiled when it is launched", problems[0])
        elif self._processes:
            self._done.parent.mkdir(parents=True, exist_ok=True)
            self._done.touch()
        self.close()

    def close(self) -> None:
        """End what still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self._processes = []
        if self._claims is not None:
            self._claims.cleanup()


@contextmanager
def compiling(
    directory: Path,
    config: EngineConfig,
    programs: Sequence[tuple[Program, int]],
    *,
    model_len: int,
    chip: Chip,
    num_processes: int | None = None,
) -> Iterator[Compiling]:
    """Begin to compile what programs launch, unless that was done on this machine before.

    Args:
        directory: of the model. config, model_len: what all is compiled with.
        programs: the model's, of several ranks the first's, and those of its draft model, each with the positions of
            the longest sequence that there is room for.
        num_processes: None: one for each core, and no more than 8.
    """
    from albireo.backends.cuda.compile_ahead import cache_directory, digest_of

    max_rank = config.max_lora_rank if config.enable_lora else 0
    done = cache_directory() / _DONE.format(digest_of(programs, chip, max_rank))
    cores = threads_allowed(control_group().cpus, usable_processors())
    count = num_processes or min(_MOST_PROCESSES, cores)
    order = {
        "directory": str(directory),
        "config": asdict(config),
        "model_len": model_len,
        "max_positions": [max_positions for _, max_positions in programs],
        "chip": asdict(chip),
        "parts": count,
    }
    begun = Compiling([] if done.exists() else [{**order, "part": i} for i in range(count)], done)
    try:
        yield begun
    finally:
        begun.close()
