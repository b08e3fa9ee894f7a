// langchain for Node: chats and responses, whole and streamed, calls of tools, typed answers, an agent, embeddings.
import assert from "node:assert/strict";
import { ChatOpenAI, OpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { createAgent, tool, toolStrategy, providerStrategy } from "langchain";
import { z } from "zod";
import { apiKey, embedding, frequencyPenalty, hasSchemas, isColour, maxTokens, model, prompt, text, url } from "./ask.mjs";

const configuration = { baseURL: `${url}/v1` };
const options = { model, apiKey, configuration, temperature: 0, maxRetries: 0 };

for (const useResponsesApi of [false, true]) {
  const chat = new ChatOpenAI({ ...options, useResponsesApi, maxTokens });
  const answer = await chat.invoke(prompt);
  assert.equal(answer.text, text);
  assert.equal(answer.usage_metadata.output_tokens, maxTokens);
  let parts = "";
  for await (const chunk of await chat.stream(prompt)) parts += chunk.text;
  assert.equal(parts, text);
}
assert.ok(await new OpenAI({ ...options, maxTokens }).invoke(prompt));
const embeddings = new OpenAIEmbeddings(options);
assert.deepEqual(await embeddings.embedQuery(prompt), embedding);
assert.deepEqual((await embeddings.embedDocuments(["x", prompt]))[1], embedding);

if (hasSchemas) {
  const schema = z.strictObject({ colour: z.enum(["red", "blue"]) });
  const long = { ...options, maxTokens: 200 };
  const paint = tool(({ colour }) => `It is ${colour}.`, { name: "paint", description: "Paint the fence.", schema });
  for (const useResponsesApi of [false, true]) {
    const chat = new ChatOpenAI({ ...long, useResponsesApi, ...(useResponsesApi ? {} : { frequencyPenalty }) });
    const forced = { tool_choice: "paint", strict: true, parallel_tool_calls: false };
    const called = await chat.bindTools([paint], forced).invoke(prompt);
    isColour(called.tool_calls[0].args);
    let added;
    for await (const chunk of await chat.bindTools([paint], forced).stream(prompt)) added = added ? added.concat(chunk) : chunk;
    assert.deepEqual(added.tool_calls[0].args, called.tool_calls[0].args);
    const messages = [{ role: "user", content: prompt }, called, await paint.invoke(called.tool_calls[0])];
    const short = new ChatOpenAI({ ...options, useResponsesApi, maxTokens });
    assert.equal((await short.invoke(messages)).usage_metadata.output_tokens > 0, true);
    for (const method of ["jsonSchema", "functionCalling"]) {
      isColour(await chat.withStructuredOutput(schema, { method, strict: true, name: "colour" }).invoke(prompt));
    }
    // of responses it does not ask for the call that it needs
    for (const responseFormat of [providerStrategy(schema), ...(useResponsesApi ? [] : [toolStrategy(schema)])]) {
      const agent = createAgent({ model: chat, tools: [], responseFormat });
      const { structuredResponse } = await agent.invoke({ messages: [{ role: "user", content: prompt }] });
      isColour(structuredResponse);
    }
  }
}
