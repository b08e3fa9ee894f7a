"""Any value in any field of any protocol: never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest

from albireo.server.protocol.anthropic import CountTokensRequest, MessagesRequest
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.completions import CompletionRequest
from albireo.server.protocol.ollama import ChatAsk, EmbedAsk, GenerateAsk, PullAsk, ShowAsk
from albireo.server.protocol.responses import ResponseRequest
from albireo.server.protocol.tokens import DetokenizeRequest, TokenizeRequest

VALUES = (
    "-1", "0", str(2**31), str(2**63), "1e18", "1e400", '"5"', "1.5", "NaN", "[]", "{}", "true", "9" * 5000, '""',
    '"\\ud800"', "[null]", "[{}]", "[[]]", '{"a": [[]]}', "[" * 3000 + "]" * 3000,
)  # fmt: skip
SAY = [{"role": "user", "content": "Once"}]


@pytest.mark.parametrize(
    ("path", "kind", "base"),
    [
        ("/v1/completions", CompletionRequest, {"prompt": "Once", "max_tokens": 2}),
        ("/v1/chat/completions", ChatRequest, {"messages": SAY, "max_tokens": 2}),
        ("/tokenize", TokenizeRequest, {"prompt": "Once", "model": "story"}),
        ("/detokenize", DetokenizeRequest, {"tokens": [1], "model": "story"}),
        ("/v1/responses", ResponseRequest, {"input": "Once", "max_output_tokens": 2}),
        ("/v1/responses/input_tokens", ResponseRequest, {"input": "Once"}),
        ("/v1/messages", MessagesRequest, {"model": "story", "max_tokens": 2, "messages": SAY}),
        ("/api/chat", ChatAsk, {"messages": SAY, "options": {"num_predict": 2}}),
        ("/api/generate", GenerateAsk, {"prompt": "Once", "options": {"num_predict": 2}}),
        ("/api/embed", EmbedAsk, {"input": "Once"}),
        ("/api/show", ShowAsk, {"model": "story"}),
        ("/api/pull", PullAsk, {"model": "story"}),
        ("/v1/messages/count_tokens", CountTokensRequest, {"model": "story", "messages": SAY}),
    ],
)
@pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.thorough)])
def test_any_value_in_any_field(server: Any, path: str, kind: Any, base: dict[str, Any], half: int) -> None:
    """Values in turn: a field meets every other one. What several protocols have meets others in each."""
    for place, field in enumerate(kind.__struct_fields__):
        rest = json.dumps({name: value for name, value in base.items() if name != field})[:-1]
        for value in VALUES[(place + half) % 2 :: 2]:
            got = server.http.post(path, content=f'{rest}, "{field}": {value}}}')
            assert got.status_code in (200, 400, 404), (field, value[:40], got.text)
    assert server.http.post(path, json=base).status_code == 200
