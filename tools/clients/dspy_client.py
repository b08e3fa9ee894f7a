"""dspy: its language model, predictions by its chat and JSON adapters, streams, embeddings."""

from __future__ import annotations

import asyncio
from typing import Literal

import dspy
import litellm
from ask import BRIEF, COLOURS, EMBEDDING, KEY, MAX_TOKENS, MODEL, PROMPT, URL, end_without_schemas, same

OPTIONS = {"api_base": f"{URL}/v1", "api_key": KEY, "temperature": 0, "cache": False, "num_retries": 0}


class Paint(dspy.Signature):
    """Choose."""

    story: str = dspy.InputField()
    colour: Literal["red", "blue"] = dspy.OutputField()


plain = dspy.LM(f"openai/{MODEL}", max_tokens=MAX_TOKENS, **OPTIONS)
(text,) = plain(PROMPT)
same(text, "call")
same(asyncio.run(plain.acall(PROMPT))[0], "async call")
same(
    dspy.LM(f"openai/{MODEL}", model_type="responses", max_tokens=MAX_TOKENS, **OPTIONS)(PROMPT)[0]["text"], "responses"
)
assert dspy.LM(f"openai/{MODEL}", model_type="text", max_tokens=MAX_TOKENS, **OPTIONS)(PROMPT)[0]
embedded = dspy.Embedder(f"openai/{MODEL}", api_base=f"{URL}/v1", api_key=KEY, caching=False)(["x", PROMPT])
assert abs(embedded[1] - EMBEDDING).max() < 1e-6, "embedding"
end_without_schemas()
# it has not heard of this model, and does not know whether it takes schemas, so both of its engines are told
litellm.register_model({f"openai/{MODEL}": {"litellm_provider": "openai", "supports_response_schema": True}})
form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOURS}}
for engine in ("auto", "litellm"):
    lm = dspy.LM(f"openai/{MODEL}", **{**OPTIONS, **BRIEF}, response_format=form, engine=engine)
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        assert dspy.Predict(Paint)(story=PROMPT).colour in ("red", "blue"), engine
        assert asyncio.run(dspy.Predict(Paint).acall(story=PROMPT)).colour in ("red", "blue"), engine
