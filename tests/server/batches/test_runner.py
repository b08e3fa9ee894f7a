"""The life of batches, with an application that is asked instead of a model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from albireo.errors import ConfigError
from albireo.server.batches import job, runner
from albireo.server.batches.runner import Batches
from albireo.server.batches.store import Record, Store
from albireo.server.errors import HttpError
from albireo.server.protocol.batches import Batch
from albireo.server.settings import ServerSettings

URL = "/v1/completions"


class App:
    """Answers {"said": prompt}, unless it is told otherwise. Attributes: running: prompts; seen: those that came."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.seen: list[str] = []
        self.most = 0
        self.statuses: dict[str, list[int]] = {}
        self.wait: Callable[[], Awaitable[Any]] = lambda: asyncio.sleep(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        prompt = json.loads((await receive())["body"])["prompt"]
        self.seen.append(prompt)
        self.running.append(prompt)
        self.most = max(self.most, len(self.running))
        try:
            await self.wait()
        finally:
            self.running.remove(prompt)
        status = (self.statuses.get(prompt) or [200]).pop(0)
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-request-id", b"r")]})
        await send({"type": "http.response.body", "body": json.dumps({"said": prompt}).encode()})


class House:
    """Batches of a directory, without a server around them."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.app = App()
        self.serving: Any = SimpleNamespace(
            settings=ServerSettings(batch_dir=str(folder), **settings),
            num_queued=0,
            is_draining=False,
            ready=SimpleNamespace(max_num_seqs=8),
            client=SimpleNamespace(engines=[None]),
            failure=lambda: None,
            names=("story",),
            metrics=SimpleNamespace(registry=CollectorRegistry()),
        )
        self.batches = Batches(self.serving, folder)
        self.batches.use(self.app)
        self.store = self.batches.store

    async def upload(self, prompts: list[str]) -> str:
        made = [{"custom_id": p, "method": "POST", "url": URL, "body": {"prompt": p}} for p in prompts]
        path = self.store.new_upload()
        path.write_text("\n".join(map(json.dumps, made)))
        return (await self.store.keep_upload(path, "in.jsonl")).id

    async def add(self, prompts: list[str], window_s: int = 3600) -> Record:
        now = int(time.time())
        batch = Batch(
            id=self.store.new_id("batch_"),
            endpoint=URL,
            input_file_id=await self.upload(prompts),
            completion_window="1h",
            created_at=now,
            expires_at=now + window_s,
        )
        await self.batches.add(batch)
        return self.store.records[batch.id]

    async def over(self, record: Record) -> Batch:
        await until(lambda: record.is_over and record.batch.id not in self.batches._tasks)
        return record.batch

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        return [] if file_id is None else [*map(json.loads, self.store.content(file_id).read_text().splitlines())]


async def until(found: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not found():
            await asyncio.sleep(0.002)


def names(count: int, prefix: str = "") -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


def test_lines_are_bounded_and_batches_take_turns(tmp_path: Path) -> None:
    async def run() -> None:
        house = House(tmp_path, batch_max_inflight=3)
        first = await house.add(names(40, "a"))  # before the model is loaded
        go = asyncio.Event()
        house.app.wait = go.wait
        house.batches.start()
        second = await house.add(names(5, "b"))
        await until(lambda: second.batch.status == "in_progress" and len(house.app.running) == 3)
        gate = house.batches._gate
        assert gate is not None
        await until(lambda: gate._door._waiters)  # the first waits in the door, the second behind it
        go.set()
        for record in (first, second):
            assert (await house.over(record)).status == "completed"
        assert house.app.most == 3
        assert house.app.seen.index("b4") < house.app.seen.index("a39"), "the short one does not wait for the long one"
        assert sorted(house.app.seen) == sorted([*names(40, "a"), *names(5, "b")])
        await house.batches.stop()

    asyncio.run(run())


def test_nothing_begins_while_others_wait(tmp_path: Path) -> None:
    async def run() -> None:
        house = House(tmp_path)
        house.serving.num_queued = 1
        house.batches.start()
        record = await house.add(names(3))
        await until(lambda: record.batch.status == "in_progress")
        await asyncio.sleep(0.1)
        assert house.app.seen == []
        house.serving.num_queued = 0
        assert (await house.over(record)).status == "completed"
        await house.batches.stop()

    asyncio.run(run())


def test_a_window_ends(tmp_path: Path) -> None:
    async def run() -> None:
        house = House(tmp_path, batch_max_inflight=2)
        waits = iter([0] * 3)
        house.app.wait = lambda: asyncio.sleep(next(waits, 3600))  # three end, the others never
        house.batches.start()
        batch = await house.over(await house.add(names(9), 1))
        value, labels = house.serving.metrics.registry.get_sample_value, {"model_name": "story"}
        failed = value("albireo:batch_requests_total", {**labels, "outcome": "failed"})
        assert failed == batch.request_counts.failed and value("albireo:batch_requests_running", labels) == 0
        assert value("albireo:batches", {**labels, "status": "in_progress"}) == 0
        assert batch.status == "expired" and batch.expired_at is not None and batch.cancelled_at is None
        counts = batch.request_counts
        assert counts.completed <= 3 and counts.completed + counts.failed == counts.total == 9
        late = house.lines(batch.error_file_id)
        assert {each["error"]["code"] for each in late} == {"batch_expired"}
        assert sorted(each["custom_id"] for each in late + house.lines(batch.output_file_id)) == names(9)
        assert house.app.running == []
        await house.batches.stop()

    asyncio.run(run())


def test_a_busy_server_is_asked_again_and_one_that_ends_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "RETRY_S", 0.01)

    async def run() -> None:
        house = House(tmp_path)
        house.app.statuses = {"0": [429, 503, 200], "1": [500], "2": [404]}
        house.batches.start()
        batch = await house.over(await house.add(names(3)))
        assert [each["custom_id"] for each in house.lines(batch.output_file_id)] == ["0"]
        failed = {each["custom_id"]: each["response"]["status_code"] for each in house.lines(batch.error_file_id)}
        assert failed == {"1": 500, "2": 404} and house.app.seen.count("0") == 3

        house.app.statuses = {"0": [500] * 1000}
        house.serving.failure = lambda: "the engine is gone"
        record = await house.add(names(1))
        await until(lambda: house.app.seen.count("0") > 5)
        await house.batches.stop()
        assert not record.is_over and record.batch.request_counts.failed == 0

        house = House(tmp_path)
        house.batches.start()
        assert (await house.over(house.store.records[record.batch.id])).request_counts.completed == 1
        await house.batches.stop()

    asyncio.run(run())


def test_cancelled_before_it_was_checked(tmp_path: Path) -> None:
    async def run() -> None:
        house = House(tmp_path)
        record = await house.add(names(4))
        await house.batches.cancel(record)
        assert record.batch.status == "cancelling"
        await house.batches.stop()
        house = House(tmp_path)  # which finds it so
        record = house.store.records[record.batch.id]
        house.batches.start()
        batch = await house.over(record)
        assert (batch.status, batch.request_counts.total, batch.request_counts.failed) == ("cancelled", 4, 4)
        assert house.app.seen == [] and batch.output_file_id is None
        await house.batches.stop()

    asyncio.run(run())


@pytest.mark.parametrize("num_saved", range(8))
def test_stopped_anywhere_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_saved: int) -> None:
    """As if the process ended before its num_saved-th write of an object: the next one finds what is on the disk."""
    from albireo.server.batches import store

    true_write, left = store.write_whole, num_saved

    class End(BaseException):
        pass

    def write(path: Path, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise End
        true_write(path, data)

    async def first() -> str:
        house = House(tmp_path)
        file_id = await house.upload(names(3))
        house.app.statuses = {"1": [400]}
        batch = Batch(
            id=house.store.new_id("batch_"), endpoint=URL, input_file_id=file_id, completion_window="1h",
            created_at=int(time.time()), expires_at=int(time.time()) + 3600,
        )  # fmt: skip
        await house.batches.add(batch)
        monkeypatch.setattr(store, "write_whole", write)
        house.batches.start()
        (task,) = house.batches._tasks.values()
        await asyncio.wait([task])
        assert (task.exception() is None) == (num_saved > 4), "five objects are written"
        await house.batches.stop()
        return batch.id

    async def second(name: str) -> None:
        house = House(tmp_path)
        house.app.statuses = {"1": [400]}
        house.batches.start()
        batch = await house.over(house.store.records[name])
        assert batch.status == "completed" and batch.completed_at is not None
        assert sorted(each["custom_id"] for each in house.lines(batch.output_file_id)) == ["0", "2"]
        assert [each["custom_id"] for each in house.lines(batch.error_file_id)] == ["1"]
        assert len(house.app.seen) <= 3
        assert {"files", "batches", "lock"} == {path.name for path in tmp_path.iterdir()}
        assert sorted(path.suffix for path in (tmp_path / "files").iterdir()) == [".data"] * 3 + [".json"] * 3
        assert [path.suffix for path in (tmp_path / "batches").iterdir()] == [".json"]
        await house.batches.stop()

    name = asyncio.run(first())
    monkeypatch.setattr(store, "write_whole", true_write)
    asyncio.run(second(name))


def test_an_input_that_is_gone(tmp_path: Path) -> None:
    async def run() -> None:
        house = House(tmp_path)
        record = await house.add(names(2))
        house.store.content(record.batch.input_file_id).unlink()
        house.batches.start()
        batch = await house.over(record)
        assert batch.status == "failed" and batch.errors is not None
        assert "the input is gone" in batch.errors.data[0].message
        assert house.store.record(batch.id).outcome == "failed"

        async def broken(record: Record) -> None:
            raise ValueError("a mistake of ours")

        house.store.keep_results = broken  # type: ignore[method-assign]
        record = await house.add(names(2))
        await until(lambda: record.batch.id not in house.batches._tasks)
        assert record.outcome == "failed" and not record.is_over, "it is left to the next server"
        await house.batches.stop()

    asyncio.run(run())


def test_a_disk_that_fails_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runner, "RETRY_S", 0.01)
    true_save, calls = Store.save, []

    async def save(self: Store, record: Record) -> None:
        calls.append(record.batch.status)
        if len(calls) in (2, 3, 4, 5):
            raise OSError(28, "no space")
        await true_save(self, record)

    monkeypatch.setattr(Store, "save", save)

    async def run() -> None:
        house = House(tmp_path)
        house.batches.start()
        batch = await house.over(await house.add(names(3)))
        assert batch.status == "completed" and batch.request_counts.completed == 3
        assert sorted(house.app.seen) == names(3)
        assert len(calls) == 6
        await house.batches.stop()
        assert Store(tmp_path).records[batch.id].batch.status == "completed"

    asyncio.run(run())
    assert sum("waits for the disk" in line for line in caplog.messages) == 1, "it is said once"


def test_too_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_OPEN", 2)

    async def run() -> None:
        house = House(tmp_path)
        await house.add(names(1))
        await house.add(names(1))
        with pytest.raises(HttpError, match="at most 2 may be") as refused:
            await house.add(names(1))
        assert refused.value.status == 429 and len(house.store.records) == 2
        await house.batches.stop()

    asyncio.run(run())


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    store = Store(tmp_path / "d")
    with pytest.raises(ConfigError, match="is in use by another process"):
        Store(tmp_path / "d")
    store.release()
    assert (tmp_path / "d").stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be used"):
        Store(tmp_path / "file")
    (tmp_path / "d" / "files" / "file-1.json").write_bytes(msgspec.json.encode({"id": 1}))
    with pytest.raises(ConfigError, match=r"file-1\.json cannot be read"):
        Store(tmp_path / "d")
