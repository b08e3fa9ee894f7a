"""Engines on two nodes of a Ray cluster on this machine, which die: by hand, with `pip install 'ray[serve]'`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from albireo import LLM
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from server_process import Server, has_ended, wait_until

ray = pytest.importorskip("ray", reason="ray is not installed; it is no dependency of the tests, being 70 MB")

pytestmark = pytest.mark.filterwarnings("ignore")
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = made.address
    yield made
    made.shutdown()
    del os.environ["RAY_ADDRESS"]
    if before is not None:
        os.environ["RAY_ADDRESS"] = before


@pytest.fixture(scope="module")
def server(cluster: Any) -> Iterator[Server]:
    made = Server("-dp", "2", "--num-threads", "2", "--distributed-executor-backend", "ray", is_poisoned=True)
    wait_until(lambda: made.http.get("/health").status_code == 200 and are_ready(made), made)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def expected() -> list[int]:
    llm = LLM(num_threads=1)
    params = llm.get_default_sampling_params().clone(max_tokens=60, seed=3, temperature=0.9, ignore_eos=True)
    return llm.generate(PROMPT, params)[0].outputs[0].token_ids


def are_ready(server: Server) -> bool:
    return all(each["status"] == "ok" for each in server.http.get("/health").json()["engines"])


def engine_of(server: Server, name: str) -> dict[str, Any]:
    (prompt,) = server.http.get(f"/v1/requests/cmpl-{name}/explain").json()["prompts"]
    return prompt


def ask(name: str) -> dict[str, Any]:
    sampling = {"max_tokens": 60, "seed": 3, "temperature": 0.9, "ignore_eos": True}
    return {"prompt": PROMPT, "request_id": name, "return_token_ids": True, **sampling}


def test_both_nodes_say_what_one_engine_says(server: Server, expected: list[int]) -> None:
    for name in ("a", "b"):
        made = server.http.post("/v1/completions", json=ask(name)).json()
        assert made["choices"][0]["token_ids"] == expected
    assert {engine_of(server, name)["engine"] for name in ("a", "b")} == {0, 1}


@pytest.mark.parametrize("victim", ["process", "actor"])
def test_a_stream_goes_on_at_the_other_node(server: Server, expected: list[int], victim: str) -> None:
    """Killed is the engine process, which its actor tells of; and the actor, which nobody tells of but Ray."""
    server.gate.hold(20)
    with server.http.stream("POST", "/v1/completions", json={**ask(victim), "stream": True}) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        wait_until(server.gate.is_holding, server)
        worker = server.gate.holder()
        parent = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        assert "ray::EngineActor" in Path(f"/proc/{parent}/cmdline").read_text()
        os.kill(worker if victim == "process" else parent, signal.SIGKILL)
        wait_until(lambda: has_ended(worker), server)
        server.gate.open()
        chunks = [first, *lines]
    ids = [token for chunk in chunks if chunk.startswith("data: {") for token in tokens_of(chunk)]
    assert ids == expected
    prompt = engine_of(server, victim)
    assert prompt["num_moves"] == 1 and prompt["num_restarts"] == 0
    wait_until(lambda: are_ready(server), server)


def tokens_of(chunk: str) -> list[int]:
    import json

    return [token for choice in json.loads(chunk[6:])["choices"] for token in choice["token_ids"]]


def test_a_cluster_that_is_too_small(cluster: Any) -> None:
    words = ["serve", "--port", "0", "-dp", "3", "--num-threads", "3", "--distributed-executor-backend", "ray"]
    made = subprocess.run([sys.executable, "-m", "albireo", *words], capture_output=True, text=True, timeout=60)
    assert made.returncode == 1
    assert "data_parallel_size=3 with 1 threads each does not fit the 3 nodes" in made.stderr


def test_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from albireo.distributed import places

    def none_there(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nMore.")

    monkeypatch.setattr(places.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(places.ray, "init", none_there)
    with pytest.raises(ConfigError, match=r"there is no Ray cluster to join .*ray start --head"):
        places.ray_places(EngineConfig(data_parallel_size=2))


def test_a_deployment_of_ray_serve(cluster: Any) -> None:
    """Its application begins and ends with Serve's replica, and answers as the server does."""
    pytest.importorskip("ray.serve", reason="needs ray[serve]")
    import httpx2 as httpx
    from ray import serve

    from albireo.distributed.deployment import deployment

    cluster.add_node(num_cpus=1)  # the others are taken
    ray.init(address=cluster.address, logging_level="error")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 8974})
        serve.run(deployment({"num_threads": 1}, num_cpus=0.5), name="albireo")
        with httpx.Client(base_url="http://127.0.0.1:8974", trust_env=False, timeout=60) as http:
            wait_until(lambda: http.get("/health").status_code == 200)
            assert http.get("/v1/models").json()["data"][0]["id"] == "story"
            made = http.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 5, "ignore_eos": True}).json()
            assert made["usage"]["completion_tokens"] == 5
    finally:
        serve.shutdown()
        ray.shutdown()
