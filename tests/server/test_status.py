"""What the server shows: metrics that count exactly, accounts that add up, a picture of now, logs without texts."""

from __future__ import annotations

import itertools
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from albireo.api.sources.locate import BUNDLED
from albireo.server.app import routes
from albireo.server.endpoints.page import ASSETS
from albireo.server.serving import Serving
from albireo.server.settings import ServerSettings
from server_process import Server, wait_until

ASK: dict[str, Any] = {"prompt": "Once upon a secret time", "max_tokens": 40, "ignore_eos": True}
MESSAGES = [{"role": "user", "content": "Once"}]


def test_metrics_count_exactly(server: Server) -> None:
    before = server.metrics()
    for _ in range(3):
        got = server.http.post("/v1/completions", json={**ASK, "n": 2}).json()
    num_prompt = got["usage"]["prompt_tokens"]
    found = server.metrics_since(before)
    assert found["vllm:prompt_tokens_total"] == 3 * num_prompt
    assert found["vllm:generation_tokens_total"] == 240
    by_source = {each: total for each, total in sources(server).items() if each != "external_kv_transfer"}
    assert sum(by_source.values()) == server.metrics()["vllm:prompt_tokens_total"]
    assert by_source["local_cache_hit"] == server.metrics()["vllm:prompt_tokens_cached_total"]
    assert found["vllm:request_success_total"] == 6
    assert found["vllm:time_to_first_token_seconds_count"] == 3
    assert found["vllm:inter_token_latency_seconds_count"] == 3 * 2 * 39
    assert found["vllm:e2e_request_latency_seconds_count"] == 3
    assert found["vllm:request_params_n_sum"] == 6
    assert found["vllm:iteration_tokens_total_sum"] >= 240 - 6
    for name in (
        "num_requests_running", "num_requests_waiting", "num_requests_swapped", "kv_cache_usage_perc",
        "cpu_cache_usage_perc",
    ):  # fmt: skip
        assert found[f"vllm:{name}"] == 0


def sources(server: Server) -> dict[str, float]:
    """Prompt tokens by where they came from."""
    families = {family.name: family for family in text_string_to_metric_families(server.http.get("/metrics").text)}
    samples = families["vllm:prompt_tokens_by_source"].samples
    return {each.labels["source"]: each.value for each in samples if each.name.endswith("_total")}


def test_prometheus_can_read_them(server: Any) -> None:
    server.http.post("/v1/completions", json=ASK)
    families = {family.name: family for family in text_string_to_metric_families(server.http.get("/metrics").text)}
    for name in ("num_requests_running", "kv_cache_usage_perc", "prefix_cache_hits", "num_preemptions"):
        (sample, *_) = families[f"vllm:{name}"].samples
        assert sample.labels == {"model_name": "story", "engine": "0"}
    (info,) = families["vllm:cache_config_info"].samples
    assert info.labels["block_size"] == "16" and int(info.labels["num_gpu_blocks"]) > 0
    bounds = [s.labels["le"] for s in families["vllm:time_to_first_token_seconds"].samples if "le" in s.labels]
    assert bounds[:3] == ["0.001", "0.005", "0.01"] and bounds[-1] == "+Inf"


def test_an_account_adds_up(server: Any) -> None:
    server.http.post("/v1/completions", json=ASK)
    got = server.http.post("/v1/completions", json={**ASK, "prompt": [ASK["prompt"], "Another"], "n": 2})
    account = server.http.get(f"/v1/requests/{got.json()['id']}/explain").json()
    assert account["state"] == "over" and account["path"] == "/v1/completions"
    assert sum(account["parts"].values()) == pytest.approx(account["wall_s"], abs=1e-9)
    assert all(seconds >= 0 for seconds in account["parts"].values())
    assert [prompt["output_tokens"] for prompt in account["prompts"]] == [[40, 40], [40, 40]]
    assert account["queued_behind"] == {"running": 0, "waiting": 0, "waiting_prompt_tokens": 0}
    assert [prompt["num_prefill_chunks"] for prompt in account["prompts"]] == [1, 1]
    assert account["parts"]["grammar_s"] == account["parts"]["preempted_s"] == 0
    assert server.http.get("/v1/requests/cmpl-unknown/explain").status_code == 404


def test_prefill_chunks_grammars_and_preemptions_show_in_the_account(start: Any) -> None:
    """Eight blocks of 16 for two continuations that share two and need four more each, in steps of 16 tokens."""
    server = start("--num-gpu-blocks-override", "9", "--max-num-batched-tokens", "16", "--max-model-len", "100")
    ask = {**ASK, "prompt": "Once upon a time" + " very" * 29, "max_tokens": 50, "n": 2, "seed": 1}
    made = server.http.post("/v1/completions", json=ask).json()
    account = server.http.get(f"/v1/requests/{made['id']}/explain").json()
    (prompt,) = account["prompts"]
    assert 32 < prompt["prompt_tokens"] <= 48 and prompt["cached_tokens"] == 0
    assert prompt["num_prefill_chunks"] == 3
    assert prompt["num_preemptions"] > 0 and account["parts"]["preempted_s"] > 0
    assert sum(account["parts"].values()) == pytest.approx(account["wall_s"], abs=1e-9)
    made = server.http.post("/v1/completions", json={"prompt": "Once", "guided_regex": "[a-c]{5}"}).json()
    account = server.http.get(f"/v1/requests/{made['id']}/explain").json()
    assert account["parts"]["grammar_s"] > 0
    assert sum(account["parts"].values()) == pytest.approx(account["wall_s"], abs=1e-9)


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_timings_come_with_the_counts_when_asked_for(server: Any, path: str) -> None:
    prompt = {"prompt": "Once"} if path == "completions" else {"messages": [{"role": "user", "content": "Once"}]}
    ask = {**prompt, "max_tokens": 5, "ignore_eos": True}
    whole = server.http.post(f"/v1/{path}", json={**ask, "return_timings": True}).json()
    text = server.http.post(f"/v1/{path}", json={**ask, "return_timings": True, "stream": True}).text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert chunks[-1]["choices"] == [] and all(not chunk.get("usage") for chunk in chunks[:-1])
    parts = server.http.get(f"/v1/requests/{whole['id']}/explain").json()["parts"]
    for usage in (whole["usage"], chunks[-1]["usage"]):
        timings = usage["timings"]
        assert set(timings) == {"wall_s", *parts} and timings["decode_s"] > 0
        assert sum(timings.values()) - timings["wall_s"] == pytest.approx(timings["wall_s"], abs=1e-9)
    for quiet in ({}, {"return_timings": False}, {"return_timings": None}):
        assert "timings" not in server.http.post(f"/v1/{path}", json={**ask, **quiet}).json()["usage"]


def test_the_prefix_cache_shows_in_the_account(server: Any) -> None:
    long = {**ASK, "prompt": "There was a fox who liked to count: " + " one two three four five six" * 8}
    server.http.post("/v1/completions", json=long)
    name = server.http.post("/v1/completions", json={**long, "request_id": "cached"}).json()["id"]
    assert name == "cmpl-cached"
    (prompt,) = server.http.get(f"/v1/requests/{name}/explain").json()["prompts"]
    assert prompt["cached_tokens"] >= 16 and prompt["first_token_not_cached"] == prompt["cached_tokens"]


def blocks_of(runs: list[int]) -> list[int]:
    return [block for first, num in zip(runs[::2], runs[1::2], strict=True) for block in range(first, first + num)]


def first(events: Iterator[Any], is_it: Callable[[Any], bool], between: Callable[[], None] = lambda: None) -> Any:
    """The first event of a kind; fails when it does not come. between: called after each other one."""
    for event in itertools.islice(events, 3000):  # one in 20 ms while there is work, and a step may take long
        if is_it(event):
            return event
        between()
    raise AssertionError("no such event came")


def test_a_picture_of_now(start: Any) -> None:
    """Two continuations of one prompt hold the same blocks, and the picture shows it; then the blocks are kept."""
    server = start("--watch-interval", "0.02", is_poisoned=True)
    long = {**ASK, "prompt": "Once upon a time" + " very" * 60, "max_tokens": 400, "n": 2, "stream": True}
    with server.http.stream("GET", "/v1/stats") as stats:
        seen: list[Any] = []

        def read() -> Iterator[Any]:
            for line in stats.iter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:]))
                    yield seen[-1]

        events = read()
        assert next(events)["state"] == "ready"
        has_begun = threading.Event()

        def let_in() -> None:
            """As many steps as the prompt takes: how much of it one has depends on the machine."""
            while not has_begun.wait(0.01):
                if server.gate.is_holding():
                    server.gate.hold(1)

        server.gate.hold(1)
        threading.Thread(target=let_in, daemon=True).start()
        with server.http.stream("POST", "/v1/completions", json=long) as answer:
            lines = answer.iter_lines()  # kept: what is thrown away ends the request
            next(lines)
            has_begun.set()
            # A step an event: it cannot be over before it is seen.
            is_whole = lambda e: len(e["kv"]["sequences"]) == 2 and e["requests"]  # noqa: E731
            event = first(events, is_whole, lambda: server.gate.hold(1))
            tables = [blocks_of(sequence[6]) for sequence in event["kv"]["sequences"]]
            assert len(set(tables[0]) & set(tables[1])) >= 4
            (request,) = event["requests"]
            assert request["state"] == "running" and request["prompt_tokens"] > 60
            assert event["kv"]["sequences"][0][0] == request["key"]
            assert max(b for table in tables for b in table) < event["engine"]["num_blocks"]
            assert event["now"]["engine_bytes"] > 1 << 20
            server.gate.open()
        event = first(events, lambda e: not (e["requests"] or e["kv"]["sequences"]))
        assert set(tables[0][:4]) <= set(blocks_of(event["kv"]["cached"])), "what was the prompt's is kept"
    (over,) = [over for event in seen for over in event["over"]]
    assert over["key"] == request["key"] and set(over["finish_reasons"]) <= {"abort", "length"}
    steps = [step for event in seen for step in event["steps"]]
    assert all(seconds > 0 for _, seconds, _, _, _ in steps)
    assert sum(num_prompt for _, _, num_prompt, _, _ in steps) >= 60
    assert any(num_output == 2 * num for _, _, _, num_output, num in steps)
    wait_until(lambda: server.metrics()["vllm:num_requests_running"] == 0)


def test_the_log_has_a_line_a_request_and_no_text(server: Any) -> None:
    name = server.http.post("/v1/completions", json={**ASK, "request_id": "logged"}).json()["id"]
    (line,) = wait_until(lambda: [line for line in list(server.lines) if name in line])
    found = json.loads(line)
    assert (found["status"], found["output_tokens"], found["finish"]) == (200, 40, "length")
    assert found["queue_s"] + found["prefill_s"] + found["decode_s"] <= found["wall_s"]
    assert not any("secret" in line for line in server.lines)


def test_the_page_of_routes_fetches_nothing(server: Any) -> None:
    schema = server.http.get("/openapi.json").json()
    written = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    files = {*ASSETS, "/openapi.json", "/docs"}
    there = {
        (method, route.path.replace(":path", ""))
        for route in routes(Serving(ServerSettings(), {}))
        for method in (route.methods or ())
        if method != "HEAD" and (method == "POST" or route.path not in files)
    }
    assert written == there, "the schema has every route, and no other"
    for methods in schema["paths"].values():
        for operation in methods.values():
            assert operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")
    for method, path, media in (
        ("post", "/v1/chat/completions", {"application/json", "text/event-stream"}),
        ("get", "/v1/responses/{name}", {"application/json", "text/event-stream"}),
        ("get", "/metrics", {"text/plain"}),
        ("get", "/v1/models", {"application/json"}),
        ("post", "/sleep", set()),
    ):
        assert set(schema["paths"][path][method]["responses"]["200"].get("content", ())) == media
    queries = {each["name"]: each["schema"] for each in schema["paths"]["/v1/batches"]["get"]["parameters"]}
    assert queries["limit"] == {"type": "integer", "minimum": 1, "maximum": 100}
    assert schema["openapi"].startswith("3.1") and "/v1/chat/completions" in schema["paths"]
    names = schema["components"]["schemas"]
    references = set(json.dumps(schema).split("#/components/schemas/")[1:])
    assert all(reference.split('"')[0] in names for reference in references)
    page = server.http.get("/docs").text
    assert "/v1/completions" in page and "http" not in page.replace("httpx", "")
    assert server.http.get("/version").json()["version"]


def make_certificate(key: Path, cert: Path) -> None:
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl makes no certificate here")


def test_a_key_with_a_password_is_refused_and_no_password_asked_for(tmp_path: Path) -> None:
    """Not where it was started, by which all that is served would wait."""
    key, locked, cert = (tmp_path / name for name in ("key.pem", "locked.pem", "cert.pem"))
    make_certificate(key, cert)
    to_lock = ["openssl", "ec", "-in", key, "-out", locked, "-aes256", "-passout", "pass:secret"]
    subprocess.run(to_lock, check=True, capture_output=True)
    look = (
        "import os, sys; from albireo.server.certificate import check_certificate; "
        "from albireo.server.settings import ServerSettings; os.open(sys.argv[1], os.O_RDWR); "
        "check_certificate(ServerSettings(ssl_certfile=sys.argv[2], ssl_keyfile=sys.argv[3]))"
    )
    ours, theirs = os.openpty()
    try:  # a session of its own has the first terminal that it opens for its own
        command = [sys.executable, "-c", look, os.ttyname(theirs), str(cert), str(locked)]
        found = subprocess.run(command, start_new_session=True, capture_output=True, text=True, timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "without a password" in found.stderr


def test_https(start: Any, tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make_certificate(key, cert)
    server = start("--ssl-keyfile", str(key), "--ssl-certfile", str(cert), is_ready=False)
    assert server.url.startswith("https://")
    server.http.close()
    server.http = httpx.Client(
        base_url=server.url, trust_env=False, verify=ssl.create_default_context(cafile=str(cert)), timeout=60
    )
    server.wait_until_ready()
    assert server.http.post("/v1/completions", json=ASK).status_code == 200
    # one that is renewed is served to who comes then: first its files do not belong together
    host, port = server.url.removeprefix("https://").split(":")
    first = ssl.get_server_certificate((host, int(port)))
    assert first == cert.read_text()
    make_certificate(tmp_path / "new-key.pem", tmp_path / "new-cert.pem")
    (tmp_path / "new-cert.pem").rename(cert)
    server.wait_for('"event":"certificate_not_read"')
    assert ssl.get_server_certificate((host, int(port))) == first
    assert server.http.post("/v1/completions", json=ASK).status_code == 200, "on a connection that is open"
    (tmp_path / "new-key.pem").rename(key)
    server.wait_for('"event":"certificate_read"')
    assert ssl.get_server_certificate((host, int(port))) == cert.read_text() != first


def test_the_load_is_requests_that_are_not_over(killable: Server, open_stream: Any) -> None:
    server = killable
    assert server.http.get("/load").json() == {"server_load": 0}
    server.gate.hold(1)
    for _ in range(3):
        open_stream(server, {**ASK, "stream": True})
    wait_until(lambda: server.http.get("/load").json() == {"server_load": 3}, server)
    server.gate.open()
    wait_until(lambda: server.http.get("/load").json() == {"server_load": 0}, server)


def test_the_id_is_that_of_the_header_unless_it_is_in_use(killable: Server, open_stream: Any) -> None:
    server = killable

    def asked(header: str, **fields: Any) -> str:
        got = server.http.post("/v1/completions", json={**ASK, **fields}, headers={"x-request-id": header})
        assert got.headers["x-request-id"] == got.json()["id"]
        return str(got.json()["id"])

    assert asked("from-a-proxy") == "cmpl-from-a-proxy"
    assert server.http.get("/v1/requests/cmpl-from-a-proxy/explain").status_code == 200
    assert asked("from-a-proxy", request_id="mine") == "cmpl-mine"
    assert asked("with blanks in it").removeprefix("cmpl-").isalnum()
    embedded = server.http.post("/v1/embeddings", json={"input": "a"}, headers={"x-request-id": "e"})
    assert embedded.headers["x-request-id"].endswith("-e")
    server.gate.hold(1)
    open_stream(server, {**ASK, "stream": True}, "x-request-id: twice")
    wait_until(server.gate.is_holding, server)
    again = open_stream(server, {**ASK, "stream": True}, "x-request-id: twice")
    server.gate.open()
    head = again.recv(1 << 12)
    assert b" 200 " in head and b"x-request-id: cmpl-" in head and b"cmpl-twice" not in head


def test_what_vllms_flags_ask_for(start: Any, server: Any) -> None:
    told = start(
        "--enable-tokenizer-info-endpoint", "--enable-force-include-usage",
        "--override-generation-config", '{"temperature": 0, "max_new_tokens": 9}',
    )  # fmt: skip
    assert server.http.get("/tokenizer_info").status_code == 404
    info = told.http.get("/tokenizer_info").json()
    ours = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(BUNDLED)
    assert {name: info[name] for name in ("bos_token", "eos_token", "chat_template", "vocab_size")} == {
        "bos_token": ours.bos_token, "eos_token": ours.eos_token, "chat_template": ours.chat_template,
        "vocab_size": len(ours),
    }  # fmt: skip
    for path, prompt in (("completions", {"prompt": "a"}), ("chat/completions", {"messages": MESSAGES})):
        text = told.http.post(f"/v1/{path}", json={**prompt, "max_tokens": 3, "stream": True}).text
        chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        assert chunks[-1]["usage"]["completion_tokens"] > 0 and not chunks[-1]["choices"]
        usual = {**prompt, "ignore_eos": True}
        said = told.http.post(f"/v1/{path}", json=usual).json()
        assert said["usage"]["completion_tokens"] == 9, "as is recommended"
        greedy = told.http.post(f"/v1/{path}", json={**usual, "temperature": 0, "max_tokens": 9}).json()
        assert said["choices"] == greedy["choices"]


def test_the_servers_own_variables_for_the_template(start: Any, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(
        "{{ messages[0].content }} {{ enable_thinking }} {{ reasoning_effort }} {{ own }}"
    )
    server = start(
        "--chat-template", str(tmp_path / "t.jinja"), "--default-chat-template-kwargs",
        '{"enable_thinking": false, "reasoning_effort": "low", "own": "red ball"}',
    )  # fmt: skip

    def told(**fields: Any) -> str:
        ids = server.http.post("/tokenize", json={"messages": MESSAGES, **fields}).json()["tokens"]
        text = server.http.post("/detokenize", json={"tokens": ids}).json()["prompt"]
        chat = server.http.post("/v1/chat/completions", json={"messages": MESSAGES, "return_token_ids": True, **fields})
        assert chat.json()["prompt_token_ids"] == ids
        return str(text).split(" ", 1)[1]

    assert told() == "False low red ball"
    assert told(chat_template_kwargs={"enable_thinking": True}) == "True low red ball"
    refusal = server.http.post("/tokenize", json={"messages": MESSAGES, "chat_template_kwargs": {"own": "x"}})
    ask = {"messages": MESSAGES, "return_token_ids": True}
    for fields, is_thinking in (
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}}, False),
    ):
        asked = server.http.post("/v1/chat/completions", json={**ask, **fields}).json()
        text = server.http.post("/detokenize", json={"tokens": asked["prompt_token_ids"]}).json()["prompt"]
        assert text.endswith(f"{is_thinking} {fields['reasoning_effort']} red ball")
    assert refusal.status_code == 400
