// The demonstration load: a few clients at once, half of them with one long beginning in common, for a bounded time.
// Started by app.js. Asks like any client; bounded in clients, requests and seconds.

import { ask, note } from "./api.js";

const SECONDS = 30, MAX_REQUESTS = 1000;
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

/** What client number `place` asks for in its round: four share a beginning, two are short, one is long, one has three
 * continuations. */
function request(place, round, context) {
  const share = (part) => Math.max(8, Math.floor(context * part));
  const rest = { temperature: 0.9, ignore_eos: true, seed: place + 8 * round };
  if (place < 4) {
    const prompt = `${long(Math.min(share(0.35), 700), `Chapter ${round}.`)} ${ENDS[place]}`;
    return { prompt, max_tokens: Math.min(share(0.2) + 24 * place, 220), ...rest };
  }
  if (place < 6) return { prompt: STARTS[(place + round) % 4], max_tokens: Math.min(share(0.6), 400), ...rest };
  if (place === 6) return { prompt: long(Math.min(share(0.6), 1400), `Part ${round} of a long tale.`), max_tokens: 24, ...rest };
  return { prompt: long(Math.min(share(0.15), 200), `Story ${round}.`), n: 3, max_tokens: Math.min(share(0.3), 150), ...rest };
}

let running = null;

async function client(place, context, signal, until) {
  for (let round = 1; round <= MAX_REQUESTS / 8 && performance.now() < until; round++) {
    const response = await ask("/v1/completions", { body: request(place, round, context), signal });
    note((await response.json()).id);
  }
}

async function run(button, context, told) {
  running = new AbortController();
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Stop demonstration load";
  const until = performance.now() + SECONDS * 1000;
  const clients = Array.from({ length: 8 }, (_, place) => client(place, context, running.signal, until));
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
      run(button, model.max_model_len, told);
    }
  });
}
