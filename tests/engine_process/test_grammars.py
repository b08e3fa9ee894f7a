"""Grammars compiled beside the steps: each that was begun is told of, whatever its compiling comes to."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any, cast

import pytest

from albireo.engine_process import ledger
from albireo.engine_process.grammars import Compiled, Grammars
from albireo.engine_process.ledger import Ledger
from albireo.engine_process.messages import Add
from albireo.errors import EngineError, InvalidParams, InvariantError
from albireo.params import SamplingParams


class Panic(BaseException):
    """As pyo3's, of a library in Rust."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InvalidParams("structured_outputs.regex is none"), InvalidParams),
        (ValueError("no"), InvariantError),
        (Panic("index out of bounds"), InvariantError),
    ],
)
def test_whatever_compiling_raises_its_request_is_told(
    tmp_path: Path, error: BaseException, told: type[EngineError]
) -> None:
    ledger.create(tmp_path / "ledger")
    done: queue.Queue[Compiled] = queue.Queue()

    class Compiler:
        def compile(self, form: Any) -> None:
            assert ledger.read(tmp_path / "ledger") == [7]
            raise error

    grammars = Grammars(lambda: cast(Any, (None, Compiler())), done.put, Ledger(tmp_path / "ledger"))
    grammars.begin(Add(7, [1], SamplingParams(structured_outputs={"regex": "a"}), 0, None, 0.0, None))
    compiled = done.get(timeout=30)
    assert compiled.add.key == 7 and type(compiled.result) is told
    assert ledger.read(tmp_path / "ledger") == [] and grammars.take_back(7)
