"""Results: what counts is on the disk, once, whatever ends the process."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from albireo.errors import ConfigError
from albireo.server.batches import results as results_module
from albireo.server.batches.durable import Lock
from albireo.server.batches.results import NotOurs, Results
from albireo.server.protocol.batches import BatchUsage, LineAnswer, LineError, OutputLine, RequestCounts

WRITER = """
import asyncio, sys
from pathlib import Path
from albireo.server.batches.results import Results
from albireo.server.protocol.batches import BatchUsage, LineAnswer, OutputLine, RequestCounts
import msgspec

async def main():
    results = Results(Path(sys.argv[1]), Path(sys.argv[2]), RequestCounts(), BatchUsage())
    async def put(name):
        if name not in results.done:
            body = msgspec.Raw(b'{"a": "%b"}' % (b"x" * 3000))
            answer = LineAnswer(200 if int(name) % 3 else 400, "", body)
            await results.put(OutputLine("batch_req_x", name, answer, None))
            print(name, flush=True)
    for start in range(0, 100000, 4):
        await asyncio.gather(*(put(str(start + i)) for i in range(4)))

asyncio.run(main())
"""


def opened(folder: Path, **kwargs: Any) -> Results:
    return Results(folder / "out", folder / "err", RequestCounts(total=9), BatchUsage(), **kwargs)


def line(name: str, status: int = 200, body: bytes = b"{}") -> OutputLine:
    return OutputLine("batch_req_x", name, LineAnswer(status, "", msgspec.Raw(body)), None)


def ids(path: Path) -> list[str]:
    return [json.loads(each)["custom_id"] for each in path.read_text().splitlines()]


def test_lines_are_there_before_they_count(tmp_path: Path) -> None:
    details = b'"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":3}'
    usage = b'{"usage":{"prompt_tokens":3,"completion_tokens":4,' + details + b"}}"
    response = b'{"usage":{"input_tokens":1,"output_tokens":2,"output_tokens_details":{"reasoning_tokens":1}}}'

    async def run() -> None:
        results = opened(tmp_path)
        await asyncio.gather(results.put(line("a", body=usage)), results.put(line("b", 404)))
        await results.put(line("c", body=response))
        assert ids(tmp_path / "out") == ["a", "c"] and ids(tmp_path / "err") == ["b"]
        await results.put(OutputLine("batch_req_x", "d", None, LineError("batch_expired", "late")))
        await results.close()

    asyncio.run(run())
    again = opened(tmp_path)
    assert again.done == {"a", "b", "c", "d"}
    assert again.counts == RequestCounts(total=9, completed=2, failed=2)
    assert again.usage == BatchUsage(4, 6, 10, {"cached_tokens": 2}, {"reasoning_tokens": 4})


@pytest.mark.parametrize(
    "torn", [b'{"id":"batch_req_x","custom_id":"b"', b"{", b"\0\0\0\n\0", b'{"id":"batch_req_"}\n']
)
def test_a_torn_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    whole = msgspec.json.encode(line("a")) + b"\n"
    (tmp_path / "out").write_bytes(whole + torn)
    results = opened(tmp_path)
    assert results.done == {"a"} and (tmp_path / "out").read_bytes() == whole
    asyncio.run(results.put(line("b")))
    assert ids(tmp_path / "out") == ["a", "b"]


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    whole = msgspec.json.encode(line("a")) + b"\n"
    for data, number in ((b"a story", 1), (whole + b"\n", 2), (whole + b"{}\n" + whole, 2)):
        (tmp_path / "out").write_bytes(data)
        with pytest.raises(NotOurs) as refused:
            opened(tmp_path, is_ours=False)
        assert refused.value.number == number and (tmp_path / "out").read_bytes() == data
    (tmp_path / "out").write_bytes(whole + whole[:30])
    assert opened(tmp_path, is_ours=False).done == {"a"}


def test_a_full_disk_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(results_module, "RETRY_S", 0.01)
    true_fsync, calls = results_module.Appended.write, []

    def full(self: Any, data: bytes) -> None:
        calls.append(data)
        true_fsync(self, data if len(calls) > 3 else data[:10])
        if len(calls) <= 3:
            raise OSError(28, "no space")

    monkeypatch.setattr(results_module.Appended, "write", full)

    async def run() -> None:
        results = opened(tmp_path)
        await asyncio.gather(results.put(line("a")), results.put(line("b", 500)), results.put(line("c")))
        await results.close()

    asyncio.run(run())
    assert len(calls) > 3 and ids(tmp_path / "out") == ["a", "c"] and ids(tmp_path / "err") == ["b"]
    assert [line.split(" (")[0].split(" to ")[0] for line in caplog.messages] == [
        "results of a batch cannot be written",
        "results of a batch are written",
    ], "it is said once, and once that it is over"


def test_a_cancelled_line_counts_or_does_not(tmp_path: Path) -> None:
    async def run() -> None:
        results = opened(tmp_path)
        putting = asyncio.create_task(results.put(line("a")))
        await asyncio.sleep(0)
        putting.cancel()
        await results.settled()
        assert list(results.done) == ids(tmp_path / "out") == ["a"]

    asyncio.run(run())


def test_kill_9_in_the_middle_loses_nothing_that_counted(tmp_path: Path) -> None:
    said: set[str] = set()
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "out"), str(tmp_path / "err")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said |= {process.stdout.readline().strip() for _ in range(20)}
            process.send_signal(signal.SIGKILL)
            said |= {name.strip() for name in process.stdout if name.endswith("\n")}
    results = opened(tmp_path)
    there = ids(tmp_path / "out") + ids(tmp_path / "err")
    assert len(there) == len(set(there)) and said <= set(there) == results.done
    assert all(int(name) % 3 for name in ids(tmp_path / "out"))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", "batch_dir=here")
    with pytest.raises(ConfigError, match="batch_dir=here is in use"):
        Lock(tmp_path / "lock", "batch_dir=here")
    lock.release()
    Lock(tmp_path / "lock", "batch_dir=here").release()
