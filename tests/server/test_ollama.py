"""Ollama's protocol: chats, generations, embeddings, models, refusals. Real clients are tried by `make clients`."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import UNSET

from albireo.api.sources.locate import BUNDLED
from albireo.server.dialect import Dialect
from albireo.server.dialects.ollama_messages import messages_of
from albireo.server.dialects.ollama_options import options_of, sampling_of
from albireo.server.endpoints.ollama import Answer, ChatTelling
from albireo.server.errors import HttpError
from albireo.server.keep_alive import seconds
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.ollama import Message
from albireo.server.streaming import Piece
from server_process import Server, wait_until
from tool_asks import TEMPLATE, TOOLS

OPTIONS: dict[str, Any] = {"num_predict": 12, "temperature": 0}
SAY: list[dict[str, Any]] = [{"role": "user", "content": "Once upon a time"}]
ASK: dict[str, Any] = {"model": "story", "messages": SAY, "options": OPTIONS, "stream": False}
TEXT: dict[str, Any] = {"model": "story", "prompt": "Once upon a time", "options": OPTIONS, "stream": False}
COUNTS = ("prompt_eval_count", "eval_count")
TIMES = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def post(server: Any, path: str, **ask: Any) -> dict[str, Any]:
    got = server.http.post(f"/api/{path}", json=ask)
    assert got.status_code == 200, got.text
    found: dict[str, Any] = got.json()
    return found


def lines(server: Any, path: str, **ask: Any) -> list[dict[str, Any]]:
    got = server.http.post(f"/api/{path}", json={name: value for name, value in ask.items() if name != "stream"})
    assert got.headers["content-type"] == "application/x-ndjson", got.text
    return [json.loads(line) for line in got.text.splitlines()]


def openai_chat(server: Any, **change: Any) -> dict[str, Any]:
    ask = {"messages": SAY, "max_tokens": 12, "temperature": 0, **change}
    found: dict[str, Any] = server.http.post("/v1/chat/completions", json=ask).json()
    return found


def refusal(server: Any, path: str, method: str = "POST", **ask: Any) -> tuple[int, str]:
    got = server.http.request(method, f"/api/{path}", json=ask)
    assert list(got.json()) == ["error"]
    return got.status_code, got.json()["error"]


def test_it_answers_as_a_chat_does_whole_and_in_lines(server: Server) -> None:
    wanted = openai_chat(server)
    whole = post(server, "chat", **ASK)
    assert whole["message"] == {"role": "assistant", "content": wanted["choices"][0]["message"]["content"]}
    assert (whole["done"], whole["done_reason"], whole["model"]) == (True, "length", "story")
    assert [whole[name] for name in COUNTS] == [wanted["usage"]["prompt_tokens"], 12]
    assert all(type(whole[name]) is int for name in TIMES) and whole["total_duration"] > whole["eval_duration"] > 0
    *parts, last = lines(server, "chat", **ASK)
    assert "".join(each["message"]["content"] for each in parts) == whole["message"]["content"]
    assert not any(each["done"] or "done_reason" in each for each in parts)
    assert (last["done"], last["done_reason"], last["message"]["content"]) == (True, "length", "")
    assert [last[name] for name in COUNTS] == [whole[name] for name in COUNTS]


def test_a_generation_is_a_chat_of_one_message_or_a_raw_text(server: Server) -> None:
    whole = post(server, "generate", **TEXT, system="A story.")
    messages = [{"role": "system", "content": "A story."}, *SAY]
    assert whole["response"] == openai_chat(server, messages=messages)["choices"][0]["message"]["content"]
    parts = lines(server, "generate", **TEXT, system="A story.")
    assert "".join(each["response"] for each in parts) == whole["response"]
    raw = post(server, "generate", **TEXT, raw=True)
    ask = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}
    plain = server.http.post("/v1/completions", json={**ask, "return_token_ids": True}).json()["choices"][0]
    assert raw["response"] == plain["text"] and "context" not in raw
    first = post(server, "generate", **TEXT)
    assert first["context"] == [*plain["prompt_token_ids"], *plain["token_ids"]]  # the template adds nothing
    more = post(server, "generate", **{**TEXT, "prompt": " And"}, context=first["context"])
    ids = server.http.post("/tokenize", json={"prompt": " And", "add_special_tokens": False}).json()["tokens"]
    wanted = server.http.post("/v1/completions", json={**ask, "prompt": [*first["context"], *ids]}).json()
    assert more["response"] == wanted["choices"][0]["text"]
    assert more["prompt_eval_count"] == len(first["context"]) + len(ids)
    # what the system says is said again, as there: it may be another thing each time
    told = post(server, "generate", **{**TEXT, "prompt": " And"}, system="A poem.", context=first["context"])
    ids = server.http.post("/tokenize", json={"messages": [
        {"role": "system", "content": "A poem."}, {"role": "user", "content": " And"},
    ]}).json()["tokens"]  # fmt: skip
    assert told["context"][: told["prompt_eval_count"]] == [*first["context"], *ids[1:]]


def test_options_are_those_of_a_chat(server: Server) -> None:
    word = openai_chat(server)["choices"][0]["message"]["content"].split()[3]
    for options, same in (
        ({"stop": word}, {"stop": word}),
        ({"stop": [word]}, {"stop": [word]}),
        ({"repeat_penalty": 1.5}, {"repetition_penalty": 1.5}),
        ({"frequency_penalty": 1.5, "presence_penalty": 1},
         {"frequency_penalty": 1.5, "presence_penalty": 1, "repeat_last_n": 64}),
        ({"repeat_penalty": 1.5, "repeat_last_n": 2}, {"repetition_penalty": 1.5, "repeat_last_n": 2}),
        ({"repeat_penalty": 1.5, "repeat_last_n": 0}, {}),
        ({"temperature": 1, "seed": 3, "top_k": 5, "top_p": 0.9, "min_p": 0.01},
         {"temperature": 1, "seed": 3, "top_k": 5, "top_p": 0.9, "min_p": 0.01}),
    ):  # fmt: skip
        got = post(server, "chat", **{**ASK, "options": {**OPTIONS, **options}})
        wanted = openai_chat(server, **same)["choices"][0]
        assert (got["message"]["content"], got["done_reason"]) == (
            wanted["message"]["content"],
            wanted["finish_reason"],
        ), options
    unbounded = post(server, "chat", **{**ASK, "options": {**OPTIONS, "num_predict": -1, "stop": [word]}})
    assert unbounded["done_reason"] == "stop" and unbounded["eval_count"] < 12


def test_what_clients_always_send_asks_for_nothing(server: Server) -> None:
    neutral = {
        "num_ctx": 512.0, "num_keep": 4, "mirostat": 0, "mirostat_eta": 0.1, "mirostat_tau": 5.0, "typical_p": 1.0,
        "tfs_z": 1, "repeat_last_n": 64, "repeat_penalty": 1.0, "penalize_newline": True, "num_gpu": -1, "main_gpu": 0,
        "num_thread": 0, "low_vram": False, "f16_kv": True, "use_mmap": True, "use_mlock": False, "numa": False,
        "vocab_only": False, "logits_all": False, "num_batch": None, "some_new_option": None, "stop": [],
    }  # fmt: skip
    fields = {"format": "", "tools": [], "think": False, "keep_alive": "5m", "truncate": True, "shift": False,
              "logprobs": False, "top_logprobs": 0, "some_new_field": None}  # fmt: skip
    got = post(server, "chat", **{**ASK, "model": "story:latest", "options": {**OPTIONS, **neutral}, **fields})
    assert got["message"] == post(server, "chat", **ASK)["message"] and got["model"] == "story:latest"
    more = {"suffix": "", "template": "", "system": "", "context": [], "raw": False, "images": [], "width": 0}
    got = post(server, "generate", **{**TEXT, **more, "keep_alive": 300})
    assert got["response"] == post(server, "generate", **TEXT, keep_alive=-1)["response"]


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("chat", {"options": {"mirostat": 2}}, "options.mirostat=2 is not supported; use temperature"),
        ("chat", {"options": {"num_thread": 8}}, "--num-threads"),
        ("chat", {"options": {"num_ctx": 513}}, "options.num_ctx=513 is more than the 512 tokens"),
        ("chat", {"options": {"temperature": -1}}, "options.temperature=-1"),
        ("chat", {"options": {"top_q": 1}}, "options: 'top_q' is not a field that is known here"),
        ("chat", {"options": {"top_k": 1.5}}, "options: the request is not valid"),
        ("chat", {"format": "xml"}, "format='xml' is not known"),
        ("chat", {"format": {"not": {"type": "null"}}}, "format "),
        ("chat", {"think": True}, "think=True is not supported; this model does not think"),
        ("chat", {"shift": True}, "shift=True"),
        ("chat", {"keep_alive": "soon"}, "keep_alive='soon' is no length of time"),
        ("chat", {"messages": [{"role": "robot", "content": "x"}]}, "messages[0] has role 'robot'"),
        ("chat", {"messages": [{"role": "user", "content": "x", "images": ["AAAA"]}]}, "this model"),
        ("chat", {"messages": [{**SAY[0], "images": ["http://x/y.png"]}]}, "messages[0].images[0]"),
        ("chat", {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "tool_calls[0]"),
        ("chat", {"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ("chat", {"some_new_field": 1}, "some_new_field"),
        ("generate", {"template": "{{ .Prompt }}"}, "template="),
        ("generate", {"suffix": "."}, "suffix needs a model that was trained to fill a gap"),
        ("generate", {"raw": True, "system": "x"}, "and there is raw"),
        ("generate", {"context": [9999]}, "token id 9999 is outside the vocabulary"),
        ("embed", {"input": "x", "options": {"temperature": 0}}, "an embedding writes no text"),
        ("embed", {"input": "a " * 600, "truncate": False}, "tokens"),
    ],
)  # fmt: skip
def test_what_would_not_be_done_is_refused(server: Server, path: str, change: dict[str, Any], words: str) -> None:
    base = {"chat": ASK, "generate": TEXT, "embed": {}}[path]
    status, said = refusal(server, path, **{**base, **change})
    assert status == 400 and words in said, said
    change = {"input": "x"} if path == "embed" else {}
    assert refusal(server, path, **{**base, **change, "model": "other"})[0] == 404


def test_a_conversation_that_does_not_fit_is_cut(server: Server) -> None:
    turns = [{"role": role, "content": f"{k} cats"} for k in range(200) for role in ("user", "assistant")]
    system = {"role": "system", "content": "A story."}
    long = {**ASK, "messages": [system, *turns, *SAY]}
    got = post(server, "chat", **long)
    assert 400 < got["prompt_eval_count"] < 512
    few = post(server, "chat", **{**long, "options": {**OPTIONS, "num_ctx": 64}})
    assert 40 < few["prompt_eval_count"] < 64
    counts = []  # of the conversation from its last turn back: that with most turns below the limit is the one
    while not counts or counts[-1] < 64:
        messages = [system, *turns[len(turns) - 2 * len(counts) :], *SAY]
        counts.append(server.http.post("/tokenize", json={"messages": messages}).json()["count"])
    assert few["prompt_eval_count"] == counts[-2]
    status, words = refusal(server, "chat", **{**long, "truncate": False})
    assert status == 400 and "tokens" in words
    raw = {**TEXT, "prompt": "a cat " * 600, "raw": True}
    assert post(server, "generate", **raw)["prompt_eval_count"] == 512 - 12
    assert refusal(server, "generate", **{**raw, "truncate": False})[0] == 400
    for options, left in (({"num_predict": 500}, 256), ({"num_ctx": 64}, 64 - 12), ({"num_predict": -1}, 256)):
        got = post(server, "generate", **{**raw, "options": {**OPTIONS, "stop": "a", **options}})
        assert got["prompt_eval_count"] == left, options


def test_a_raw_text_that_fits_is_whole_and_its_answer_as_long_as_a_chats(server: Server) -> None:
    story = {**TEXT, "raw": True}
    num_prompt = post(server, "generate", **story)["prompt_eval_count"]
    for num_predict in (-1, 0, 509, 511, 512, None):  # None: nothing is said
        options = {"temperature": 0} if num_predict is None else {"temperature": 0, "num_predict": num_predict}
        got = post(server, "generate", **{**story, "options": options})
        chat = post(server, "chat", **{**ASK, "options": options})
        assert (got["response"], got["done_reason"]) == (chat["message"]["content"], chat["done_reason"])
        assert got["eval_count"] > 100 and got["prompt_eval_count"] == num_prompt


def test_log_probabilities_are_those_of_a_chat(server: Server) -> None:
    wanted = openai_chat(server, logprobs=True, top_logprobs=3)["choices"][0]["logprobs"]["content"]
    asked = {**ASK, "logprobs": True, "top_logprobs": 3}
    assert post(server, "chat", **asked)["logprobs"] == wanted
    assert [each for part in lines(server, "chat", **asked) for each in part.get("logprobs", ())] == wanted
    (first, *_) = post(server, "generate", **TEXT, raw=True, logprobs=True)["logprobs"]
    assert (first["token"], first["logprob"]) == (wanted[0]["token"], wanted[0]["logprob"])


def test_an_answer_of_a_form_whole_and_in_lines(server: Server) -> None:
    options = {**OPTIONS, "num_predict": 100}
    schema = {"enum": ["red", "blue"]}
    whole = post(server, "chat", **{**ASK, "options": options, "format": schema})
    assert json.loads(whole["message"]["content"]) in ("red", "blue") and whole["done_reason"] == "stop"
    parts = lines(server, "generate", **{**TEXT, "options": options, "format": schema})
    assert json.loads("".join(each["response"] for each in parts)) in ("red", "blue")
    some = post(server, "generate", **{**TEXT, "options": {**options, "frequency_penalty": 2}, "format": "json"})
    assert some["response"].lstrip().startswith("{")


def piece(tracked: Any, text: str, *, is_first: bool, is_last: bool) -> Piece:
    return Piece(tracked, 0, 0, text, [], None, 0, is_first, "length" if is_last else None, None)


def test_calls_come_whole_with_arguments_as_objects() -> None:
    """Of pieces of a text; a model of stories makes no calls where none is required."""
    request = ChatRequest(messages=SAY, tools=TOOLS)
    serving: Any = SimpleNamespace(dialect=Dialect(TEMPLATE, "hermes", None), tokenizer=None)
    tracked: Any = SimpleNamespace(submission=SimpleNamespace(prompt="Once"))
    generation: Any = SimpleNamespace(requests=[tracked])
    answer = Answer(ChatTelling("story"), serving, request, generation)
    texts = [
        "So be it. <tool_", 'call>\n{"name": "clock", "arguments": {"utc"', ": true}}\n</tool_call>",
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern", "days": 2}}\n</tool_call>',
        '<tool_call>\n{"name": "clock", "arguments": {"ut',
    ]  # fmt: skip
    said = [
        chunk.message
        for place, text in enumerate(texts)
        for chunk in answer.chunks(piece(tracked, text, is_first=place == 0, is_last=place == len(texts) - 1))
    ]
    assert "".join(each.content for each in said).strip() == "So be it."
    calls = [call for each in said if each.tool_calls is not UNSET for call in each.tool_calls]
    assert [(call.function.index, call.function.name, call.function.arguments) for call in calls] == [
        (0, "clock", {"utc": True}),
        (1, "weather", {"city": "Bern", "days": 2}),
    ]
    assert len({call.id for call in calls}) == 2


def test_calls_and_results_go_back_to_the_template(caller: Server) -> None:
    asked = [("clock", {"utc": True}), ("weather", {"city": "Oslo", "days": 1})]
    calls = [{"function": {"name": name, "arguments": arguments}} for name, arguments in asked]
    turns = [*SAY, {"role": "assistant", "content": "", "tool_calls": calls}, {"role": "tool", "content": "noon"}]
    got = post(caller, "chat", **{**ASK, "messages": turns, "tools": TOOLS})
    turns[1] = {"role": "assistant", "content": "", "tool_calls": [
        {"id": f"c{k}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for k, (name, arguments) in enumerate(asked)
    ]}  # fmt: skip
    turns[2] = {"role": "tool", "tool_call_id": "c0", "content": "noon"}
    wanted = openai_chat(caller, messages=turns, tools=TOOLS)
    assert got["message"]["content"] == wanted["choices"][0]["message"]["content"]
    assert got["prompt_eval_count"] == wanted["usage"]["prompt_tokens"]
    assert post(caller, "show", model="story")["capabilities"] == ["completion", "tools"]


def test_thoughts_are_told_apart(thinker: Server) -> None:
    wanted = openai_chat(thinker, chat_template_kwargs={"enable_thinking": True})["choices"][0]["message"]
    assert wanted["reasoning_content"]
    parts = lines(thinker, "chat", **ASK, think=True)
    assert "".join(each["message"].get("thinking", "") for each in parts) == wanted["reasoning_content"]
    assert "".join(each["message"]["content"] for each in parts) == ""
    status, words = refusal(thinker, "chat", **ASK, think="high")  # this server's list has switches alone
    assert status == 400 and "'reasoning_effort'; allowed: think, enable_thinking" in words
    got = post(thinker, "generate", **TEXT, think=True)
    assert (got["thinking"], got["response"]) == (wanted["reasoning_content"], "")
    plain = openai_chat(thinker)["choices"][0]["message"]["content"]
    assert post(thinker, "chat", **ASK, think=False)["message"] == {"role": "assistant", "content": plain}
    assert post(thinker, "show", model="story")["capabilities"] == ["completion", "tools", "thinking"]


def test_results_find_their_calls() -> None:
    calls = [{"function": {"name": name, "arguments": {}}} for name in ("a", "b", "a")]
    given = [
        Message("assistant", None, tool_calls=[*calls, {"id": "mine", **calls[1]}]),
        Message("tool", "1", tool_name="b"),
        Message("tool", "2"),
        Message("tool", "3", tool_call_id="mine"),
        Message("Tool", "4", tool_name="a"),
        Message("tool", "5", tool_name="c"),
    ]
    asked, *found = messages_of(given)
    ids = [each["id"] for each in asked["tool_calls"]]
    assert len(set(ids)) == 4 and ids[3] == "mine"
    assert [each["tool_call_id"] for each in found] == [ids[1], ids[0], "mine", ids[2], ""]
    assert [each["name"] for each in found] == ["b", "a", "b", "a", "c"]


def test_results_of_many_calls_cost_what_few_do() -> None:
    class Counted(str):
        num_compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Counted.num_compared += 1
            return str.__eq__(self, other)

    names = [f"tool{k}" for k in range(2000)]
    calls = [{"function": {"name": Counted(name), "arguments": {}}} for name in names]
    results = [Message("tool", "1", tool_name=Counted(name)) for name in reversed(names)]
    asked, *found = messages_of([Message("assistant", None, tool_calls=calls), *results])
    ids = [each["id"] for each in asked["tool_calls"]]
    assert [each["tool_call_id"] for each in found] == ids[::-1]
    assert Counted.num_compared < 100 * len(names)


def test_what_is_no_call_is_named_by_its_place() -> None:
    with pytest.raises(HttpError, match=r"^messages\[0\]\.tool_calls\[1\] needs function"):
        messages_of([Message("assistant", None, tool_calls=[{"function": {"name": "a"}}, {"x": 1}])])


def test_embeddings_are_those_of_the_other_protocol(server: Server) -> None:
    inputs = ["Once upon a time", "a fox"]
    wanted = [each["embedding"] for each in server.http.post("/v1/embeddings", json={"input": inputs}).json()["data"]]
    got = post(server, "embed", model="story", input=inputs)
    assert got["embeddings"] == wanted and got["prompt_eval_count"] > 4 and got["total_duration"] > 0
    assert post(server, "embed", model="story", input=inputs[1], dimensions=8)["embeddings"][0] != wanted[1][:8]
    raw = server.http.post("/v1/embeddings", json={"input": inputs[0], "use_activation": False}).json()["data"]
    assert post(server, "embeddings", model="story", prompt=inputs[0]) == {"embedding": raw[0]["embedding"]}
    cut = post(server, "embed", model="story", input="a cat " * 600)
    assert cut["prompt_eval_count"] == 512
    cut = post(server, "embed", model="story", input="a cat " * 600, options={"num_ctx": 32})
    assert cut["prompt_eval_count"] == 32
    assert post(server, "embed", model="story", input=[])["embeddings"] == []


def test_models_are_told_and_stay_as_they_are(server: Server) -> None:
    (entry,) = server.http.get("/api/tags").json()["models"]
    assert (entry["name"], entry["model"]) == ("story:latest", "story:latest")
    assert entry["details"]["family"] == "llama" and entry["details"]["quantization_level"] == "BF16"
    assert len(entry["digest"]) == 64 and entry["size"] > 10**6
    shown = post(server, "show", model="story")
    assert shown["model_info"]["llama.context_length"] == 512 and shown["details"] == entry["details"]
    data = (BUNDLED / "model.safetensors").read_bytes()
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    num = sum(math.prod(each["shape"]) for name, each in head.items() if name != "__metadata__")
    assert shown["model_info"]["general.parameter_count"] == num
    assert shown["details"]["parameter_size"] == f"{num / 10**6:.2f}M"
    assert shown["capabilities"] == ["completion"] and "messages" in shown["template"]
    assert refusal(server, "show", model="other")[0] == 404 and refusal(server, "show")[0] == 400
    assert server.http.get("/api/version").json()["version"].count(".") == 2
    assert server.http.post("/api/pull", json={"model": "story"}).json() == {"status": "success"}
    for path in ("pull", "push", "create", "copy", "delete"):
        method = "DELETE" if path == "delete" else "POST"
        status, words = refusal(server, path, method, model="other")
        assert status == 400 and "albireo serve MODEL" in words
    assert server.http.head("/").status_code == 200 and server.http.head("/api/blobs/sha256:x").status_code == 400
    assert server.http.get("/api/nothing").json()["error"].startswith("there is no such route")


def test_a_key_is_asked_for_in_its_words(guarded: Server) -> None:
    assert refusal(guarded, "chat", **ASK)[0] == 401 and guarded.http.get("/api/tags").status_code == 401
    assert guarded.http.post("/api/chat", json=ASK, headers={"authorization": "Bearer sesame"}).status_code == 200


def test_it_is_in_accounts_metrics_and_the_log(server: Server) -> None:
    before = server.metrics()
    got = server.http.post("/api/chat", json=ASK, headers={"x-request-id": "mine"})
    assert got.headers["x-request-id"] == "ollama-mine"
    account = server.http.get("/v1/requests/ollama-mine/explain").json()
    assert (account["path"], account["prompts"][0]["output_tokens"]) == ("/api/chat", [12])
    found = server.metrics_since(before)
    assert (found["vllm:request_success_total"], found["vllm:generation_tokens_total"]) == (1, 12)


def test_a_stream_goes_on_when_the_engine_dies(killable: Server) -> None:
    ask = {**ASK, "options": {**OPTIONS, "num_predict": 40}}
    whole = post(killable, "chat", **ask)
    killable.gate.hold(5)
    with killable.http.stream("POST", "/api/chat", json={**ask, "stream": True}) as got:
        each_line = got.iter_lines()
        said = [json.loads(next(each_line))]
        wait_until(killable.gate.is_holding, killable)
        (worker,) = killable.workers()
        os.kill(worker, signal.SIGKILL)
        killable.gate.open()
        said += [json.loads(line) for line in each_line]
    assert "".join(each["message"]["content"] for each in said) == whole["message"]["content"]
    assert said[-1]["done"] and said[-1]["load_duration"] > 0 and said[-1]["eval_count"] == 40


@pytest.fixture(scope="module")
def sleeper() -> Iterator[Server]:
    """One that may be sent to sleep."""
    made = Server().wait_until_ready()
    yield made
    made.stop()


def test_the_last_request_says_how_long_it_stays(sleeper: Server) -> None:
    def is_asleep() -> bool:
        found: bool = sleeper.http.get("/is_sleeping").json()["is_sleeping"]
        return found

    assert post(sleeper, "chat", **ASK, keep_alive="10m")["done"]
    (entry,) = sleeper.http.get("/api/ps").json()["models"]
    assert entry["context_length"] == 512 and entry["expires_at"] < "2100" and entry["size_vram"] == 0
    assert post(sleeper, "generate", **TEXT)["done"]  # says nothing: as the server has it
    assert sleeper.http.get("/api/ps").json()["models"][0]["expires_at"] > "2100"
    assert post(sleeper, "generate", model="story", keep_alive=0)["done_reason"] == "unload"
    wait_until(is_asleep, sleeper)
    assert sleeper.http.get("/api/ps").json()["models"] == []
    assert post(sleeper, "chat", model="story", messages=[])["done_reason"] == "load"
    assert not is_asleep()
    assert post(sleeper, "embed", model="story", input="a", keep_alive="0s")["embeddings"]
    wait_until(is_asleep, sleeper)


def test_lengths_of_time() -> None:
    given = ("5m", "1h30m", "90s", "1.5h", "500ms", 30, 0, "45", "-1", -1, "-1m")
    forever = float("inf")
    assert [seconds(each) for each in given] == [300, 5400, 90, 5400, 0.5, 30, 0, 45, forever, forever, forever]
    for wrong in ("", "5 m", "m", "5x", "nan"):
        with pytest.raises(HttpError, match="keep_alive"):
            seconds(wrong)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1, "repeat_last_n": 64}),
        ({"presence_penalty": 0.5, "repeat_last_n": 8}, {"presence_penalty": 0.5, "repeat_last_n": 8}),
        ({"repeat_penalty": 1.1, "repeat_last_n": -1}, {"repetition_penalty": 1.1, "repeat_last_n": 2**31 - 1}),
        ({"repeat_last_n": 0}, {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
    ],
)
def test_penalties_look_at_the_last_tokens(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sampling_of(options_of(given, 512)) == wanted
