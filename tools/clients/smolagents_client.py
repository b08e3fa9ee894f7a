"""smolagents: its model whole and streamed, a forced call, an answer in JSON, and an agent that runs to its end."""

from __future__ import annotations

import json

from ask import BRIEF, COLOURS, KEY, MAX_TOKENS, MESSAGES, MODEL, PROMPT, URL, end_without_schemas, is_colour, same
from smolagents import ChatMessage, OpenAIModel, Tool, ToolCallingAgent


class Paint(Tool):
    """What is asked for."""

    name = "paint"
    description = "Paint the fence."
    inputs = {"colour": {"type": "string", "description": "Of the fence.", "enum": ["red", "blue"]}}  # noqa: RUF012
    output_type = "string"

    def forward(self, colour: str) -> str:
        """What comes of it."""
        return f"It is {colour}."


OPTIONS = {"model_id": MODEL, "api_base": f"{URL}/v1", "api_key": KEY, "temperature": 0}
#: Of an agent: its own templates are longer than the model's context.
TEMPLATES = {
    "system_prompt": "A story.",
    "planning": {
        "initial_plan": "",
        "update_plan_pre_messages": "",
        "update_plan_post_messages": "",
    },
    "managed_agent": {"task": "", "report": ""},
    "final_answer": {"pre_messages": "", "post_messages": ""},
}

model = OpenAIModel(**OPTIONS, max_tokens=MAX_TOKENS)
messages = [ChatMessage.from_dict(each) for each in MESSAGES]
answer = model.generate(messages)
same(answer.content, "generate")
assert answer.token_usage.output_tokens == MAX_TOKENS, answer.token_usage
deltas = list(model.generate_stream(messages))
same("".join(delta.content or "" for delta in deltas), "stream")
assert deltas[-1].token_usage.output_tokens == MAX_TOKENS, deltas[-1]
stopped = model.generate(messages, stop_sequences=["girl"])
assert stopped.content == answer.content.partition("girl")[0], stopped
end_without_schemas()

long = OpenAIModel(**OPTIONS, max_tokens=200, frequency_penalty=BRIEF["frequency_penalty"])
(call,) = long.generate(messages, tools_to_call_from=[Paint()], parallel_tool_calls=False).tool_calls
assert call.function.name == "paint", call
form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOURS}}
assert is_colour(json.loads(long.generate(messages, response_format=form).content))
parts = list(long.generate_stream(messages, tools_to_call_from=[Paint()], parallel_tool_calls=False))
calls = [delta for part in parts for delta in part.tool_calls or ()]
assert calls[0].function.name == "paint" and "".join(each.function.arguments or "" for each in calls), calls
agent = ToolCallingAgent(tools=[], model=long, prompt_templates=TEMPLATES, max_steps=2, verbosity_level=0)
assert agent.run(PROMPT) is not None
assert agent.memory.steps[-1].is_final_answer, agent.memory.steps[-1]
