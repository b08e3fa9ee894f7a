// A request as code: curl, and Python with the openai package. Used by playground.js. Keys are never written out.

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A value as Python writes it. */
function python(value, indent) {
  const deeper = `${indent}    `;
  if (Array.isArray(value)) return `[\n${value.map((each) => `${deeper}${python(each, deeper)},\n`).join("")}${indent}]`;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, deeper)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

export function curl(path, body, hasKey) {
  const lines = [`curl -N ${location.origin}${path}`, "-H 'Content-Type: application/json'"];
  if (hasKey) lines.push('-H "Authorization: Bearer $ALBIREO_API_KEY"');
  lines.push(`-d ${quote(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

// Beyond OpenAI's own: the client wants them apart.
const EXTRA = new Set(["top_k", "min_p"]);

export function pythonCode(path, body, hasKey) {
  const isChat = path.endsWith("/chat/completions");
  const own = Object.entries(body).filter(([name]) => !EXTRA.has(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => EXTRA.has(name)));
  const lines = own.map(([name, value]) => `    ${name}=${python(value, "    ")},`);
  if (Object.keys(extra).length) lines.push(`    extra_body=${python(extra, "    ")},`);
  const text = isChat ? "chunk.choices[0].delta.content" : "chunk.choices[0].text";
  const given = hasKey ? 'os.environ["ALBIREO_API_KEY"]' : '"none"';
  return [
    ...(hasKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${location.origin}/v1", api_key=${given})`,
    `stream = client.${isChat ? "chat.completions" : "completions"}.create(`,
    ...lines,
    ")",
    "for chunk in stream:",
    "    if chunk.choices:",
    `        print(${text} or "", end="", flush=True)`,
    "",
  ].join("\n");
}
