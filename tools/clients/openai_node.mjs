// openai for Node: chat, stream, responses, embeddings, batches, typed exceptions.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const { ALBIREO_URL: url, ALBIREO_MODEL: model, ALBIREO_TEXT: text, ALBIREO_KEY: apiKey } = process.env;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const prompt = "Once upon a time";
const ask = { model, messages: [{ role: "user", content: prompt }], temperature: 0, max_tokens: 12 };

assert.equal((await client.chat.completions.create(ask)).choices[0].message.content, text);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(streamed, text);
assert.equal((await client.chat.completions.stream(ask).finalMessage()).content, text);

const response = { model, input: prompt, temperature: 0, max_output_tokens: 12 };
assert.equal((await client.responses.create(response)).output_text, text);
let deltas = "";
for await (const event of await client.responses.create({ ...response, stream: true })) {
  if (event.type === "response.output_text.delta") deltas += event.delta;
}
assert.equal(deltas, text);

const embedded = await client.embeddings.create({ model, input: ["x", prompt] });
assert.deepEqual(embedded.data[1].embedding, JSON.parse(process.env.ALBIREO_EMBEDDING));

const line = { custom_id: "one", method: "POST", url: "/v1/chat/completions", body: ask };
const file = await client.files.create({ file: await toFile(Buffer.from(JSON.stringify(line)), "asks.jsonl"), purpose: "batch" });
let batch = await client.batches.create({ input_file_id: file.id, endpoint: line.url, completion_window: "24h" });
for (let i = 0; i < 1000 && batch.status !== "completed"; i++) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  batch = await client.batches.retrieve(batch.id);
}
const told = JSON.parse(await (await client.files.content(batch.output_file_id)).text());
assert.equal(told.response.body.choices[0].message.content, text);
assert.ok((await client.files.delete(file.id)).deleted);

await assert.rejects(client.chat.completions.create({ ...ask, model: "other" }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...ask, top_p: 2 }), OpenAI.BadRequestError);
const wrong = new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 });
await assert.rejects(wrong.chat.completions.create(ask), OpenAI.AuthenticationError);
