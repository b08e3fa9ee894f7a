// ollama for Node: chat, generate, embed, streams, schemas, models, typed exceptions.
import assert from "node:assert/strict";
import { Ollama } from "ollama";
import { apiKey, colours, embedding, hasSchemas, isColour, maxTokens, model, prompt, text, url } from "./ask.mjs";

const client = new Ollama({ host: url, headers: { Authorization: `Bearer ${apiKey}` } });
const options = { temperature: 0, num_predict: maxTokens };
const messages = [{ role: "user", content: prompt }];

const answer = await client.chat({ model, messages, options });
assert.equal(answer.message.content, text);
assert.deepEqual([answer.done_reason, answer.eval_count], ["length", maxTokens]);
let parts = "";
let last;
for await (const part of await client.chat({ model, messages, options, stream: true, keep_alive: "5m" })) {
  parts += part.message.content;
  last = part;
}
assert.equal(parts, text);
assert.deepEqual([last.done, last.eval_count], [true, maxTokens]);
assert.equal((await client.generate({ model, prompt, options })).response, text);
assert.deepEqual((await client.embed({ model, input: ["x", prompt] })).embeddings[1], embedding);
assert.deepEqual((await client.list()).models.map((each) => each.name), [`${model}:latest`]);
assert.deepEqual((await client.ps()).models.map((each) => each.name), [`${model}:latest`]);
assert.ok((await client.show({ model })).capabilities.includes("completion"));
await assert.rejects(client.chat({ model: "other", messages }), (error) => error.status_code === 404);
await assert.rejects(client.pull({ model: "other" }), /albireo serve/);
if (hasSchemas) {
  const long = { temperature: 0, num_predict: 200, frequency_penalty: 2 };
  isColour(JSON.parse((await client.chat({ model, messages, options: long, format: colours })).message.content));
}
