// Vercel's AI SDK by its three providers: text, streams, objects, calls of tools, embeddings, errors.
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, embedMany, generateObject, generateText, isStepCount, streamObject, streamText, tool } from "ai";
import { z } from "zod";
import { apiKey, embedding, frequencyPenalty, hasSchemas, isColour, maxTokens, model, prompt, text, url } from "./ask.mjs";

const baseURL = `${url}/v1`;
const compatible = createOpenAICompatible({ name: "albireo", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true });
const openai = createOpenAI({ baseURL, apiKey });
const anthropic = createAnthropic({ baseURL, apiKey });
const models = {
  compatible: compatible.chatModel(model),
  chat: openai.chat(model),
  responses: openai.responses(model),
  messages: anthropic(model),
};
const short = { prompt, temperature: 0, maxOutputTokens: maxTokens, maxRetries: 0 };

for (const [name, each] of Object.entries(models)) {
  const whole = await generateText({ ...short, model: each });
  assert.equal(whole.text, text, name);
  assert.equal(whole.finishReason, "length", name);
  assert.equal(whole.usage.outputTokens, maxTokens, name);
  const streamed = streamText({ ...short, model: each, onError: ({ error }) => { throw error; } });
  let parts = "";
  for await (const part of streamed.textStream) parts += part;
  assert.equal(parts, text, `${name}, streamed`);
  assert.equal((await streamed.usage).outputTokens, maxTokens, `${name}, streamed`);
  const talk = [{ role: "system", content: "A story." }, { role: "user", content: prompt }, { role: "assistant", content: parts }];
  const { prompt: _, ...rest } = short;
  assert.ok((await generateText({ ...rest, model: each, allowSystemInMessages: true, messages: [...talk, { role: "user", content: "And" }] })).text, name);
  await assert.rejects(generateText({ ...short, model: each, topP: 2 }), (error) => APICallError.isInstance(error) && error.statusCode === 400);
}
assert.ok((await generateText({ ...short, model: compatible.completionModel(model) })).text);
assert.ok((await generateText({ ...short, model: openai.completion(model) })).text);
for (const provider of [compatible, openai]) {
  const { embeddings } = await embedMany({ model: provider.textEmbeddingModel?.(model) ?? provider.embeddingModel(model), values: ["x", prompt] });
  assert.deepEqual(embeddings[1], embedding);
}

if (hasSchemas) {
  const schema = z.strictObject({ colour: z.enum(["red", "blue"]) });
  const long = { prompt, temperature: 0, maxOutputTokens: 200, maxRetries: 0 };
  for (const [name, each] of Object.entries(models)) {
    const brief = ["compatible", "chat"].includes(name) ? { ...long, frequencyPenalty } : long;
    const paint = tool({ description: "Paint the fence.", inputSchema: schema, execute: async ({ colour }) => `It is ${colour}.` });
    const forced = { ...brief, model: each, tools: { paint }, toolChoice: { type: "tool", toolName: "paint" } };
    const called = await generateText(forced);
    assert.equal(called.toolCalls[0].toolName, "paint", name);
    isColour(called.toolCalls[0].input);
    assert.equal(called.toolResults[0].output, `It is ${called.toolCalls[0].input.colour}.`, name);
    const streaming = streamText({ ...forced, onError: ({ error }) => { throw error; } });
    let deltas = "";
    for await (const part of streaming.fullStream) if (part.type === "tool-input-delta") deltas += part.delta;
    isColour(JSON.parse(deltas));
    assert.deepEqual((await streaming.toolCalls)[0].input, called.toolCalls[0].input, name);
    // the call and its result go back, and words follow
    const steps = await generateText({
      ...forced,
      stopWhen: isStepCount(2),
      prepareStep: ({ stepNumber }) => (stepNumber > 0 ? { toolChoice: "none" } : {}),
      maxOutputTokens: 100,
    });
    assert.equal(steps.steps.length, 2, name);
    isColour((await generateObject({ ...brief, model: each, schema })).object);
    isColour((await generateText({ ...brief, model: each, output: Output.object({ schema }) })).output);
    const objects = streamObject({ ...brief, model: each, schema, onError: ({ error }) => { throw error; } });
    let partial;
    for await (partial of objects.partialObjectStream);
    isColour(partial);
    assert.deepEqual(await objects.object, partial, name);
  }
}
