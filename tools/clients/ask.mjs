// What the scripts for Node have in common; see ask.py.
import assert from "node:assert/strict";

export const {
  ALBIREO_URL: url,
  ALBIREO_MODEL: model,
  ALBIREO_TEXT: text,
  ALBIREO_KEY: apiKey,
  ALBIREO_HAS_SCHEMAS: hasSchemas,
} = process.env;
export const embedding = JSON.parse(process.env.ALBIREO_EMBEDDING);
export const prompt = "Once upon a time";
export const maxTokens = 12;
// For answers in JSON: a model of stories likes blank lines, which JSON allows between its parts.
export const frequencyPenalty = 2;
export const colours = {
  type: "object",
  properties: { colour: { type: "string", enum: ["red", "blue"] } },
  required: ["colour"],
  additionalProperties: false,
};

export function isColour(value) {
  assert.deepEqual(Object.keys(value), ["colour"]);
  assert.ok(["red", "blue"].includes(value.colour), value.colour);
}
