// openai for Node: chat, stream, responses, embeddings, typed exceptions.
import assert from "node:assert/strict";
import OpenAI from "openai";

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

await assert.rejects(client.chat.completions.create({ ...ask, model: "other" }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...ask, top_p: 2 }), OpenAI.BadRequestError);
const wrong = new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 });
await assert.rejects(wrong.chat.completions.create(ask), OpenAI.AuthenticationError);
