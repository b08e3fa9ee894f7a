// A request as code: curl, and Python with the openai package. Used by playground.js. Keys are never written out; what is
// attached is files that are read where the code runs.

import { address } from "./api.js";

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Stands in a request for the data: URL of what is attached. */
export class AttachedFile {
  constructor({ name, type }) {
    this.name = name;
    this.type = type;
  }
}

const holdsFile = (value) =>
  value instanceof AttachedFile || (typeof value === "object" && value !== null && Object.values(value).some(holdsFile));

/** A value as JSON in a here-document, in which a shell puts files in their places. */
function shellJson(value) {
  if (value instanceof AttachedFile) {
    return `"data:${value.type};base64,$(base64 < ${quote(value.name)} | tr -d '\\n')"`;
  }
  if (Array.isArray(value)) return `[${value.map(shellJson).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}:${shellJson(each)}`).join(",")}}`;
  }
  return JSON.stringify(value).replace(/[\\$`]/g, "\\$&");
}

/** A value as Python writes it. */
function python(value, indent) {
  const deeper = `${indent}    `;
  if (Array.isArray(value)) return `[\n${value.map((each) => `${deeper}${python(each, deeper)},\n`).join("")}${indent}]`;
  if (value instanceof AttachedFile) return `data_url(${JSON.stringify(value.name)}, ${JSON.stringify(value.type)})`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, deeper)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

export function curl(path, body, hasKey) {
  const lines = [`curl -N ${address(path)}`, "-H 'Content-Type: application/json'"];
  if (hasKey) lines.push('-H "Authorization: Bearer $ALBIREO_API_KEY"');
  lines.push(holdsFile(body) ? `-d @- <<JSON\n${shellJson(body)}\nJSON` : `-d ${quote(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

// Beyond OpenAI's own: the client wants them apart.
const EXTRA = new Set(["top_k", "min_p"]);

const DATA_URL = [
  "",
  "def data_url(name, kind):",
  '    return f"data:{kind};base64,{base64.b64encode(Path(name).read_bytes()).decode()}"',
  "",
  "",
];

export function pythonCode(path, body, hasKey) {
  const isChat = path.endsWith("/chat/completions");
  const own = Object.entries(body).filter(([name]) => !EXTRA.has(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => EXTRA.has(name)));
  const lines = own.map(([name, value]) => `    ${name}=${python(value, "    ")},`);
  if (Object.keys(extra).length) lines.push(`    extra_body=${python(extra, "    ")},`);
  const text = isChat ? "chunk.choices[0].delta.content" : "chunk.choices[0].text";
  const given = hasKey ? 'os.environ["ALBIREO_API_KEY"]' : '"none"';
  const needs = [...(holdsFile(body) ? ["import base64"] : []), ...(hasKey ? ["import os"] : [])];
  if (holdsFile(body)) needs.push("from pathlib import Path");
  return [
    ...needs,
    ...(needs.length ? [""] : []),
    "from openai import OpenAI",
    "",
    ...(holdsFile(body) ? DATA_URL : []),
    `client = OpenAI(base_url="${address("/v1")}", api_key=${given})`,
    `stream = client.${isChat ? "chat.completions" : "completions"}.create(`,
    ...lines,
    ")",
    "for chunk in stream:",
    "    if chunk.choices:",
    `        print(${text} or "", end="", flush=True)`,
    "",
  ].join("\n");
}
