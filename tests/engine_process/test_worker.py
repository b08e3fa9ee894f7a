"""The worker between messages: with nothing to do it prepares, and looks for messages after each piece."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from albireo.api.load import load
from albireo.config import EngineConfig
from albireo.engine_process import ledger
from albireo.engine_process.grammars import Compiled, Prepared
from albireo.engine_process.inbox import Inbox
from albireo.engine_process.ledger import Ledger
from albireo.engine_process.messages import Add, Frames, FromWorker, Refused, Stepped, frame, framed
from albireo.engine_process.worker import Worker, serve
from albireo.errors import DeviceLost, RankLost
from albireo.params import SamplingParams
from albireo.step import StepPlan, StepResult


@pytest.fixture(scope="module")
def loaded() -> Any:
    return load(EngineConfig(num_threads=1, skip_tokenizer_init=True))


def test_a_request_waits_for_one_piece_of_what_is_prepared(loaded: Any, tmp_path: Path) -> None:
    done: list[str] = []
    pieces, begun, gate = iter([True, True, True]), threading.Event(), threading.Event()

    def prepare() -> bool:
        done.append("piece")
        begun.set()
        gate.wait()
        return next(pieces, False)

    def execute(plan: StepPlan) -> StepResult:
        done.append("step")
        return loaded.execute(plan)

    path = tmp_path / "ledger"
    ledger.create(path)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        watched = replace(loaded, execute=execute, prepare=prepare)
        inbox = Inbox(theirs)
        worker = Worker(watched, Ledger(path), theirs, cast(Any, None), inbox)
        thread = threading.Thread(target=worker.serve, daemon=True)
        thread.start()
        begun.wait(60)
        params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True, seed=1)
        ours.sendall(frame(Add(7, [5, 6, 7], params, 0, None, 0.0, None)))
        while not inbox._messages:  # it is there before the piece is done
            pass
        gate.set()
        tokens = _tokens(ours, 3)
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(60)
    assert not thread.is_alive() and len(tokens) == 3
    assert done[:4] == ["piece", "step", "step", "step"]


@pytest.mark.parametrize(
    ("error", "suspects"),
    [(RankLost("rank 1 ended by signal 9"), []), (DeviceLost("the GPU is lost to this process"), [7])],
)
def test_what_computes_is_gone_and_ends_the_process(
    loaded: Any, tmp_path: Path, error: DeviceLost, suspects: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is tried again here: whoever started the process starts the next, and is told whose step it was where
    that may be the cause."""
    tried: list[StepPlan] = []

    def execute(plan: StepPlan) -> StepResult:
        tried.append(plan)
        raise error

    ledger.create(tmp_path / "ledger")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbox = Inbox(theirs)
        watched = replace(loaded, execute=execute)
        worker = Worker(watched, Ledger(tmp_path / "ledger"), theirs, cast(Any, None), inbox)
        params = SamplingParams(temperature=0, max_tokens=3, seed=1)
        ours.sendall(frame(Add(7, [5, 6, 7], params, 0, None, 0.0, None)))
        # not by closing the socket, for which the client would end it
        monkeypatch.setattr("os._exit", lambda status: pytest.exit("", status))
        with pytest.raises(RankLost if isinstance(error, RankLost) else pytest.exit.Exception) as ended:
            serve(worker)
    assert ended.type is RankLost or ended.value.returncode == 1
    assert len(tried) == 1 and ledger.read(tmp_path / "ledger") == suspects


def test_what_cannot_be_read_ends_the_process_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """It hears nobody any more; one that stayed would be waited for by all."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbox = Inbox(theirs)
        ours.sendall(framed(b"no message"))
        with inbox._changed:
            assert inbox._changed.wait_for(lambda: inbox._is_closed, 30)
        assert inbox.wait() is None and inbox.take() is None
    assert "cannot be read" in caplog.text


def test_nothing_is_kept_of_a_request_that_is_refused_once_its_grammar_is_compiled(loaded: Any, tmp_path: Path) -> None:
    ledger.create(tmp_path / "ledger")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(loaded, Ledger(tmp_path / "ledger"), theirs, cast(Any, None), Inbox(theirs))
        add = Add(7, [5, 6, 7], SamplingParams(max_tokens=3, seed=1), 0, None, 0.0, None, adapter=9)
        worker._compiled(Compiled(add, Prepared(cast(Any, object())), 1.0))
        (payload,) = Frames().feed(ours.recv(1 << 16))
    assert msgspec.msgpack.decode(payload, type=FromWorker).key == 7  # type: ignore[union-attr]
    assert not (worker._compiled_s or worker._seq_ids or worker._fresh or worker._executor.owners)


def test_a_request_that_cannot_be_as_it_is_told_is_refused_alone(loaded: Any, tmp_path: Path) -> None:
    ledger.create(tmp_path / "ledger")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(loaded, Ledger(tmp_path / "ledger"), theirs, cast(Any, None), Inbox(theirs))
        params = SamplingParams(max_tokens=3, seed=1, structured_outputs={"regex": "a"})
        worker._compiled(Compiled(Add(7, [5, 6, 7], params, 0, None, 0.0, None), Prepared(), 1.0))
        (payload,) = Frames().feed(ours.recv(1 << 16))
    refused = msgspec.msgpack.decode(payload, type=FromWorker)
    assert isinstance(refused, Refused) and (refused.key, refused.error) == (7, "InvariantError")
    assert not worker._engine.has_work()


def _tokens(connection: socket.socket, num: int) -> list[int]:
    decoder, frames, found = msgspec.msgpack.Decoder(FromWorker), Frames(), []
    connection.settimeout(60)
    while len(found) < num:
        for payload in frames.feed(connection.recv(1 << 16)):
            message = decoder.decode(payload)
            assert isinstance(message, Stepped)
            found += [token for update in message.updates for token in update.token_ids]
    return found
