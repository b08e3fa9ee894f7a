"""openai-agents: responses and chats; runs, streams, a tool, a handoff, a typed answer, a conversation that goes on."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from agents import (
    Agent,
    AgentOutputSchema,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    StopAtTools,
    function_tool,
    handoff,
    set_tracing_disabled,
)
from ask import BRIEF, KEY, MODEL, PROMPT, TEXT, URL, end_without_schemas
from openai import AsyncOpenAI
from pydantic import BaseModel


class Colour(BaseModel):
    """What is asked for, of a tool and of an answer."""

    colour: Literal["red", "blue"]


@function_tool
def paint(colour: Literal["red", "blue"]) -> str:
    """Paint the fence."""
    return f"It is {colour}."


# a response that max_tokens cut off is an error to a run, so that it ends with a sentence
SHORT = ModelSettings(temperature=0, max_tokens=200, extra_body={"stop": ["."]})
CALL = ModelSettings(temperature=0, max_tokens=200, tool_choice="required", parallel_tool_calls=False)


async def runs(model: Any) -> None:
    """An agent of words, whole and streamed."""
    agent = Agent(name="teller", model=model, model_settings=SHORT)
    done = await Runner.run(agent, PROMPT)
    assert done.final_output.startswith(TEXT.partition(".")[0]), done.final_output
    assert done.raw_responses[0].usage.output_tokens > 0, done.raw_responses
    streamed = Runner.run_streamed(agent, PROMPT)
    deltas = [
        event.data.delta
        async for event in streamed.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    assert "".join(deltas) == streamed.final_output == done.final_output, deltas
    again = await Runner.run(agent, [*done.to_input_list(), {"role": "user", "content": PROMPT}])
    assert again.final_output, again


async def calls(model: Any) -> None:
    """A tool that is called, whole and streamed; its result goes back; a handoff; an answer of a type."""
    ends = StopAtTools(stop_at_tool_names=["paint"])
    painter = Agent(name="painter", model=model, model_settings=CALL, tools=[paint], tool_use_behavior=ends)
    done = await Runner.run(painter, PROMPT)
    assert done.final_output in ("It is red.", "It is blue."), done.final_output
    streamed = Runner.run_streamed(painter, PROMPT)
    kinds = [event.name async for event in streamed.stream_events() if event.type == "run_item_stream_event"]
    assert kinds == ["tool_called", "tool_output"] and streamed.final_output == done.final_output, kinds
    # asked for once, the call goes back with what came of it, and words follow
    more = await Runner.run(painter.clone(tool_use_behavior="run_llm_again"), PROMPT)
    assert [item.type for item in more.new_items] == ["tool_call_item", "tool_call_output_item", "message_output_item"]
    teller = Agent(name="teller", model=model, model_settings=SHORT, handoff_description="Tells stories.")
    first = Agent(name="first", model=model, model_settings=CALL, handoffs=[handoff(teller)])
    given = await Runner.run(first, PROMPT)
    assert given.last_agent.name == "teller" and len(given.raw_responses) == 2, given
    brief = ModelSettings(temperature=0, max_tokens=200, frequency_penalty=BRIEF["frequency_penalty"])
    if isinstance(model, OpenAIResponsesModel):
        brief = ModelSettings(temperature=0, max_tokens=200)  # responses know no penalties
    typed = Agent(name="typed", model=model, model_settings=brief, output_type=AgentOutputSchema(Colour))
    answer = (await Runner.run(typed, PROMPT)).final_output
    assert answer.colour in ("red", "blue"), answer


async def stored(client: AsyncOpenAI) -> None:
    """A conversation that the server holds."""
    agent = Agent(name="teller", model=OpenAIResponsesModel(MODEL, client), model_settings=SHORT)
    one = await Runner.run(agent, PROMPT)
    two = await Runner.run(agent, PROMPT, previous_response_id=one.last_response_id)
    assert two.final_output and two.last_response_id != one.last_response_id


async def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    models = [OpenAIResponsesModel(MODEL, client), OpenAIChatCompletionsModel(MODEL, client)]
    for model in models:
        await runs(model)
    await stored(client)
    end_without_schemas()
    for model in models:
        await calls(model)


asyncio.run(main())
