"""Files and batches by the real openai client: what comes of each line, what is refused, and what outlives kill -9."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from albireo.server.protocol.batches import OVER
from server_process import Server, wait_until

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


def asks(num: int, **extra: Any) -> list[dict[str, Any]]:
    """Bodies of completions whose answers are always the same."""
    return [{"model": "story", "prompt": f"Once {i}", "temperature": 0, "max_tokens": 6, **extra} for i in range(num)]


def lines(bodies: list[dict[str, Any]], url: str = COMPLETION) -> list[dict[str, Any]]:
    return [{"custom_id": f"ask-{i}", "method": "POST", "url": url, "body": body} for i, body in enumerate(bodies)]


def upload(client: Any, entries: list[dict[str, Any]] | bytes) -> Any:
    data = entries if isinstance(entries, bytes) else "\n".join(map(json.dumps, entries)).encode()
    return client.files.create(file=("in.jsonl", data), purpose="batch")


def run(client: Any, entries: list[dict[str, Any]] | bytes, endpoint: str = COMPLETION, **more: Any) -> Any:
    file_id = upload(client, entries).id
    more = {"completion_window": "24h", **more}
    return client.batches.create(input_file_id=file_id, endpoint=endpoint, **more)


def finished(client: Any, batch: Any) -> Any:
    return wait_until(lambda: (b := client.batches.retrieve(batch.id)).status in OVER and b)


def results(client: Any, file_id: str | None) -> dict[str, Any]:
    """By custom_id; each of them once."""
    if file_id is None:
        return {}
    found = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    by_name = {each["custom_id"]: each for each in found}
    assert len(by_name) == len(found)
    return by_name


@pytest.fixture(scope="module")
def batch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("batches")
    made = Server("--batch-dir", str(folder), "--batch-max-file-bytes", "100000", "--batch-max-lines", "300")
    yield made.wait_until_ready()
    assert made.stop() == 0
    assert not any("Once" in line for line in made.lines), "the log has no text"


@pytest.fixture(scope="module")
def client(batch_server: Server) -> Any:
    return batch_server.client()


def test_each_line_is_what_its_endpoint_answers(client: Any, batch_server: Server) -> None:
    """Of every endpoint, good and bad; but for ids and times to the byte."""
    bad = {"model": "story", "max_tokens": -1, "prompt": "x"}
    asked = {
        COMPLETION: [*asks(3), {**asks(1)[0], "n": 2, "logprobs": 1}, bad, {"prompt": "x", "model": "other"}, {}],
        CHAT: [{"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 4}, bad],
        "/v1/embeddings": [{"input": ["a", "b"], "encoding_format": "base64"}, {"input": ""}],
        "/v1/score": [{"text_1": "a", "text_2": ["b", "c"]}, {"text_1": "a"}],
        "/v1/rerank": [{"query": "a", "documents": ["b", "c"], "top_n": 1}, {"query": "a", "documents": []}],
        "/v1/responses": [{"input": "Hi", "temperature": 0, "max_output_tokens": 4, "store": False}, bad],
    }
    for url, bodies in asked.items():
        batch = finished(client, run(client, lines(bodies, url), url, metadata={"of": url}))
        good, failed = results(client, batch.output_file_id), results(client, batch.error_file_id)
        counts = batch.request_counts
        assert (batch.status, counts.total) == ("completed", len(bodies)) and batch.metadata == {"of": url}
        assert (counts.completed, counts.failed) == (len(good), len(failed)) and not set(good) & set(failed)
        for i, body in enumerate(bodies):
            wanted = batch_server.http.post(url, json=body)
            found = (good if wanted.status_code == 200 else failed)[f"ask-{i}"]
            assert found["error"] is None and found["id"].startswith("batch_req_")
            assert found["response"]["status_code"] == wanted.status_code
            assert timeless(found["response"]["body"]) == timeless(wanted.json())


def timeless(body: dict[str, Any]) -> dict[str, Any]:
    told = {k: v for k, v in body.items() if k not in ("id", "created", "created_at", "completed_at", "output")}
    told["usage"] = {k: v for k, v in (body.get("usage") or {}).items() if not k.endswith("details")}
    told["text"] = [part["text"] for item in body.get("output", ()) for part in item["content"]]
    return told


def test_counts_and_times_of_a_batch(client: Any, batch_server: Server) -> None:
    batch = run(client, lines(asks(4)))
    assert (batch.status, batch.object, batch.endpoint) == ("validating", "batch", COMPLETION)
    assert batch.expires_at == batch.created_at + 24 * 3600
    batch = finished(client, batch)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.model == "story" and batch.errors is None and batch.error_file_id is None
    answers = [each["response"]["body"]["usage"] for each in results(client, batch.output_file_id).values()]
    assert batch.usage.input_tokens == sum(each["prompt_tokens"] for each in answers)
    assert batch.usage.output_tokens == sum(each["completion_tokens"] for each in answers) == 24
    made = client.files.retrieve(batch.output_file_id)
    assert 'albireo:batches{model_name="story",status="in_progress"} 0.0' in batch_server.http.get("/metrics").text
    assert (made.purpose, made.bytes) == ("batch_output", len(client.files.content(made.id).content))


def test_a_file_that_is_no_input_fails_with_its_lines(client: Any) -> None:
    entries = lines(asks(4))
    entries[1]["custom_id"], entries[2]["url"] = "ask-0", CHAT
    batch = finished(client, run(client, "\n".join([*map(json.dumps, entries), "{"]).encode()))
    assert (batch.status, batch.output_file_id, batch.request_counts.total) == ("failed", None, 0)
    found = [(error.line, error.code, error.param) for error in batch.errors.data]
    assert found == [
        (2, "duplicate_custom_id", "custom_id"), (3, "invalid_url", "url"), (5, "invalid_json_line", None)
    ]  # fmt: skip
    assert batch.failed_at >= batch.created_at
    batch = finished(client, run(client, lines(asks(301))))
    assert [error.code for error in batch.errors.data] == ["too_many_lines"]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"endpoint": "/v1/moderations"}, "endpoint", "choose one of /v1/chat/completions"),
        ({"completion_window": "1 day"}, "completion_window", "hours, such as 24h"),
        ({"completion_window": "337h"}, "completion_window", "at most 336h"),
        ({"input_file_id": "file-../../etc"}, "input_file_id", "there is no file"),
        ({"metadata": {"a": "b" * 513}}, "metadata", "length <= 512"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after", "not supported"),
        ({"extra_body": {"priority": 1}}, "priority", "leave it out"),
    ],
)
def test_a_batch_that_cannot_be(client: Any, change: dict[str, Any], param: str, words: str) -> None:
    given = {"input_file_id": upload(client, lines(asks(1))).id, "endpoint": COMPLETION, "completion_window": "24h"}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
        client.batches.create(**{**given, **change})
    assert refused.value.param == param and words in refused.value.message


def test_an_upload_that_cannot_be(client: Any, batch_server: Server) -> None:
    num_files = len(client.files.list().data)
    with pytest.raises(openai.BadRequestError, match="purpose='fine-tune' is not supported"):
        client.files.create(file=("a", b"x"), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match="expires_after"):
        expires = {"anchor": "created_at", "seconds": 3600}
        client.files.create(file=("a", b"x"), purpose="batch", expires_after=expires)
    with pytest.raises(openai.APIStatusError, match="larger than 100000 bytes") as refused:
        client.files.create(file=("a", b"x" * 200_000), purpose="batch")
    assert refused.value.status_code == 413
    kind = {"content-type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    answer = batch_server.http.post("/v1/files", content=iter([head, b"y" * 100_100]), headers=kind)  # of unsaid length
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "file_too_large"
    answer = batch_server.http.post("/v1/files", content=head, headers=kind)
    assert answer.status_code == 400 and "without its last boundary" in answer.json()["error"]["message"]
    answer = batch_server.http.post("/v1/files", json={"purpose": "batch"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_form"
    answer = batch_server.http.post("/v1/files", files={"other": b"x"}, data={"purpose": "batch"})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "file"
    assert len(client.files.list().data) == num_files


def test_pages(client: Any) -> None:
    made = [upload(client, b"%d" % i).id for i in range(5)]
    assert [each.id for each in client.files.list(limit=2)][:5] == made[::-1]  # the client asks for page after page
    first = client.files.list(limit=2, order="asc", purpose="batch", after=made[0])
    assert [each.id for each in first.data] == made[1:3] and first.has_more
    client.files.delete(made[2])  # its place is known still
    assert [each.id for each in client.files.list(order="asc", after=made[2]).data] == made[3:]
    batches = [finished(client, run(client, lines(asks(1)))).id for _ in range(3)]
    page = client.batches.list(limit=2)
    assert [each.id for each in page.data] == batches[:0:-1] and page.has_more
    assert [each.id for each in client.batches.list(limit=2)][:3] == batches[::-1]
    for query in ({"limit": 0}, {"limit": 101}, {"after": "batch_1"}):
        with pytest.raises(openai.BadRequestError):
            client.batches.list(**query)


def test_a_file_is_deleted_unless_a_batch_reads_it(client: Any) -> None:
    batch = run(client, lines(asks(200, max_tokens=400, ignore_eos=True)))
    with pytest.raises(openai.ConflictError, match=batch.id):
        client.files.delete(batch.input_file_id)
    client.batches.cancel(batch.id)
    finished(client, batch)
    assert client.files.delete(batch.input_file_id).deleted
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(batch.input_file_id)
    for name in ("batch_1", "x/../y"):
        with pytest.raises(openai.NotFoundError):
            client.batches.retrieve(name)


def test_a_batch_is_cancelled(client: Any) -> None:
    long = asks(199, max_tokens=450, ignore_eos=True)  # which no machine is done with at once
    batch = run(client, lines([*asks(1, max_tokens=2), *long]))
    wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = finished(client, batch)
    good, failed = results(client, batch.output_file_id), results(client, batch.error_file_id)
    assert batch.status == "cancelled" and batch.cancelled_at >= batch.cancelling_at
    assert len(good) == batch.request_counts.completed >= 1 and len(failed) == batch.request_counts.failed
    assert len({*good, *failed}) == 200
    assert {each["error"]["code"] for each in failed.values()} == {"batch_cancelled"}
    assert client.batches.cancel(batch.id).status == "cancelled"
    done = finished(client, run(client, lines(asks(1))))
    with pytest.raises(openai.ConflictError, match="the batch is completed"):
        client.batches.cancel(done.id)


def test_those_who_wait_go_first(start: Any, tmp_path: Path) -> None:
    """With one seat, and lines that wait for it: who asks now is behind the line that runs, and behind no other."""
    limits = ["--max-num-seqs", "1", "--batch-max-inflight", "8", "--max-num-queued-requests", "1"]
    server = start("--batch-dir", str(tmp_path), *limits, is_poisoned=True)
    client = server.client()
    server.gate.hold(3)
    batch = run(client, lines(asks(40, max_tokens=200, ignore_eos=True)))
    wait_until(server.gate.is_holding, server)
    wait_until(lambda: server.http.get("/load").json() == {"server_load": 8}, server)
    with ThreadPoolExecutor(1) as beside:
        ask = {"model": "story", "prompt": "Once", "max_tokens": 2, "extra_body": {"request_id": "mine"}}
        answer = beside.submit(client.completions.create, **ask)
        wait_until(lambda: server.http.get("/v1/requests/cmpl-mine/explain").status_code == 200, server)
        server.gate.hold(300)  # more than a line takes, and less than two
        assert answer.result().usage.completion_tokens == 2
    wait_until(server.gate.is_holding, server)
    wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed, server)  # once it is on the disk
    assert client.batches.retrieve(batch.id).request_counts.completed == 1
    client.batches.cancel(batch.id)
    server.gate.open()
    finished(client, batch)


def test_kill_9_and_a_torn_line(tmp_path: Path) -> None:
    bodies = asks(24, max_tokens=20, ignore_eos=True)
    server = Server("--batch-dir", str(tmp_path), "--batch-max-inflight", "1", is_poisoned=True).wait_until_ready()
    try:
        client = server.client()
        server.gate.hold(70)
        batch = run(client, lines(bodies))
        wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed >= 3)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    finally:
        server.stop()
    (output,) = tmp_path.glob("batches/*.output")
    kept = output.read_bytes()
    assert kept.count(b"\n") == 3
    output.write_bytes(kept + kept[:100])
    (tmp_path / "files" / "lost.upload").write_bytes(b"x")
    server = Server("--batch-dir", str(tmp_path)).wait_until_ready()
    try:
        client = server.client()
        done = finished(client, batch)
        assert (done.status, done.request_counts.completed, done.error_file_id) == ("completed", 24, None)
        assert client.files.content(done.output_file_id).content.startswith(kept)
        for name, found in results(client, done.output_file_id).items():
            wanted = server.http.post(COMPLETION, json=bodies[int(name.removeprefix("ask-"))]).json()
            assert found["response"]["body"]["choices"] == wanted["choices"]
        assert not output.exists() and not [*tmp_path.glob("files/*.upload")]
        assert server.wait_for("was torn by a crash")
    finally:
        assert server.stop() == 0


def test_without_a_directory(server: Server) -> None:
    client = server.client()
    for ask in (client.files.list, client.batches.list, lambda: upload(client, b"x")):
        with pytest.raises(openai.BadRequestError, match="--batch-dir") as refused:
            ask()
        assert refused.value.code == "batches_disabled"
