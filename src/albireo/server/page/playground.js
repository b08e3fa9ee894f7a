// Ask the model something, and see the answer as it is made. Started by app.js; text of models is only ever text here.

import { ask, events, key, note } from "./api.js";
import { startAttachments } from "./attachments.js";
import { element, say, seconds } from "./draw.js";
import { AttachedFile, curl, pythonCode } from "./snippets.js";

const byId = (id) => document.getElementById(id);
const WHOLE = new Set(["top_k", "max_tokens", "seed"]);
const FIRST = { chat: "Tell me a story about a little fox.", completion: "Once upon a time, a little fox" };
const HINTS = {
  chat: "Say something; the answer appears as it is made.",
  completion: "Write the beginning of a text; the model goes on with it.",
};

const form = byId("ask"), prompt = byId("prompt"), log = byId("log"), timing = byId("timing");
let model = null, turns = [], running = null, taken = null;

const mode = () => new FormData(form).get("mode");

const attachments = startAttachments(({ noun }) => {
  if (!taken?.[noun]) return taken === null ? "the model is not known yet" : `chats with this model take no ${noun}s`;
  return mode() === "chat" ? "" : `${noun}s are for chats`;
});

/** A message of a user. address: what stands for the content of a file. */
function message({ text, attached }, address) {
  if (!attached.length) return { role: "user", content: text };
  const parts = attached.map((each) => each.medium.part(address(each)));
  return { role: "user", content: [...parts, ...(text ? [{ type: "text", text }] : [])] };
}

/** The request that the form describes, with this text and what is attached. */
function request(text, address) {
  const fields = new FormData(form);
  const body = { model: model.id };
  const system = fields.get("system").trim();
  if (mode() === "chat") {
    const before = turns.flatMap((each) => [message(each, address), { role: "assistant", content: each.answer }]);
    const now = message({ text, attached: attachments.held() }, address);
    body.messages = [...(system ? [{ role: "system", content: system }] : []), ...before, now];
  } else {
    body.prompt = text;
  }
  for (const name of ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"]) {
    const value = fields.get(name).trim();
    if (value !== "") body[name] = WHOLE.has(name) ? Math.round(Number(value)) : Number(value);
  }
  const stop = fields.get("stop").split("|").filter((each) => each !== "");
  if (stop.length) body.stop = stop;
  body.stream = true;
  body.stream_options = { include_usage: true };
  return { path: mode() === "chat" ? "/v1/chat/completions" : "/v1/completions", body };
}

function turn(kind, who) {
  log.querySelector(".empty")?.remove();
  const made = element("div", `turn ${kind}`);
  const name = element("div", "who");
  const mark = element("i");
  name.append(mark, element("span", "", who));
  const text = element("p");
  made.append(name, text);
  log.append(made);
  return { made, text, mark };
}

function showMessage(text, shown) {
  const said = turn("user", "you");
  said.text.textContent = text;
  if (!shown.length) return;
  const strip = element("div", "strip");
  strip.append(...shown.map((each) => each.medium.shown(each)));
  said.text.before(strip);
}

function follow(change) {
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  change();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

/** Read an answer into a paragraph. Returns: its text, and what there is to say about it. */
async function read(response, text, mark, asked) {
  const found = { text: "", first: null, last: null, usage: null, reason: null, error: null };
  for await (const event of events(response)) {
    if (event.error) {
      found.error = event.error.message;
      break;
    }
    if (event.id) {
      note(event.id, "yours");
      mark.dataset.id = event.id; // the list of requests gives it their colour
    }
    if (event.usage) found.usage = event.usage;
    const choice = event.choices?.[0];
    if (!choice) continue;
    const piece = choice.delta?.content ?? choice.text ?? "";
    if (piece) {
      found.last = performance.now();
      found.first ??= found.last;
      found.text += piece;
      follow(() => text.append(piece));
    }
    found.reason = choice.finish_reason ?? found.reason;
    if (found.first !== null) tell(found, asked, "…", false);
  }
  return found;
}

function tell(found, asked, end, isEnd) {
  const parts = [];
  if (found.first !== null) parts.push(`first token ${seconds((found.first - asked) / 1000)}`);
  if (found.usage) {
    const { prompt_tokens, completion_tokens, prompt_tokens_details } = found.usage;
    const spent = (found.last - found.first) / 1000;
    if (completion_tokens > 1 && spent > 0) parts.push(`${((completion_tokens - 1) / spent).toFixed(0)} tokens/s`);
    const cached = prompt_tokens_details?.cached_tokens;
    parts.push(`${prompt_tokens} tokens in${cached ? ` (${cached} from the cache)` : ""}, ${completion_tokens} out`);
  }
  parts.push(end);
  say(timing, parts.join(" · "), isEnd);
}

async function send() {
  const text = prompt.value;
  const shown = attachments.held();
  if (running || (!text.trim() && !shown.length)) return;
  if (attachments.isOpening()) return say(timing, "a file is still being read", true);
  const isChat = mode() === "chat";
  const { path, body } = request(text, ({ url }) => url);
  if (isChat) showMessage(text, shown);
  const answer = turn("answer", model.id);
  if (!isChat) answer.text.textContent = text;
  const made = element("span", isChat ? "" : "made");
  answer.text.append(made);
  if (isChat) {
    prompt.value = "";
    attachments.set([]);
  }
  log.scrollTop = log.scrollHeight;
  running = new AbortController();
  setRunning(true);
  const asked = performance.now();
  let found = null;
  say(timing, "waiting for the first token …");
  try {
    found = await read(await ask(path, { body, signal: running.signal }), made, answer.mark, asked);
    if (found.error) throw new Error(found.error);
    tell(found, asked, `ended: ${found.reason ?? "cut off"}`, true);
  } catch (error) {
    if (error.name === "AbortError") {
      say(timing, `stopped after ${seconds((performance.now() - asked) / 1000)}; its blocks are free again`, true);
    } else {
      answer.made.className = "turn error";
      made.textContent = error.message;
      say(timing, "the server refused", true);
      if (isChat) {
        prompt.value = text;
        attachments.set(shown);
      }
    }
  }
  const answered = made.textContent;
  if (isChat && answer.made.className === "turn answer" && answered) {
    turns.push({ text, attached: shown, answer: answered });
  }
  running = null;
  setRunning(false);
}

function setRunning(is) {
  byId("send").disabled = is;
  byId("stop").disabled = !is;
  log.setAttribute("aria-busy", String(is));
}

function clear() {
  running?.abort();
  turns = [];
  log.replaceChildren(element("p", "empty", HINTS[mode()]));
  say(timing, "");
  byId("snippet").hidden = true;
}

function showMode() {
  clear();
  byId("system-field").hidden = mode() !== "chat";
  attachments.show();
}

async function copy(name, code) {
  const held = attachments.held();
  const { path, body } = request(prompt.value || (held.length ? "" : FIRST[mode()]), (each) => new AttachedFile(each));
  const text = code(path, body, key() !== "");
  byId("snippet-text").textContent = text;
  byId("snippet").hidden = false;
  let words = `${name}, copied`;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    words = `${name}; the browser lets nobody copy here, so select it`;
  }
  if (key()) words += "; the key comes from the variable ALBIREO_API_KEY";
  const sent = mode() === "chat" ? [...turns.flatMap(({ attached }) => attached), ...held] : [];
  const nouns = [...new Set(sent.map(({ medium }) => `${medium.noun}s`))];
  if (nouns.length) words += `; ${nouns.join(" and ")} are read from files where the code runs`;
  byId("snippet-said").textContent = words;
}

function summarize() {
  const fields = new FormData(form);
  const names = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "stop", "system"];
  const set = names.filter((name) => fields.get(name).trim() !== "");
  byId("parameters-said").textContent = set.map((name) => `${name} ${fields.get(name).slice(0, 20)}`).join(", ");
}

/** What the live view learned about the engine. */
export function setEngine(engine) {
  if (taken?.picture === engine.reads_images && taken.sound === engine.hears_sounds) return;
  taken = { picture: engine.reads_images, sound: engine.hears_sounds };
  attachments.show();
}

export function startPlayground(named) {
  model = named;
  // The bundled model goes on with stories; it never learned to talk.
  if (model.id === "story") form.elements.mode.value = "completion";
  prompt.value = FIRST[mode()];
  showMode();
  summarize();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  form.addEventListener("input", summarize);
  for (const radio of form.elements.mode) {
    radio.addEventListener("change", () => {
      showMode();
      if (!prompt.value || Object.values(FIRST).includes(prompt.value)) prompt.value = FIRST[mode()];
    });
  }
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  byId("stop").addEventListener("click", () => running?.abort());
  byId("clear").addEventListener("click", clear);
  byId("as-curl").addEventListener("click", () => copy("curl", curl));
  byId("as-python").addEventListener("click", () => copy("Python", pythonCode));
}
