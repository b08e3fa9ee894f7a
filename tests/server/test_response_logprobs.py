"""Log-probabilities of /v1/responses: those of a chat, of the tokens that the answer's texts are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from albireo.parsers.output_parser import output_parser, reasoning_tags
from albireo.server.blocks import BlockReader
from albireo.server.text_tokens import TextTokens
from albireo.step import TokenLogprobs
from albireo.text.places import TextPlaces
from albireo.text.tokenizer import Tokenizer
from server_process import wait_until

BUNDLED = Path(__file__).resolve().parents[2] / "src" / "albireo" / "models" / "bundled" / "story"
LOGPROBS = "message.output_text.logprobs"
ASK: dict[str, Any] = {"model": "story", "input": "Once upon a time", "temperature": 0, "max_output_tokens": 12}
ASK |= {"include": [LOGPROBS]}


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    return server.client()


def of_chat(client: Any, num: int = 0, **extra: Any) -> list[dict[str, Any]]:
    messages = [{"role": "user", "content": ASK["input"]}]
    ask = {"model": "story", "messages": messages, "temperature": 0, "max_tokens": 12, "logprobs": True}
    (choice,) = client.chat.completions.create(**ask, top_logprobs=num, extra_body=extra).choices
    return [entry.model_dump() for entry in choice.logprobs.content]


def plain(entries: Any) -> list[dict[str, Any]]:
    return [entry.model_dump() for entry in entries]


def without_bytes(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As events tell them."""
    kept = ("token", "logprob")
    return [
        {
            **{name: entry[name] for name in kept},
            "top_logprobs": [{n: t[n] for n in kept} for t in entry["top_logprobs"]],
        }
        for entry in entries
    ]


@pytest.mark.parametrize("num", [0, 3])
def test_they_are_those_of_a_chat(client: Any, num: int) -> None:
    got = client.responses.create(**ASK, top_logprobs=num)
    (part,) = got.output[0].content
    assert plain(part.logprobs) == of_chat(client, num) and len(part.logprobs) == 12
    assert {len(entry.top_logprobs) for entry in part.logprobs} == {num}
    assert b"".join(bytes(entry.bytes) for entry in part.logprobs).decode() == got.output_text
    assert got.top_logprobs == num


def test_nothing_is_told_unasked(client: Any) -> None:
    for include in (openai.omit, [], ["reasoning.encrypted_content"]):
        got = client.responses.create(**{**ASK, "include": include})
        assert got.output[0].content[0].logprobs == [] and got.output_text


def test_a_stream_tells_those_of_each_piece(client: Any) -> None:
    whole = client.responses.create(**ASK, top_logprobs=2)
    wanted = plain(whole.output[0].content[0].logprobs)
    events = list(client.responses.create(**ASK, top_logprobs=2, stream=True))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    told = [entry for event in deltas for entry in plain(event.logprobs)]
    assert told == without_bytes(wanted)
    for event in deltas:
        assert "".join(entry.token for entry in event.logprobs) == event.delta != ""
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert plain(done.logprobs) == told
    (part,) = [event.part for event in events if event.type == "response.content_part.done"]
    (item,) = [event.item for event in events if event.type == "response.output_item.done"]
    assert plain(part.logprobs) == plain(item.content[0].logprobs) == wanted
    assert plain(events[-1].response.output[0].content[0].logprobs) == wanted
    again = list(client.responses.retrieve(events[0].response.id, stream=True))
    assert plain(again) == plain(events)


def test_in_the_background_and_handed_back(client: Any) -> None:
    made = client.responses.create(**ASK, background=True)
    done = wait_until(
        lambda: r if (r := client.responses.retrieve(made.id)).status not in ("queued", "in_progress") else None
    )
    assert plain(done.output[0].content[0].logprobs) == of_chat(client)
    items = [{"role": "user", "content": ASK["input"]}, done.output[0].to_dict(), {"role": "user", "content": "Then"}]
    handed = client.responses.create(**{**ASK, "input": items})
    kept = client.responses.create(**{**ASK, "input": "Then"}, previous_response_id=made.id)
    assert plain(handed.output[0].content[0].logprobs) == plain(kept.output[0].content[0].logprobs) != []


def test_a_token_that_makes_no_text_is_not_told(client: Any) -> None:
    """A stop string cuts the text, and so the tokens."""
    stops = {"stop": ["girl"]}
    got = client.responses.create(**ASK, extra_body=stops)
    (part,) = got.output[0].content
    said = b"".join(bytes(entry.bytes) for entry in part.logprobs).decode()
    assert said.startswith(got.output_text) and "girl" not in got.output_text
    whole = of_chat(client)
    assert plain(part.logprobs) == whole[: len(part.logprobs)] and len(part.logprobs) < len(whole)


@pytest.mark.parametrize("streams", [False, True])
def test_thoughts_are_left_out(thinker: Any, streams: bool) -> None:
    client = thinker.client()
    extra = {"seed": 3, "chat_template_kwargs": {"think": True}, "thinking_token_budget": 6}
    ask = {**ASK, "temperature": 1, "max_output_tokens": 30, "extra_body": extra}
    got = client.responses.create(**ask, stream=streams)
    if streams:
        got = list(got)[-1].response
    thought, said = got.output
    assert (thought.type, said.type) == ("reasoning", "message")
    (part,) = said.content
    tokens = [bytes(entry.bytes) for entry in part.logprobs]
    # Line ends behind the mark belong to neither side.
    assert b"".join(tokens).decode().lstrip("\n") == part.text and 10 < len(tokens) < 24


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"include": ["file_search_call.results"]}, "include"),
        ({"include": [5]}, "include"),
        ({"include": [], "top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 10**6}, "top_logprobs"),
        ({"top_logprobs": -2}, "top_logprobs"),
    ],
)
def test_what_cannot_be_told_is_a_400(client: Any, change: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.post("/responses", body={**ASK, **change}, cast_to=object)
    assert raised.value.param is not None and raised.value.param.startswith(param)


CALL = '<tool_call>{"name": "clock", "arguments": {"utc": "the <time> </time>"}}</tool_call>'
HEADS = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize("at_once", [1, 3, 1000])
@pytest.mark.parametrize(
    ("parser", "parts"),
    [
        ((None, None), [("Once < upon </think> a time.", True)]),
        (
            ("hermes", "think"),
            [("<think>Hm, <b> hm.</think>\n\n", False), ("Let <<to me <tool see. ", True), (CALL, False)],
        ),
        (("hermes", "think"), [("Once. ", True), (CALL, False), ("\n<then> upon", True), (CALL + CALL, False)]),
        (("hermes", None), [(CALL, False), ("<t a \n\nb<<tool", True)]),
        ((None, "openai_gptoss"), [(HEADS, False), ("Once <|upon ", True), ("<|end|>", False)]),
        ((None, "cohere_command3"), [("<|START_RESPONSE|>", False), ("Once <|END", True), ("<|END_RESPONSE|>", False)]),
    ],
    ids=str,
)
def test_each_text_has_its_own_tokens(parser: Any, parts: list[tuple[str, bool]], at_once: int) -> None:
    """Whatever is held back, and however many tokens come at a time."""
    tokenizer = Tokenizer.from_directory(BUNDLED)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text, _ in parts]
    wanted = [number for k, (_, is_text) in enumerate(parts) if is_text for number in _numbers(ids, k)]
    call, reasoning = parser
    left_out = () if reasoning is None else reasoning_tags(reasoning).left_out
    reader = BlockReader(
        None
        if parser == (None, None)
        else output_parser(tool_call_parser=call, reasoning_parser=reasoning, left_out=left_out)
    )
    tokens = TextTokens(TextPlaces(tokenizer, lambda text, place: True, prompt_token_ids=[1, 2]))
    all_ids = [each for part in ids for each in part]
    # An entry's token is its number here.
    entries = [TokenLogprobs([number], [0.0], [1]) for number in range(len(all_ids))]
    texts = tokenizer.token_strings(all_ids)
    told = []
    for at in range(0, len(all_ids), at_once):
        tokens.take(all_ids[at : at + at_once], entries[at : at + at_once])
        for piece in tokens.pieces("".join(texts[at : at + at_once])):
            told += [entry for change in reader.push(piece, None) for entry in tokens.of(change)]
    told += [entry for change in reader.push("", "stop") for entry in tokens.of(change)]
    assert [entry.token_ids[0] for entry in told] == wanted
    assert reader.text_of("text").strip() == "".join(text for text, is_text in parts if is_text).strip()


def _numbers(ids: list[list[int]], place: int) -> range:
    start = sum(len(part) for part in ids[:place])
    return range(start, start + len(ids[place]))


@pytest.mark.parametrize("at_once", [1, 4, 1000])
def test_thoughts_that_nobody_is_told_have_no_tokens_either(at_once: int) -> None:
    """Though they begin as the answer does."""
    tokenizer = Tokenizer.from_directory(BUNDLED)
    thought, answer = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in ("<think>The girl and the dog. The</think>", "The end.")
    )
    tokens = TextTokens(TextPlaces(tokenizer, lambda text, place: True, prompt_token_ids=[1, 2]))
    parser = output_parser(tool_call_parser=None, reasoning_parser="think")
    reader = BlockReader(parser, tells_reasoning=False, hears=tokens.pass_over)
    entries = [TokenLogprobs([number], [0.0], [1]) for number in range(len(thought + answer))]
    told = []
    for at in range(0, len(entries), at_once):
        ids = (thought + answer)[at : at + at_once]
        tokens.take(ids, entries[at : at + at_once])
        for piece in tokens.pieces("".join(tokenizer.token_strings(ids))):
            told += [entry for change in reader.push(piece, None) for entry in tokens.of(change)]
    told += [entry for change in reader.push("", "stop") for entry in tokens.of(change)]
    assert [entry.token_ids[0] for entry in told] == [*range(len(thought), len(thought + answer))]


def test_an_id_that_no_path_can_hold_is_not_taken(client: Any) -> None:
    answer = client.responses.with_raw_response.create(**ASK, extra_headers={"x-request-id": "host/abc-000001"})
    name = answer.parse().id
    assert name.removeprefix("resp-").isalnum() and client.responses.retrieve(name).id == name
    taken = client.responses.with_raw_response.create(**ASK, extra_headers={"x-request-id": "host:abc-000001"})
    assert client.responses.retrieve(taken.parse().id).id == "resp-host:abc-000001"
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(**ASK, extra_body={"request_id": "a/b"})
    assert raised.value.param == "request_id"
