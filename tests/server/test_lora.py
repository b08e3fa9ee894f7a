"""Adapters over HTTP: listed, chosen by name, loaded and unloaded while others run, and there again after a crash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.errors import ConfigError
from albireo.server.adapters import lora_module
from server_process import Server, wait_until
from tiny_adapters import make_adapter

CONFIG = json.loads((BUNDLED / "config.json").read_text())
FLAGS = ("--enable-lora", "--max-loras", "2", "--max-lora-rank", "8")
GREEDY = {"max_tokens": 16, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    return [make_adapter(root / f"a{i}", CONFIG, seed=i, rank=(4, 8, 2)[i]) for i in range(3)]


@pytest.fixture(scope="module")
def served(adapters: list[Path]) -> Iterator[Server]:
    """With the first two adapters; tests leave it so."""
    with ExitStack() as stack:
        made = Server(
            *FLAGS, "--lora-modules", f"first={adapters[0]}", f'{{"name": "second", "path": "{adapters[1]}"}}'
        )
        stack.callback(made.stop)
        yield made.wait_until_ready()


def post(server: Server, path: str, **body: Any) -> Any:
    return server.http.post(path, json=body)


def text(server: Server, model: str, **body: Any) -> str:
    answer = post(server, "/v1/completions", **{"model": model, "prompt": "Once upon a time", **GREEDY, **body})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    return str(answer.json()["choices"][0]["text"])


def test_models_lists_them_with_root_and_parent(served: Server, adapters: list[Path]) -> None:
    found = {each["id"]: (each["root"], each["parent"]) for each in served.http.get("/v1/models").json()["data"]}
    assert found == {
        "story": ("story", None),
        "first": (str(adapters[0]), "story"),
        "second": (str(adapters[1]), "story"),
    }
    assert served.http.get("/v1/models/second").json()["parent"] == "story"
    assert served.http.get("/v1/models/third").status_code == 404


def test_a_requests_model_chooses_one(served: Server) -> None:
    texts = [text(served, name) for name in ("story", "first", "second")]
    assert len(set(texts)) == 3
    assert [text(served, name) for name in ("story", "first", "second")] == texts
    chat = {"messages": [{"role": "user", "content": "Hello"}], **GREEDY}
    chats = []
    for name in ("story", "first"):
        answer = post(served, "/v1/chat/completions", model=name, **chat)
        chats.append(answer.json()["choices"][0]["message"]["content"] if answer.is_success else answer.status_code)
    assert chats[0] != chats[1] or chats[0] == 400  # without a template there is no chat
    vectors = [
        post(served, "/v1/embeddings", model=name, input="Once").json()["data"][0] for name in ("story", "first")
    ]
    assert vectors[0] != vectors[1]


def test_metrics_name_those_that_run(served: Server) -> None:
    text(served, "first")
    (line,) = (each for each in served.http.get("/metrics").text.splitlines() if each.startswith("vllm:lora"))
    assert 'max_lora="2"' in line and 'running_lora_adapters=""' in line


def test_loaded_and_unloaded_while_it_runs(served: Server, adapters: list[Path]) -> None:
    plain = text(served, "story")
    assert post(served, "/v1/completions", model="third", prompt="Once").status_code == 404
    loaded = post(served, "/v1/load_lora_adapter", lora_name="third", lora_path=str(adapters[2]))
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'third' added successfully.")
    third = text(served, "third")
    assert third not in (plain, text(served, "first"), text(served, "second"))
    taken = post(served, "/v1/load_lora_adapter", lora_name="third", lora_path=str(adapters[0]))
    assert taken.status_code == 400 and "in use" in taken.json()["error"]["message"]
    # another under the same name, which finds none of the blocks of the one before
    changed = post(served, "/v1/load_lora_adapter", lora_name="third", lora_path=str(adapters[0]), load_inplace=True)
    assert changed.status_code == 200 and text(served, "third") == text(served, "first")
    gone = post(served, "/v1/unload_lora_adapter", lora_name="third")
    assert (gone.status_code, gone.text) == (200, "Success: LoRA adapter 'third' removed successfully.")
    assert post(served, "/v1/completions", model="third", prompt="Once").status_code == 404
    assert post(served, "/v1/unload_lora_adapter", lora_name="third").status_code == 404
    assert text(served, "story") == plain


def test_one_that_does_not_fit_disturbs_nothing(served: Server, adapters: list[Path], tmp_path: Path) -> None:
    wide = make_adapter(tmp_path / "wide", CONFIG, rank=9)
    other = make_adapter(tmp_path / "other", {**CONFIG, "hidden_size": CONFIG["hidden_size"] + 2})
    wanted = text(served, "first")
    for path, word in ((wide, "rank 9, max_lora_rank=8"), (other, "lora_A of"), (tmp_path / "none", "has no")):
        answer = post(served, "/v1/load_lora_adapter", lora_name="bad", lora_path=str(path))
        assert answer.status_code == 400 and word in answer.json()["error"]["message"]
        assert answer.json()["error"]["code"] == "invalid_adapter"
    for name in ("story", "first"):
        answer = post(served, "/v1/load_lora_adapter", lora_name=name, lora_path=str(adapters[2]))
        assert answer.status_code == 400 and "in use" in answer.json()["error"]["message"]
    for body in ({"lora_name": "", "lora_path": "x"}, {"lora_name": "x"}, {"lora_name": "x", "lora_path": 3}):
        assert post(served, "/v1/load_lora_adapter", **body).status_code == 400
    assert text(served, "first") == wanted and served.http.get("/health").json()["num_restarts"] == 0


def test_a_stream_goes_on_with_its_adapter_in_the_next_process(
    start: Callable[..., Server], adapters: list[Path]
) -> None:
    """Also with one that nobody can choose any more."""
    server = start(*FLAGS, "--lora-modules", f"first={adapters[0]}", f"second={adapters[1]}", is_poisoned=True)
    names = ("second", "first")
    wanted = [text(server, name, max_tokens=60) for name in names]
    server.gate.hold(6)
    with ThreadPoolExecutor(2) as beside:
        answers = [beside.submit(text, server, "second", max_tokens=60)]
        wait_until(server.gate.is_holding, server)
        answers.append(beside.submit(text, server, "first", max_tokens=60))
        assert post(server, "/v1/unload_lora_adapter", lora_name="second").status_code == 200
        server.kill_held()
        server.gate.open()
        texts = [answer.result() for answer in answers]
    assert texts == wanted
    assert server.http.get("/health").json()["num_restarts"] == 1
    assert text(server, "first", max_tokens=60) == wanted[1]
    assert post(server, "/v1/completions", model="second", prompt="Once").status_code == 404


def test_a_directory_that_has_changed_is_not_taken_for_what_it_was(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    path = make_adapter(tmp_path / "mine", CONFIG, seed=1)
    server = start(*FLAGS, "--lora-modules", f"mine={path}", is_poisoned=True)
    plain = text(server, "story")
    make_adapter(path, CONFIG, seed=2)
    (worker,) = server.workers()
    server.gate.hold(0)
    with ThreadPoolExecutor(1) as beside:
        answers = [beside.submit(text, server, "story")]
        server.kill_held()
        server.gate.open()
        assert answers[0].result() == plain
    assert server.workers() != [worker]
    answer = post(server, "/v1/completions", model="mine", prompt="Once", **GREEDY)
    assert answer.status_code == 400 and "adapter" in answer.json()["error"]["message"]
    assert text(server, "story") == plain


def test_a_server_without_adapters_says_so(server: Server, adapters: list[Path]) -> None:
    answer = post(server, "/v1/load_lora_adapter", lora_name="x", lora_path=str(adapters[0]))
    assert answer.status_code == 400 and "--enable-lora" in answer.json()["error"]["message"]


def test_one_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    server = Server(*FLAGS, "--lora-modules", f"x={tmp_path}")
    try:
        assert server.wait_for_end() == 1
        assert any("lora_modules" in line and "adapter_config.json" in line for line in server.lines)
    finally:
        server.stop()


def test_an_open_address_is_warned_about_and_who_is_not_known_loads_nothing_from_afar(
    start: Callable[..., Server], adapters: list[Path]
) -> None:
    server = start(*FLAGS, "--host", "0.0.0.0", is_ready=False)
    server.wait_for("warning: 0.0.0.0 can be reached from other machines, and no --api-key is set")
    server.http.base_url = server.url.replace("0.0.0.0", "127.0.0.1")
    server.wait_until_ready()
    answer = post(server, "/v1/load_lora_adapter", lora_name="x", lora_path=str(adapters[0]))
    assert answer.status_code == 403 and "--api-key" in answer.json()["error"]["message"]


def test_modules_are_named_as_vllm_names_them() -> None:
    assert lora_module("a=/b=c") == ("a", "/b=c")
    assert lora_module('{"name": "a", "path": "b", "base_model_name": "story"}') == ("a", "b")
    for wrong in (
        "a",
        "=b",
        "a=",
        "{",
        '{"name": "a"}',
        '{"name": "a", "path": 1}',
        '{"name": "a", "path": "b", "x": 1}',
    ):
        with pytest.raises(ConfigError):
            lora_module(wrong)
