"""bench serve as a user runs it: a server, a command line, the block, the files."""

from __future__ import annotations

import json
import subprocess

import pytest

from albireo.api.sources.locate import BUNDLED
from stub_completions import Answer, StubServer, completion, event, running

QUICK = ("--random-input-len", "12", "--random-output-len", "6", "--num-prompts", "8")
TOKENIZER = ("--tokenizer", BUNDLED)


def answer(asked):
    """As many tokens as were asked for."""
    return Answer(completion(asked.body.get("max_tokens") or asked.body["max_completion_tokens"]))


@pytest.fixture
def server():
    with running(StubServer(answer)) as stub:
        yield stub


class _NoCollector:
    """In place of gc: what the command looks through before it measures is here all that tests have imported."""

    @staticmethod
    def collect():
        pass

    freeze = unfreeze = collect


@pytest.fixture
def serve(albireo, server, monkeypatch):
    monkeypatch.setattr("albireo.cli.bench.serve.gc", _NoCollector)

    def run(*args):
        return albireo("bench", "serve", "--base-url", server.url, *args)

    return run


def completions(server):
    return [asked for asked in server.asked if asked.path == "/v1/completions"]


def test_block_and_json(serve, server, tmp_path):
    result = serve(
        *(*QUICK, *TOKENIZER, "--model", "stub", "--save-result", "--save-detailed"),
        *("--result-dir", tmp_path / "new", "--result-filename", "r.json"),
        *("--metadata", "version=1", "build=a=b", "--goodput", "ttft:10000", "e2el:20000", "--seed", "3"),
        *("--percentile-metrics", "ttft,e2el", "--metric-percentiles", "50,99.9"),
    )
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert "Successful requests:                     8         " in result.stdout
    assert "P99.9 E2EL (ms):" in result.stdout and "ITL" not in result.stdout
    found = json.loads((tmp_path / "new" / "r.json").read_text())
    assert (found["completed"], found["failed"], found["total_output_tokens"]) == (8, 0, 48)
    assert (found["total_input_tokens"], found["version"], found["build"]) == (56, "1", "a=b")
    assert found["request_goodput"] == pytest.approx(8 / found["duration"])
    assert len(found["itls"]) == 8 and all(len(each) == 5 for each in found["itls"])
    assert len({asked.body["prompt"] for asked in completions(server)}) == 8
    assert all(asked.body["ignore_eos"] is True for asked in completions(server))


def test_the_model_is_asked_for_and_the_bundled_tokenizer_is_known(serve, server):
    server.models = {"data": [{"id": BUNDLED.name}]}
    result = serve(*QUICK)
    assert result.exit_code == 0, result.stderr
    assert {asked.body["model"] for asked in completions(server)} == {BUNDLED.name}


def test_a_model_without_a_tokenizer_here(serve):
    result = serve(*QUICK)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: prompts need the model's tokenizer; give --tokenizer DIR: ")


def test_key_headers_and_body(serve, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    result = serve(
        *(*QUICK, *TOKENIZER, "--header", "x-a=1", "x-b=2", "--temperature", "0", "--top-k", "5"),
        *(
            "--extra-body",
            '{"priority": 3, "top_k": 7}',
            "--request-id-prefix",
            "bench-",
            "--served-model-name",
            "other",
        ),
    )
    assert result.exit_code == 0, result.stderr
    asked = completions(server)
    headers = asked[0].headers
    assert (headers["authorization"], headers["x-a"], headers["x-b"]) == ("Bearer sk-secret", "1", "2")
    assert {each.headers["x-request-id"] for each in asked} == {f"bench-{i}" for i in range(8)}
    body = asked[0].body
    assert (body["temperature"], body["top_k"], body["priority"], body["model"]) == (0.0, 7, 3, "other")
    assert "sk-secret" not in result.output


def test_a_server_that_refuses_ignore_eos(serve, server, tmp_path):
    serve(*QUICK, *TOKENIZER, "--no-ignore-eos")
    (tmp_path / "c.jsonl").write_text('{"prompt": "One fish"}\n')
    custom = ("--dataset-name", "custom", "--dataset-path", tmp_path / "c.jsonl", "--num-prompts", "1", *TOKENIZER)
    serve(*custom)
    assert not any("ignore_eos" in asked.body for asked in completions(server))
    serve(*custom, "--ignore-eos")
    assert server.asked[-1].body["ignore_eos"] is True


def test_a_header_of_ones_own_replaces_the_key(serve, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    serve(*QUICK, *TOKENIZER, "--header", "authorization=Basic x")
    assert {asked.headers["authorization"] for asked in server.asked} == {"Basic x"}


def test_chat(serve, server):
    chunk = {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}
    server.answer = lambda _: Answer([event(chunk), event(b"[DONE]")])
    result = serve(*QUICK, *TOKENIZER, "--backend", "openai-chat")
    assert result.exit_code == 0
    assert "8 answers came without usage" in result.stderr
    assert "8 answers are shorter than asked for" in result.stderr
    assert server.asked[-1].body["messages"][0]["role"] == "user"


def test_failures_are_counted_and_named(serve, server):
    server.answer = lambda asked: (
        answer(asked) if len(server.asked) % 2 else Answer([b'{"error": {"message": "queue is full"}}'], status=429)
    )
    result = serve(*QUICK, *TOKENIZER, "--max-concurrency", "1")
    assert result.exit_code == 0
    assert "Failed requests:                         4         " in result.stdout
    assert "warning: 4 requests failed: HTTP 429: queue is full" in result.stderr


def test_nothing_succeeds(serve, server, tmp_path):
    server.answer = lambda _: Answer([b"no"], status=500)
    result = serve(*QUICK, *TOKENIZER, "--html", tmp_path / "r.html")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: none of 8 requests succeeded"
    assert "HTTP 500: no" in (tmp_path / "r.html").read_text()


def test_warm_ups_do_not_count(serve, server):
    result = serve(*QUICK, *TOKENIZER, "--num-warmups", "3", "--ready-check-timeout-sec", "5")
    assert "Successful requests:                     8         " in result.stdout
    assert len(completions(server)) == 12
    server.answer = lambda _: Answer([b"no"], status=500)
    result = serve(*QUICK, *TOKENIZER, "--num-warmups", "3")
    assert (result.exit_code, result.stderr) == (1, "error: 3 of 3 warm-up requests failed: HTTP 500: no\n")
    result = serve(*QUICK, *TOKENIZER, "--ready-check-timeout-sec", "0.1")
    assert result.exit_code == 1 and result.stderr.startswith("error: the server was not ready within 0.1 s: ")


def test_a_trace_is_replayed(serve, server, tmp_path):
    rows = [
        {"timestamp": 100 * i, "input_length": 700, "output_length": 40, "hash_ids": [1, 10 + i % 2]} for i in range(4)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = serve(
        *("--dataset-name", "timed_trace", "--dataset-path", tmp_path / "t.jsonl", *TOKENIZER),
        *("--timed-trace-chunk-hash-size", "16", "--timed-trace-len-multiplier", "0.03125"),
        *("--timed-trace-sec-multiplier", "0.0001", "--save-result", "--save-detailed", "--result-dir", tmp_path),
        *("--result-filename", "r.json"),
    )
    assert result.exit_code == 0, result.stderr
    prompts = [asked.body["prompt"] for asked in completions(server)]
    assert {len(prompt) for prompt in prompts} == {22} and prompts[0] == prompts[2] != prompts[1]
    assert {tuple(prompt[:16]) for prompt in prompts} == {tuple(prompts[0][:16])}
    assert {asked.body["max_tokens"] for asked in completions(server)} == {2}
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["start_times"] == sorted(found["start_times"])
    assert found["duration"] >= 0.03  # the last one arrives then


def test_html(serve, tmp_path):
    result = serve(*QUICK, *TOKENIZER, "--html", tmp_path / "r.html")
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "r.html").read_text()
    assert text.startswith("<!doctype html>") and "8 succeeded" in text


def test_nothing_but_the_block_without_a_terminal(process, server):
    child = process(
        "bench", "serve", "--base-url", server.url, *map(str, (*QUICK, *TOKENIZER)), stdin=subprocess.DEVNULL
    )
    stdout, stderr = child.communicate(timeout=60)
    assert (child.returncode, stderr) == (0, b"")
    assert stdout.startswith(b"============ Serving Benchmark Result") and b"\r" not in stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--dataset-path", "x.json"), "--dataset-name random reads no file"),
        (("--dataset-name", "sharegpt"), "--dataset-name sharegpt needs a file"),
        (("--dataset-name", "timed_trace", "--dataset-path", "t", "--backend", "openai-chat"), "chat does not take"),
        (("--self-timed",), "are for --dataset-name timed_trace"),
        (("--goodput", "ttft=5"), "--goodput 'ttft=5' is not of the form KEY:VALUE"),
        (("--goodput", "ttft:x"), "--goodput holds 'x'"),
        (("--goodput", "itl:5"), "--goodput names 'itl'"),
        (("--metadata", "a"), "--metadata 'a' is not of the form KEY=VALUE"),
        (("--metric-percentiles", "50,x"), "--metric-percentiles holds 'x'"),
        (("--extra-body", "{"), "--extra-body is not JSON"),
        (("--extra-body", "[]"), "--extra-body is list"),
        (("--max-concurrency", "0"), "--max-concurrency 0 is not allowed"),
        (("--request-rate", "0"), "request_rate=0.0"),
        (("--metadata", "duration=1"), "is the name of a figure"),
        (("--html", "/dev/null/r.html"), "/dev/null/r.html cannot be written"),
        (("--skip-tokenizer-init",), "needs a tokenizer"),
        (("--tokenizer", "./no/such"), "./no/such"),
    ],
)
def test_refusals(serve, args, said):
    result = serve("--model", "stub", "--num-prompts", "2", *(args if "--tokenizer" in args else (*TOKENIZER, *args)))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and said in result.stderr


def test_a_list_needs_a_value(serve):
    for args in (("--goodput",), ("--goodput", "--seed", "1")):
        result = serve(*args)
        assert result.exit_code == 2
        assert "'--goodput' requires at least one value" in result.stderr


def test_no_server(albireo):
    result = albireo("bench", "serve", "--port", "9", *QUICK)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: there is no server at http://127.0.0.1:9: ")
