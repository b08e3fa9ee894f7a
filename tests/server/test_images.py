"""Pictures over HTTP: OpenAI's chats and responses, by its client, and Anthropic's messages; refusals; and an
engine that is killed while it answers about one."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from albireo import LLM, SamplingParams
from albireo.server.endpoints.page import HEADERS
from server_process import Server
from tiny_sights import picture, save

NUM_TOKENS = 10
PICTURE = picture(50, 30, 4)
GREEDY = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)


def png(image: Any = PICTURE) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


DATA_URL = "data:image/png;base64," + base64.b64encode(png()).decode()


class Served(NamedTuple):
    server: Server
    url: str
    answer: str


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """Where a picture can be fetched."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = png()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    there = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=there.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{there.server_port}/picture.png"
    there.shutdown()
    there.server_close()
    thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("sight"), "idefics3")


@pytest.fixture(scope="module")
def answer(folder: Path) -> str:
    """About the picture, of an engine in this process."""
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        parts = [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What is it?"}]
        return str(llm.chat([{"role": "user", "content": parts}], GREEDY, use_tqdm=False)[0].outputs[0].text)


@pytest.fixture(scope="module")
def served(folder: Path, host: str, answer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    files = tmp_path_factory.mktemp("files")
    (files / "picture.png").write_bytes(png())
    allowed = ["--allowed-media-domains", "127.0.0.1", "--allowed-local-media-path", str(files)]
    named = ["--dtype", "float32", "--served-model-name", "sight", "--limit-mm-per-prompt", '{"image": 2}']
    server = Server(str(folder), *named, *allowed, is_poisoned=True).wait_until_ready()
    yield Served(server, host, answer)
    server.stop()


def asked(*urls: str, **more: Any) -> list[dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": url, **more}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]


def chat(client: Any, messages: list[dict[str, Any]], **more: Any) -> Any:
    extra = {"ignore_eos": True}
    return client.chat.completions.create(
        model="sight", messages=messages, temperature=0, max_tokens=NUM_TOKENS, extra_body=extra, **more
    )


def test_openais_client_asks_about_a_picture(served: Served) -> None:
    client = served.server.client()
    file = "file://" + next(iter(Path(served.server.process.args[-1]).iterdir())).as_posix()
    for url in (DATA_URL, served.url, file):
        got = chat(client, asked(url))
        assert got.choices[0].message.content == served.answer
        assert got.usage.prompt_tokens > 60
    streamed = [chunk.choices[0].delta.content or "" for chunk in chat(client, asked(DATA_URL), stream=True)]
    assert "".join(streamed) == served.answer
    large = picture(900, 700, 1)
    url = "data:image/png;base64," + base64.b64encode(png(large)).decode()
    large.thumbnail((512, 512))
    small = "data:image/png;base64," + base64.b64encode(png(large)).decode()
    few, same = (chat(client, asked(*each[:1], **each[1])) for each in ((url, {"detail": "low"}), (small, {})))
    assert few.choices[0].message.content == same.choices[0].message.content


def test_chats_with_pictures_are_embedded(served: Served) -> None:
    """Of one picture always the same, of length 1, of another another."""
    other = "data:image/png;base64," + base64.b64encode(png(picture(60, 40, 1))).decode()
    found = []
    for url in (DATA_URL, DATA_URL, other):
        got = served.server.http.post("/v1/embeddings", json={"model": "sight", "messages": asked(url)})
        assert got.status_code == 200, got.text
        assert got.json()["usage"]["prompt_tokens"] > 60
        found.append(got.json()["data"][0]["embedding"])
    assert found[0] == found[1] and abs(sum(value * value for value in found[0]) - 1) < 1e-5
    assert max(abs(one - two) for one, two in zip(found[0], found[2], strict=True)) > 1e-3
    parts = asked(DATA_URL)[0]["content"]
    body = {"model": "sight", "messages": [{"role": "user", "content": parts * 3}]}
    got = served.server.http.post("/v1/embeddings", json=body)
    assert got.status_code == 400 and "limit_mm_per_prompt allows 2" in got.text


def test_responses_and_messages_have_pictures(served: Served) -> None:
    client = served.server.client()
    parts = [{"type": "input_image", "image_url": DATA_URL}, {"type": "input_text", "text": "What is it?"}]
    asking = {"model": "sight", "temperature": 0, "max_output_tokens": NUM_TOKENS, "extra_body": {"ignore_eos": True}}
    got = client.responses.create(input=[{"role": "user", "content": parts}], **asking)
    assert got.output_text == served.answer
    data = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png()).decode()}
    for source in (data, {"type": "url", "url": served.url}):
        blocks = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
        body = {"model": "sight", "max_tokens": NUM_TOKENS, "temperature": 0}
        body["messages"] = [{"role": "user", "content": blocks}]

        message = served.server.http.post("/v1/messages", json=body).json()
        assert message["content"][0]["text"] == served.answer, message


def test_ollamas_messages_and_prompts_have_pictures(served: Served) -> None:
    data = base64.b64encode(png()).decode()
    options = {"temperature": 0, "num_predict": NUM_TOKENS}
    asked = {"stream": False, "options": options}
    said = {"role": "user", "content": "What is it?", "images": [data]}
    got = served.server.http.post("/api/chat", json={**asked, "messages": [said]}).json()
    assert served.answer.startswith(got["message"]["content"]) and got["message"]["content"], got
    got = served.server.http.post("/api/generate", json={**asked, "prompt": "What is it?", "images": [data]}).json()
    assert served.answer.startswith(got["response"]) and got["response"], got
    assert "vision" in served.server.http.post("/api/show", json={"model": "sight"}).json()["capabilities"]


def test_what_a_tool_gives_may_be_a_picture(served: Served) -> None:
    """As agents look at files and at screens."""
    client = served.server.client()
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    parts = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": DATA_URL}}]
    told = {"role": "tool", "tool_call_id": "c", "content": parts}
    asking = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    wanted = chat(client, [*asking, told])
    assert wanted.usage.prompt_tokens > 60
    items: list[Any] = [
        asking[0],
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "c",
            "output": [{"type": "input_text", "text": "Look:"}, {"type": "input_image", "image_url": DATA_URL}],
        },
    ]
    options = {"model": "sight", "temperature": 0, "max_output_tokens": NUM_TOKENS, "extra_body": {"ignore_eos": True}}
    got = client.responses.create(input=items, **options)
    assert got.output_text == wanted.choices[0].message.content
    assert got.usage.input_tokens == wanted.usage.prompt_tokens
    data = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png()).decode()}
    blocks = [{"type": "text", "text": "Look:"}, {"type": "image", "source": data}]
    result = {"type": "tool_result", "tool_use_id": "c", "content": blocks}
    messages = [
        asking[0],
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "look", "input": {}}]},
        {"role": "user", "content": [result]},
    ]
    body: dict[str, Any] = {"model": "sight", "max_tokens": NUM_TOKENS, "temperature": 0, "messages": messages}
    message = served.server.http.post("/v1/messages", json=body).json()
    assert message["content"][0]["text"] == wanted.choices[0].message.content, message
    result["is_error"] = True
    failed = served.server.http.post("/v1/messages", json=body).json()
    assert failed["usage"]["input_tokens"] + failed["usage"]["cache_read_input_tokens"] > wanted.usage.prompt_tokens
    blocks.append({"type": "document", "source": {}})
    bad = served.server.http.post("/v1/messages", json=body)
    assert bad.status_code == 400
    assert "messages[2].content[0].content[2] is a block of type 'document'" in bad.text


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (asked("data:image/png;base64,AAAA"), "no picture"),
        (asked("data:text/html;base64,AAAA"), "data:image"),
        (asked("http://10.0.0.1/a.png"), "allowed-media-domains"),
        (asked("file:///etc/passwd"), "not below the folder"),
        (asked(DATA_URL, DATA_URL, DATA_URL), "limit_mm_per_prompt allows 2"),
        (asked(DATA_URL, detail="some"), "auto, high or low"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "without image_url"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "hears none"),
    ],
)
def test_refusals_say_what_is_wrong(served: Served, messages: Any, words: str) -> None:
    got = served.server.http.post("/v1/chat/completions", json={"model": "sight", "messages": messages})
    assert got.status_code == 400
    error = got.json()["error"]
    assert words in error["message"] and error["param"] == "messages"
    assert "AAAA" not in error["message"] or len(error["message"]) < 300


def test_a_model_of_text_says_so(server: Server) -> None:
    got = server.http.post("/v1/chat/completions", json={"model": "story", "messages": asked(DATA_URL)})
    assert got.status_code == 400 and "this model reads text only" in got.json()["error"]["message"]


def events(server: Server) -> Iterator[dict[str, Any]]:
    """Of /v1/stats."""
    with server.http.stream("GET", "/v1/stats") as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def test_watchers_learn_of_images(served: Served, server: Server) -> None:
    """Whether they are read, which the page asks before it offers to send some; and how many a request has."""
    assert next(events(server))["engine"]["reads_images"] is False
    watched = events(served.server)
    assert next(watched)["engine"]["reads_images"] is True
    with ThreadPoolExecutor(1) as asking:
        asking.submit(chat, served.server.client(), asked(DATA_URL, DATA_URL)).result()
    over = next(event["over"] for event in watched if event["over"])
    assert [request["num_images"] for request in over] == [2]
    # clients know the shape of these, so that the page learns it elsewhere
    (model,) = served.server.http.get("/v1/models").json()["data"]
    assert set(model) == {"id", "object", "created", "owned_by", "root", "parent", "max_model_len"}


def test_the_page_draws_pictures_without_leave_to_load_any(served: Served) -> None:
    policy = served.server.http.get("/").headers["content-security-policy"]
    assert policy == HEADERS["content-security-policy"] and "img-src 'self';" in policy
    script, shared = (served.server.http.get(f"/page/{name}.js").text for name in ("pictures", "attachments"))
    assert "createImageBitmap" in script
    assert not any(word in script + shared for word in ("new Image", ".src", "ObjectURL"))


def test_nobody_notices_that_the_engine_was_killed(served: Served) -> None:
    server = served.server
    server.gate.hold(4)
    with ThreadPoolExecutor(1) as asking:
        got = asking.submit(chat, server.client(), asked(DATA_URL))
        server.kill_held()
        server.gate.open()
        assert got.result().choices[0].message.content == served.answer


def test_a_prompt_that_sees_itself_is_one_in_another_process_too(tmp_path: Path) -> None:
    """How far it does, and what its blocks are known by, goes there with its picture."""
    folder = save(tmp_path, "paligemma")
    parts = [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What is it?"}]
    with LLM(str(folder), dtype="float32", num_threads=1) as llm:
        (output,) = llm.chat([{"role": "user", "content": parts}], GREEDY, use_tqdm=False)
    server = Server(str(folder), "--dtype", "float32", "--served-model-name", "sight").wait_until_ready()
    try:
        first, again = (chat(server.client(), asked(DATA_URL)) for _ in range(2))
    finally:
        server.stop()
    assert first.choices[0].message.content == again.choices[0].message.content == output.outputs[0].text
    assert first.usage.prompt_tokens_details.cached_tokens == 0 < again.usage.prompt_tokens_details.cached_tokens
