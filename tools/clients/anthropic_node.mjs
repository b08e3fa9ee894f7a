// anthropic for Node: messages, streams, calls of tools and their results, tokens counted, typed exceptions.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { apiKey, colours, hasSchemas, isColour, maxTokens, model, prompt, text, url } from "./ask.mjs";

const client = new Anthropic({ baseURL: url, apiKey, maxRetries: 0 });
const ask = { model, messages: [{ role: "user", content: prompt }], max_tokens: maxTokens, temperature: 0 };

const answer = await client.messages.create(ask);
assert.equal(answer.content[0].text, text);
assert.equal(answer.stop_reason, "max_tokens");
const stream = client.messages.stream(ask);
let parts = "";
stream.on("text", (delta) => (parts += delta));
const final = await stream.finalMessage();
assert.equal(parts, text);
assert.deepEqual(final.content[0].text, text);
assert.equal(final.usage.output_tokens, maxTokens);
const kinds = [];
for await (const event of await client.messages.create({ ...ask, stream: true })) kinds.push(event.type);
assert.deepEqual([kinds[0], kinds.at(-1)], ["message_start", "message_stop"]);
const { input_tokens: count } = await client.messages.countTokens({ model, messages: ask.messages });
assert.equal(count, answer.usage.input_tokens + answer.usage.cache_read_input_tokens);
assert.ok((await client.models.list()).data.some((each) => each.id === model));

await assert.rejects(client.messages.create({ ...ask, model: "other" }), Anthropic.NotFoundError);
await assert.rejects(client.messages.create({ ...ask, top_p: 2 }), Anthropic.BadRequestError);
const wrong = new Anthropic({ baseURL: url, apiKey: "wrong", maxRetries: 0 });
await assert.rejects(wrong.messages.create(ask), Anthropic.AuthenticationError);

if (hasSchemas) {
  const tool = { name: "paint", description: "Paint the fence.", input_schema: colours };
  const forced = { ...ask, max_tokens: 200, tools: [tool], tool_choice: { type: "tool", name: "paint" } };
  const called = await client.messages.create(forced);
  assert.equal(called.stop_reason, "tool_use");
  isColour(called.content[0].input);
  const streaming = client.messages.stream(forced);
  let last;
  streaming.on("inputJson", (_, snapshot) => (last = snapshot));
  assert.deepEqual((await streaming.finalMessage()).content[0].input, called.content[0].input);
  isColour(last);
  const result = { role: "user", content: [{ type: "tool_result", tool_use_id: called.content[0].id, content: "Done." }] };
  const messages = [...ask.messages, { role: "assistant", content: called.content }, result];
  assert.equal((await client.messages.create({ ...ask, messages, tools: [tool] })).content[0].type, "text");
  const config = { format: { type: "json_schema", schema: colours } };
  isColour(JSON.parse((await client.messages.create({ ...ask, max_tokens: 200, output_config: config })).content[0].text));
}
