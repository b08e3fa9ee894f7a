"""Several models behind one server: each answers by its name, and has the memory when it is asked."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from albireo import LLM, SamplingParams
from albireo.api.sources.locate import BUNDLED
from albireo.errors import EngineError
from albireo.replicas.place import local_places
from albireo.server.app_of_several import TEXT_ONLY, WAKING
from albireo.server.conversation_store import ConversationStore
from albireo.server.endpoints.docs import openapi
from albireo.server.serving import Serving
from albireo.server.settings import ServerSettings
from albireo.server.several import Model
from server_process import Server, has_ended, wait_until

ASK: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled one; one that says something else; one that is damaged."""
    folder = tmp_path_factory.mktemp("models")
    found = {name: Path(shutil.copytree(BUNDLED, folder / name)) for name in ("long", "short", "damaged")}
    config = json.loads((found["short"] / "config.json").read_text())
    config["rms_norm_eps"] = 0.5
    (found["short"] / "config.json").write_text(json.dumps(config))
    weights = found["damaged"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return found


@pytest.fixture(scope="module")
def both(models: dict[str, Path]) -> Iterator[Server]:
    """One model at a time, and one that cannot be loaded; steps can be held."""
    made = Server(*(str(models[name]) for name in ("long", "short", "damaged")), "--switch-after", "0",
                  is_poisoned=True).wait_until_ready()  # fmt: skip
    yield made
    assert made.stop() == 0


def texts(server: Server, model: str | None, **fields: Any) -> Any:
    answer = server.http.post("/v1/completions", json={**ASK, **fields, **({} if model is None else {"model": model})})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def statuses(server: Server) -> dict[str, str]:
    return {each["name"]: each["status"] for each in server.http.get("/health").json()["models"]}


def health_of(server: Server, model: str) -> dict[str, Any]:
    (found,) = (each for each in server.http.get("/health").json()["models"] if each["name"] == model)
    return dict(found)


def wait_for_pause(server: Server) -> None:
    """Until who asks for the damaged one has it tried again, and is not refused at once."""
    wait_until(lambda: not health_of(server, "damaged").get("retry_s"), server)


def waiting(server: Server) -> dict[str, int]:
    return {each["name"]: each["num_waiting"] for each in server.http.get("/health").json()["models"]}


@pytest.fixture(scope="module")
def alone(models: dict[str, Path], server: Server) -> dict[str, str]:
    """What each says where there is no other."""
    params = SamplingParams(temperature=0.0, max_tokens=ASK["max_tokens"])
    with LLM(str(models["short"]), num_threads=1) as short:
        said = short.generate(ASK["prompt"], params, use_tqdm=False)[0].outputs[0].text
    found = {"long": texts(server, None), "short": said}
    assert found["long"] != found["short"]
    return found


def test_each_answers_by_its_name_and_the_other_gives_its_memory_back(both: Server, alone: dict[str, str]) -> None:
    assert texts(both, None) == alone["long"]
    (worker,) = both.workers()
    for name in ("short", "long"):
        assert texts(both, name) == alone[name]
        assert has_ended(worker)
        (worker,) = both.workers()
        asleep = "long" if name == "short" else "short"
        assert statuses(both) | {"damaged": ""} == {name: "ok", asleep: "asleep", "damaged": ""}
    # who counts tokens needs no engine
    assert both.http.post("/tokenize", json={"prompt": "a fox", "model": "long"}).json()["count"] > 0
    assert both.workers() == [worker]
    answer = both.http.post("/v1/completions", json={**ASK, "model": "short", "request_id": "known"})
    assert both.http.get(f"/v1/requests/{answer.json()['id']}/explain").json()["state"] == "over"
    assert both.http.get("/v1/requests/nobody/explain").status_code == 404
    kept = both.http.post("/v1/responses", json={"input": "A fox", "model": "short", "max_output_tokens": 16}).json()
    assert texts(both, "long") and both.http.get(f"/v1/responses/{kept['id']}").json()["id"] == kept["id"]


def test_who_streams_is_waited_for_and_who_keeps_asking_gives_way(
    both: Server, alone: dict[str, str], open_stream: Any
) -> None:
    wait_for_pause(both)
    # the files of one that was never awake are looked at first, and others go on for as long
    assert texts(both, "short") == alone["short"] and texts(both, "long") == alone["long"]
    both.gate.hold(1)
    open_stream(both, {**ASK, "model": "long", "stream": True})
    wait_until(both.gate.is_holding, both)
    said: dict[str, str] = {}

    def ask(key: str, model: str) -> None:
        said[key] = texts(both, model, request_id=key)

    asking = [threading.Thread(target=ask, args=("first", "short"))]
    asking[0].start()
    wait_until(lambda: waiting(both) == {"long": 0, "short": 1, "damaged": 0}, both)
    asking.append(threading.Thread(target=ask, args=("second", "long")))
    asking[1].start()
    wait_until(lambda: waiting(both) == {"long": 1, "short": 1, "damaged": 0}, both)
    # of those that wait one leaves, and one has waited long enough
    open_stream(both, {**ASK, "model": "damaged"}).close()
    late = both.http.post("/v1/completions", json={**ASK, "model": "damaged"}, headers={"x-request-timeout": "0.05"})
    assert late.status_code == 504 and late.json()["error"]["code"] == "deadline_exceeded"
    wait_until(lambda: waiting(both)["damaged"] == 0, both)
    assert both.http.post("/sleep").status_code == 409
    both.gate.open()
    for each in asking:
        each.join(60)
    assert said == {"first": alone["short"], "second": alone["long"]}
    parts = both.http.get("/v1/requests/cmpl-second/explain").json()["parts"]
    assert parts["admission_s"] > 0.01
    events = [json.loads(line) for line in list(both.lines) if line.startswith("{")]
    order = [(each.get("event"), each.get("model")) for each in events if each.get("model")]
    assert order[-4:] == [("asleep", "long"), ("awake", "short"), ("asleep", "short"), ("awake", "long")]
    streamed = [each for each in events if each.get("path") == "/v1/completions" and each.get("finish")]
    assert {(each["status"], each["output_tokens"]) for each in streamed} == {(200, 12)}


def test_a_killed_engine_comes_back_and_gives_way(both: Server, alone: dict[str, str]) -> None:
    assert texts(both, "long") == alone["long"]
    both.gate.hold(1)
    said: list[str] = []
    asking = threading.Thread(target=lambda: said.append(texts(both, "long")))
    asking.start()
    both.kill_held()
    both.gate.open()
    assert texts(both, "short") == alone["short"]
    asking.join(60)
    assert said == [alone["long"]] and statuses(both)["short"] == "ok"
    (worker,) = both.workers()
    os.kill(worker, signal.SIGKILL)
    assert texts(both, "long") == alone["long"] and texts(both, "short") == alone["short"]


def test_one_that_cannot_be_loaded_fails_alone(both: Server, alone: dict[str, str]) -> None:
    def num_tries() -> int:
        return len([line for line in list(both.lines) if "damaged cannot be started" in line])

    wait_for_pause(both)
    before = num_tries()
    assert texts(both, "long") == alone["long"]
    awake = both.workers()
    refusal = both.http.post("/v1/completions", json={**ASK, "model": "damaged"})
    assert refusal.status_code == 503 and refusal.json()["error"]["code"] == "model_not_loaded"
    # nobody was put to sleep for it: its files said so before
    assert "safetensors" not in refusal.text and both.workers() == awake
    health = both.http.get("/health")
    assert (health.status_code, health.json()["status"], statuses(both)["damaged"]) == (503, "failed", "failed")
    for _ in range(4):  # a pause of 16 s at least, in which a slow machine loads another model, too
        assert both.http.post("/wake_up?model=damaged").status_code == 503
    wait_until(lambda: num_tries() == before + 5, both)  # lines are read by a thread
    assert 4 < health_of(both, "damaged")["retry_s"] <= 60
    # until then nobody is put to sleep for it
    assert texts(both, "short") == alone["short"]
    workers = both.workers()
    again = both.http.post("/v1/completions", json={**ASK, "model": "damaged"})
    assert again.status_code == 503 and int(again.headers["retry-after"]) >= 1
    assert both.workers() == workers and num_tries() == before + 5
    both.wait_for("damaged cannot be started: .*safetensors")


def counted(server: Server) -> dict[Any, float]:
    """What counters and histograms say, by name and labels."""
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(server.http.get("/metrics").text)
        if family.type in ("counter", "histogram")
        for each in family.samples
        if not each.name.endswith("_created")
    }


def test_one_that_cannot_be_started_again_is_made_anew_when_it_is_asked(both: Server, alone: dict[str, str]) -> None:
    assert texts(both, "short", request_id="before") == alone["short"]
    before = counted(both)
    (worker,) = both.workers()
    both.gate.break_one()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: statuses(both)["short"] == "failed", both)
    assert both.http.get("/health").status_code == 503
    assert texts(both, "long") == alone["long"]
    assert all(value >= before[key] for key, value in counted(both).items() if key in before)
    assert before.keys() <= counted(both).keys()
    assert texts(both, "short") == alone["short"]
    after, tokens = counted(both), ("vllm:generation_tokens_total", (("engine", "0"), ("model_name", "short")))
    assert all(after[key] >= value for key, value in before.items())
    assert after[tokens] == before[tokens] + ASK["max_tokens"]
    assert both.http.get("/v1/requests/cmpl-before/explain").json()["state"] == "over"
    both.gate.break_one()
    assert both.http.post("/v1/completions", json={**ASK, "model": "long"}).status_code == 503
    assert statuses(both)["long"] == "asleep"
    wait_until(lambda: not health_of(both, "long").get("retry_s"), both)
    assert texts(both, "long") == alone["long"]


def test_pauses_before_it_is_tried_again_double_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Serving) -> None:
        raise EngineError("damaged")

    clock = SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 0.0, now=100.0)
    monkeypatch.setattr("albireo.server.several.time", clock)
    monkeypatch.setattr(Serving, "load", fail)

    async def main() -> None:
        model = Model(ServerSettings(), {}, local_places(), ConversationStore())
        assert (model.retry_s, model.status) == (0, "unloaded")
        for pause_s in (1, 2, 4, 8, 16, 32, 60, 60):
            with pytest.raises(EngineError, match="damaged"):
                await model.start()
            assert (model.retry_s, model.status) == (pause_s, "failed")
            clock.now += pause_s - 0.5
            assert model.retry_s == 0.5
            clock.now += 1
            assert model.retry_s == 0
        await model.serving.close()

    asyncio.run(main())


def test_without_the_first_there_is_no_server(models: dict[str, Path]) -> None:
    server = Server(str(models["damaged"]), str(models["long"]))
    try:
        assert server.wait_for_end() == 1 and "safetensors" in server.lines[-1]
    finally:
        server.stop()


def test_what_is_told_is_of_all(both: Server) -> None:
    assert texts(both, "long") and texts(both, "short")
    client = both.client()
    assert [model.id for model in client.models.list()] == ["long", "short", "damaged"]
    assert client.models.retrieve("short").id == "short"
    with pytest.raises(openai.NotFoundError, match="long, short, damaged"):
        client.completions.create(model="other", prompt="a")
    assert both.http.get("/v1/models/other").status_code == 404
    assert both.http.get("/v1/models/").json() == both.http.get("/v1/models").json()
    assert both.http.post("/v1/completions/", json={}).headers["location"] == "../completions"
    families = list(text_string_to_metric_families(both.http.get("/metrics").text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        samples = [(each.name, tuple(sorted(each.labels.items()))) for each in family.samples]
        assert len(set(samples)) == len(samples)
        if family.name.startswith("albireo:model_"):
            assert {each.labels["model_name"] for each in family.samples} == {"long", "short", "damaged"}
        elif family.samples:
            assert {each.labels["model_name"] for each in family.samples} <= {"long", "short"}
    (status,) = (family for family in families if family.name == "albireo:model_status")
    told = {each.labels["model_name"]: each.labels["status"] for each in status.samples}
    assert told == statuses(both) and (told["long"], told["short"]) == ("asleep", "ok")
    (running,) = (family for family in families if family.name == "vllm:generation_tokens")
    assert {each.labels["model_name"] for each in running.samples} == {"long", "short"}
    with both.http.stream("GET", "/v1/stats?model=short") as stats:
        assert next(stats.iter_lines()).startswith("data: {")
    assert both.http.get("/v1/stats?model=other").status_code == 404
    assert both.http.get("/").status_code == 200 and both.http.post("/v1/files").status_code >= 400
    bad = both.http.post("/v1/completions", content=b"{")
    assert bad.status_code == 400 and both.http.post("/v1/completions", json={"model": 5}).status_code == 400


def test_one_is_sent_to_sleep_and_woken_by_name(both: Server) -> None:
    assert texts(both, "short")
    assert both.http.post("/sleep?model=short").status_code == 200 and both.workers() == []
    assert both.http.get("/is_sleeping").json() == {"is_sleeping": True}
    assert both.http.post("/wake_up?model=long").status_code == 200
    assert both.http.get("/is_sleeping?model=long").json() == {"is_sleeping": False}
    assert both.http.get("/is_sleeping?model=short").json() == {"is_sleeping": True}
    assert both.http.post("/sleep").status_code == 200 and both.workers() == []
    assert both.http.post("/wake_up").status_code == 200 and statuses(both)["long"] == "ok"
    assert both.http.post("/sleep?model=other").status_code == 404


def test_ollamas_clients_name_them_and_give_their_memory_back(both: Server, alone: dict[str, str]) -> None:
    options = {"temperature": 0, "num_predict": ASK["max_tokens"]}
    ask = {"prompt": ASK["prompt"], "raw": True, "stream": False, "options": options}
    http = both.http
    for name in ("short:latest", "long"):
        got = http.post("/api/generate", json={**ask, "model": name}).json()
        assert got["response"] == alone[name.removesuffix(":latest")] and got["load_duration"] > 0
        told = [each["name"] for each in http.get("/api/ps").json()["models"]]
        assert told == [name if ":" in name else f"{name}:latest"]
    names = [each["name"] for each in http.get("/api/tags").json()["models"]]
    assert names == ["long:latest", "short:latest", "damaged:latest"]
    shown = {name: http.post("/api/show", json={"model": name}).json() for name in ("short", "damaged")}
    assert shown["short"]["details"]["family"] == "llama" and shown["damaged"]["details"]["family"] == ""
    # one that sleeps, and one that was never loaded, are not woken for it
    for name in ("short", "damaged"):
        assert http.post("/api/generate", json={"model": name, "keep_alive": 0}).json()["done_reason"] == "unload"
    assert statuses(both)["long"] == "ok" and len(both.workers()) == 1
    assert http.post("/api/chat", json={"model": "long", "messages": [], "keep_alive": "0s"}).status_code == 200
    wait_until(lambda: statuses(both)["long"] == "asleep" and not both.workers(), both)
    assert http.post("/api/generate", json={"model": "long"}).json()["done_reason"] == "load"
    assert statuses(both)["long"] == "ok"
    assert "other" in http.post("/api/chat", json={"model": "other"}).json()["error"]


def test_they_sleep_by_themselves_and_at_the_end_who_waits_is_told_and_who_runs_is_finished(
    models: dict[str, Path], start: Any, alone: dict[str, str]
) -> None:
    server = start(str(models["long"]), str(models["short"]), "--sleep-after", "0.2", is_poisoned=True)
    for name in ("short", "long"):
        wait_until(lambda: not server.workers(), server)
        assert texts(server, name) == alone[name]
    wait_until(lambda: set(statuses(server).values()) == {"asleep"}, server)
    assert server.http.get("/health").status_code == 200
    server.gate.hold(1)
    said: dict[str, Any] = {}

    def ask(model: str) -> None:
        said[model] = server.http.post("/v1/completions", json={**ASK, "model": model})

    asking = [threading.Thread(target=ask, args=(model,)) for model in ("long", "short")]
    asking[0].start()
    wait_until(server.gate.is_holding, server)
    asking[1].start()
    wait_until(lambda: waiting(server)["short"] == 1, server)
    server.process.send_signal(signal.SIGTERM)
    asking[1].join(60)
    assert said["short"].status_code == 503 and said["short"].json()["error"]["code"] == "shutting_down"
    server.gate.open()
    asking[0].join(60)
    assert said["long"].json()["choices"][0]["text"] == alone["long"] and server.wait_for_end() == 0


def test_a_form_names_its_model_too(both: Server) -> None:
    def send(name: str) -> Any:
        return both.http.post("/v1/audio/transcriptions", files={"file": ("a.wav", b"RIFF")}, data={"model": name})

    assert texts(both, "long") and send("short").json()["error"]["param"] == "model"
    assert statuses(both)["short"] == "ok" and send("other").json()["error"]["code"] == "model_not_found"


def test_two_may_be_awake(models: dict[str, Path], start: Any) -> None:
    names = (f"a={models['long']}", f"b={models['short']}", f"c={models['long']}")
    server = start(*names, "--max-awake-models", "2", "--api-key", "sesame", is_ready=False)
    server.wait_for(" is ready after .* s; 2 more when asked for")
    assert server.http.get("/v1/models").status_code == 401
    server.http.headers["authorization"] = "Bearer sesame"
    assert texts(server, "a") and texts(server, "b") and len(server.workers()) == 2
    assert texts(server, "a") and texts(server, "c") and len(server.workers()) == 2
    assert statuses(server) == {"a": "ok", "b": "asleep", "c": "ok"}
    infos = [line for line in server.http.get("/metrics").text.splitlines() if "cache_config_info{" in line]
    assert len(infos) == 3 and all('gpu_memory_utilization="0.45"' in line for line in infos)


def test_each_route_with_a_body_is_one_that_a_model_is_chosen_for() -> None:
    others = {"/v1/batches", "/v1/files", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/sleep", "/wake_up",
              "/reset_prefix_cache", "/ping", "/api/show", "/api/pull", "/api/push", "/api/create",
              "/api/copy", "/props", "/v1/conversations", "/pause", "/resume", "/abort_requests",
              "/inference/v1/abort_requests"}  # fmt: skip
    posts = {path for path, methods in openapi()["paths"].items() if "post" in methods and "{" not in path}
    assert posts == {*WAKING, *TEXT_ONLY, *others}


def test_one_or_all_are_paused(both: Server) -> None:
    def paused(model: str = "") -> bool:
        return bool(both.http.get("/is_paused", params={"model": model} if model else {}).json()["is_paused"])

    assert both.http.post("/v1/completions", json={**ASK, "model": "short"}).status_code == 200
    assert both.http.post("/pause?model=short").json() == {"status": "paused"}
    assert (paused("short"), paused("long"), paused()) == (True, False, False)
    assert both.http.post("/v1/completions", json={**ASK, "model": "long"}).status_code == 200
    assert statuses(both)["short"] == "paused"
    assert both.http.post("/pause").json() == {"status": "paused"} and paused()
    assert both.http.post("/resume").json() == {"status": "resumed"} and not paused("short")
    assert both.http.post("/pause?model=other").status_code == 404
    assert both.http.post("/v1/completions", json={**ASK, "model": "short"}).status_code == 200


def test_prefixes_of_one_or_of_all_are_forgotten(both: Server) -> None:
    def cached(model: str) -> int:
        answer = both.http.post("/v1/completions", json={**ASK, "model": model, "prompt": [9] * 40}).json()
        found: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return found

    kept = both.http.post("/api/generate", json={"model": "short", "keep_alive": -1})
    assert kept.json()["done_reason"] == "load", "another test has it sleep as soon as it rests"
    assert both.http.post("/reset_prefix_cache").status_code == 200
    assert (cached("long"), cached("long")) == (0, 32)
    assert both.http.post("/reset_prefix_cache?model=short").status_code == 200
    assert cached("long") == 32
    assert both.http.post("/reset_prefix_cache?model=long").status_code == 200
    assert cached("long") == 0
    assert both.http.post("/reset_prefix_cache").status_code == 200
    assert cached("long") == 0
    refusal = both.http.post("/reset_prefix_cache?reset_external=true")
    assert refusal.status_code == 400 and refusal.json()["error"]["param"] == "model"
    assert both.http.post("/reset_prefix_cache?reset_external=true&model=short").status_code == 200
    assert statuses(both)["short"] == "ok", "it was woken for its files"
