// The demonstration load: eight requests at once, half of them with one long beginning in common, for a bounded time.
// Started by app.js. Asks like any client. A browser opens six connections to a server, of which the live view has one and
// the playground wants one: four are left, so some clients ask for several prompts at once.

import { ask, note } from "./api.js";

const SECONDS = 30, CLIENTS = 4, MAX_ROUNDS = 250, CHAPTER_MS = 5000;
const WORDS = `There was a small town by the river, and in it lived a baker who knew all the children by name. Every morning
he put warm bread in the window, and every morning a little fox came to the door and waited.`.split(/\s+/);
const ENDS = ["Then the fox said", "One day it rained and", "The children laughed because", "In the night the baker"];
const STARTS = ["Once upon a time", "Lily had a red ball", "The old man", "Tom and his dog went to the park"];

/** A text of about so many tokens. */
function long(tokens, first) {
  const words = [first];
  while (words.length < tokens / 1.3) words.push(WORDS[words.length % WORDS.length]);
  return words.join(" ");
}

/** What client number `place` asks for. Returns: what it is, and the request. Those of the first two share a beginning, a
 * new one every few seconds. */
function request(place, round, spent, context) {
  const share = (part, most) => Math.max(8, Math.min(most, Math.floor(context * part)));
  const rest = { temperature: 0.9, seed: place + CLIENTS * round, min_tokens: 16 };
  if (place < 2) {
    const beginning = long(share(0.45, 700), `Chapter ${Math.floor(spent / CHAPTER_MS)}.`);
    const prompt = ENDS.slice(2 * place, 2 * place + 2).map((end) => `${beginning} ${end}`);
    return ["shared beginning", { prompt, max_tokens: share(place ? 0.3 : 0.15, 220), ...rest }];
  }
  if (place === 2) return ["short prompt", { prompt: STARTS.slice(round % 2, (round % 2) + 3), max_tokens: share(0.6, 400), ...rest }];
  if (round % 2) return ["long prompt", { prompt: long(share(0.6, 1400), `Part ${round} of a long tale.`), max_tokens: 24, ...rest }];
  return ["three answers", { prompt: long(share(0.25, 200), `Story ${round}.`), n: 3, max_tokens: share(0.35, 180), ...rest }];
}

let running = null;

async function client(model, place, signal, name) {
  // of one that was never loaded it is not known
  const context = model.max_model_len ?? 256;
  const started = performance.now();
  for (let round = 1; round <= MAX_ROUNDS; round++) {
    const spent = performance.now() - started;
    if (spent > SECONDS * 1000) return;
    const [what, body] = request(place, round, spent, context);
    const id = `${name}-${place}-${round}`;
    note(`cmpl-${id}`, what);
    await (await ask("/v1/completions", { body: { model: model.id, ...body, request_id: id }, signal })).arrayBuffer();
  }
}

async function run(button, model, told) {
  running = new AbortController();
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Stop demonstration load";
  const name = `demo-${Math.random().toString(36).slice(2, 10)}`;
  const clients = Array.from({ length: CLIENTS }, (_, place) => client(model, place, running.signal, name));
  for (const result of await Promise.allSettled(clients)) {
    if (result.status === "rejected" && result.reason.name !== "AbortError") told(result.reason.message);
  }
  running = null;
  button.setAttribute("aria-pressed", "false");
  button.textContent = "Start demonstration load";
}

export function startLoad(model) {
  const button = document.getElementById("load"), said = document.getElementById("requests-said");
  const told = (words) => (said.textContent = words);
  button.addEventListener("click", () => {
    if (running) running.abort();
    else {
      told("");
      run(button, model, told);
    }
  });
}
