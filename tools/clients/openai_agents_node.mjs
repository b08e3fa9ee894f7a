// openai-agents for Node: responses and chats; runs, streams, a tool, a handoff, a typed answer.
import assert from "node:assert/strict";
import { Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, handoff, tool } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import { apiKey, hasSchemas, isColour, model, prompt, text, url } from "./ask.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const runner = new Runner({ tracingDisabled: true });
// a response that maxTokens cut off is an error to a run, so that it ends with a sentence
const short = { temperature: 0, maxTokens: 200, providerData: { stop: ["."] } };
const call = { temperature: 0, maxTokens: 200, toolChoice: "required", parallelToolCalls: false };
const schema = z.object({ colour: z.enum(["red", "blue"]) });
const paint = tool({ name: "paint", description: "Paint the fence.", parameters: schema, execute: async ({ colour }) => `It is ${colour}.` });

for (const each of [new OpenAIResponsesModel(client, model), new OpenAIChatCompletionsModel(client, model)]) {
  const teller = new Agent({ name: "teller", model: each, modelSettings: short, handoffDescription: "Tells stories." });
  const ran = await runner.run(teller, prompt);
  assert.ok(ran.finalOutput.startsWith(text.split(".")[0]), ran.finalOutput);
  const streamed = await runner.run(teller, prompt, { stream: true });
  let parts = "";
  for await (const part of streamed.toTextStream()) parts += part;
  await streamed.completed;
  assert.equal(parts, ran.finalOutput);
  assert.equal(streamed.finalOutput, ran.finalOutput);
  if (!hasSchemas) continue;
  const painter = new Agent({ name: "painter", model: each, modelSettings: call, tools: [paint], toolUseBehavior: "stop_on_first_tool" });
  assert.match((await runner.run(painter, prompt)).finalOutput, /^It is (red|blue)\.$/);
  const painting = await runner.run(painter, prompt, { stream: true });
  const names = [];
  for await (const event of painting) if (event.type === "run_item_stream_event") names.push(event.name);
  assert.deepEqual(names, ["tool_called", "tool_output"]);
  const first = new Agent({ name: "first", model: each, modelSettings: call, handoffs: [handoff(teller)] });
  assert.equal((await runner.run(first, prompt)).lastAgent.name, "teller");
  const typed = new Agent({ name: "typed", model: each, modelSettings: { temperature: 0, maxTokens: 200 }, outputType: schema });
  isColour((await runner.run(typed, prompt)).finalOutput);
}
