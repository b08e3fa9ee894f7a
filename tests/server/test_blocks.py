"""Answers that are lists: the blocks of a text, and the items and events of a response that has all kinds of them."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import msgspec
import openai
import pydantic
import pytest
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent

from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Inbox, Tracked
from albireo.params import SamplingParams
from albireo.parsers.output_parser import output_parser
from albireo.server.blocks import BlockReader, Change
from albireo.server.dialect import Dialect
from albireo.server.dialects import responses as dialect
from albireo.server.generation import INLINE_TOKENS, Generation
from albireo.server.protocol.responses import ResponseRequest
from albireo.server.response_answer import ResponseWriter
from albireo.server.response_store import ResponseStore
from albireo.server.streaming import Piece

CALL = '<tool_call>{"name": "clock", "arguments": {"utc": true}}</tool_call>'
SAID = f"<think>Hm, hm.</think>\nLet me see. {CALL}{CALL}"
WANTED = [("thought", "Hm, hm."), ("text", "Let me see. "), ("call", '{"utc": true}'), ("call", '{"utc": true}')]


def read(text: str, size: int, finish_reason: str = "stop", **options: bool) -> tuple[BlockReader, list[Change]]:
    parser = output_parser(tool_call_parser="hermes", reasoning_parser="think", tool_names=["clock"])
    reader = BlockReader(parser, **options)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    changes = [change for piece in pieces[:-1] for change in reader.push(piece, None)]
    return reader, [*changes, *reader.push(pieces[-1] if pieces else "", finish_reason)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_blocks_do_not_depend_on_how_the_text_was_cut(size: int) -> None:
    reader, changes = read(SAID, size)
    assert [(block.kind, block.text) for block in reader.blocks] == WANTED
    assert [block.index for block in reader.blocks] == [0, 1, 2, 3] and all(b.is_complete for b in reader.blocks)
    for block in reader.blocks:
        own = [change for change in changes if change.block is block]
        assert [own[0].what, own[-1].what] == ["begin", "end"]
        assert {change.what for change in own[1:-1]} == {"more"}
        assert "".join(change.text for change in own) == block.text
        first = changes.index(own[0])
        assert changes[first : first + len(own)] == own


@pytest.mark.parametrize(
    ("text", "reason", "kinds"),
    [
        ("", "stop", [("text", True)]),
        ("", "length", [("text", False)]),
        ("<think>a", "length", [("thought", False)]),
        ("<think>a</think>b", "length", [("thought", True), ("text", False)]),
        (CALL, "length", [("call", True)]),
        (CALL[:50], "length", [("call", False)]),
        (CALL[:50], "stop", [("call", False)]),
    ],
)
def test_what_was_cut_off_is_incomplete(text: str, reason: str, kinds: list[tuple[str, bool]]) -> None:
    reader, _ = read(text, 5, reason)
    assert [(block.kind, block.is_complete) for block in reader.blocks] == kinds


def test_what_is_left_out() -> None:
    silent, _ = read(SAID, 4, tells_reasoning=False)
    assert [(block.kind, block.text) for block in silent.blocks] == WANTED[1:]
    single, _ = read(SAID, 4, is_one_call=True)
    assert [(block.kind, block.text) for block in single.blocks] == WANTED[:3]


def writer_of(text: str) -> tuple[ResponseWriter, Tracked]:
    tool = {"type": "function", "name": "clock", "parameters": {"type": "object"}}
    request = ResponseRequest(input="What time is it?", tools=[tool], model="m")
    chat = dialect.as_chat(request, dialect.messages_of(request, ResponseStore().item))
    tokenizer = SimpleNamespace(encode=lambda words, add_special_tokens: words.split())
    serving: Any = SimpleNamespace(names=("m",), tokenizer=tokenizer, dialect=Dialect("", "hermes", "think"))
    submission = Submission("", [1, 2], SamplingParams(seed=1))
    tracked = Tracked.new(0, "r", submission, 0, Inbox(), 0.0, None)
    (continuation,) = tracked.continuations
    continuation.text = lambda: text  # type: ignore[method-assign]
    continuation.token_ids, continuation.finish_reason = [1] * 30, "stop"
    return ResponseWriter(serving, request, chat, "resp-1", submission), tracked


def events_of(text: str, size: int) -> tuple[list[dict[str, Any]], ResponseWriter]:
    writer, tracked = writer_of(text)
    told: list[bytes] = []
    for at in range(0, len(text), size):
        reason = "stop" if at + size >= len(text) else None
        piece = Piece(tracked, 0, 0, text[at : at + size], [], None, 0, at == 0, reason, None)
        told += [writer.event(number) for number in writer.take(piece)]
    told += [writer.event(number) for number in writer.finish(tracked)]
    assert told == [writer.event(number) for number in range(len(writer.log))], "the same when asked again"
    return [msgspec.json.decode(event.partition(b"data: ")[2]) for event in told], writer


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_response_with_all_kinds_of_items(size: int) -> None:
    """Its events are what OpenAI's types say, and its client adds them up to the answer that is told at once."""
    events, streamed = events_of(SAID, size)
    kind: Any = pydantic.TypeAdapter(ResponseStreamEvent)
    state: Any = ResponseStreamState(input_tools=[], text_format=openai.omit)
    for event in events:
        parsed = kind.validate_python(event)
        state.handle_event(parsed)
    final = state._completed_response
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
    writer, tracked = writer_of(SAID)
    writer.finish(tracked)
    assert told(writer) == told(streamed)
    assert final.output_text == "Let me see. " and final.usage.output_tokens_details.reasoning_tokens == 2
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def told(writer: ResponseWriter) -> list[dict[str, Any]]:
    """Its items, without what is random."""
    items = msgspec.to_builtins(writer.answer.output)
    return [{name: value for name, value in item.items() if name not in ("id", "call_id")} for item in items]


def test_an_answer_is_gone_on_with() -> None:
    writer, tracked = writer_of(SAID)
    writer.finish(tracked)
    (message,) = dialect.merged(dialect.said(writer.answer))
    assert (message["role"], message["reasoning_content"], message["content"]) == (
        "assistant",
        "Hm, hm.",
        "Let me see. ",
    )
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["clock", "clock"]


def test_what_is_long_is_made_beside_the_event_loop() -> None:
    """Others are told their tokens meanwhile; what is short waits for no thread."""
    serving = SimpleNamespace(in_thread=lambda make: asyncio.to_thread(make))
    generation: Any = Generation.__new__(Generation)
    generation._serving, generation.requests = serving, [SimpleNamespace(num_output_tokens=INLINE_TOKENS)]
    here = threading.get_ident()
    assert asyncio.run(generation.made(threading.get_ident)) == here
    generation.requests.append(SimpleNamespace(num_output_tokens=1))
    assert asyncio.run(generation.made(threading.get_ident)) != here
