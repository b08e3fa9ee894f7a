// The requests there are: waiting, running, and for a moment those that ended; each with the bar of its tokens.
// Started by live.js.

import { mine } from "./api.js";
import { colour, element, seconds } from "./draw.js";

const MAX_ROWS = 16, MAX_OVER = 6, OVER_MS = 1500;

/** A row of the list, kept as long as its request is shown. */
function makeRow(key, pin) {
  const row = element("li"), button = element("button"), swatch = element("i"), name = element("span", "name");
  const bar = element("div", "bar"), told = element("span", "told");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.append(swatch, name);
  const parts = ["cached", "prompt", "output"].map((kind) => element("b", kind));
  for (const part of parts) part.style.backgroundColor = colour(key);
  bar.append(...parts);
  bar.setAttribute("role", "progressbar");
  bar.setAttribute("aria-label", `Request ${key}`);
  row.append(button, bar, told);
  button.addEventListener("click", () => pin(key));
  return { row, button, swatch, name, bar, parts, told, numMissed: 0 };
}

/** Tokens of a request by part: in the cache, computed of the prompt, of the answer; and how many it may become. */
function tokens(request, holders) {
  const num = request.output_tokens.length;
  const output = request.output_tokens.reduce((sum, each) => sum + each, 0);
  const cached = Math.max(request.cached_tokens, ...holders.map((each) => each[5]));
  const isStarted = output > 0 || request.state === "over";
  const computed = isStarted ? request.prompt_tokens : Math.min(request.prompt_tokens, Math.max(0, ...holders.map((each) => each[4])));
  const all = request.prompt_tokens + (request.max_tokens ?? Math.max(output, 64)) * num;
  return { cached: Math.min(cached, computed), computed, output, all };
}

export function startRequests(setFocus) {
  const list = document.getElementById("requests"), more = document.getElementById("requests-said");
  const rows = new Map();
  let over = [], pinned = null, last = null;

  function pin(key) {
    pinned = pinned === key ? null : key;
    setFocus(pinned);
  }
  list.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse") return;
    const row = event.target.closest("li");
    setFocus(row === null ? pinned : Number(row.dataset.key));
  });
  list.addEventListener("pointerleave", () => setFocus(pinned));

  function take(event) {
    last = event;
    const now = performance.now();
    over = [...over, ...event.over.map((request) => ({ request, until: now + OVER_MS }))];
    for (const mark of document.querySelectorAll("#log i[data-id]:not([data-key])")) {
      const found = [...event.requests, ...event.over].find(({ id }) => id === mark.dataset.id);
      if (!found) continue;
      mark.dataset.key = found.key;
      mark.style.backgroundColor = colour(found.key);
    }
    over = over.filter(({ until }) => until > now).slice(-MAX_OVER);
  }

  function draw(scene) {
    const holders = new Map();
    for (const sequence of last.kv.sequences) holders.set(sequence[0], [...(holders.get(sequence[0]) ?? []), sequence]);
    const active = last.requests.slice(0, MAX_ROWS);
    const shown = [...over.map(({ request }) => request), ...active].sort((a, b) => a.key - b.key);
    const keep = new Set(shown.map(({ key }) => key));
    for (const [key, { row }] of rows) {
      if (keep.has(key)) continue;
      row.remove();
      rows.delete(key);
      if (pinned === key) pin(key);
    }
    shown.forEach((request, place) => {
      if (!rows.has(request.key)) rows.set(request.key, makeRow(request.key, pin));
      const made = rows.get(request.key);
      made.row.dataset.key = request.key;
      if (list.children[place] !== made.row) list.insertBefore(made.row, list.children[place] ?? null);
      fill(made, request, holders.get(request.key) ?? []);
      made.button.setAttribute("aria-pressed", String(pinned === request.key));
    });
    const hidden = last.now.num_requests - active.length;
    if (hidden > 0) more.textContent = `and ${hidden} more`;
    else if (more.textContent.startsWith("and ")) more.textContent = "";
    if (!shown.length && !more.textContent) more.textContent = "Nobody asks for anything.";
    if (shown.length && more.textContent.startsWith("Nobody")) more.textContent = "";
  }

  function fill(made, request, held) {
    const { cached, computed, output, all } = tokens(request, held);
    const num = request.output_tokens.length;
    made.row.className = request.state;
    made.swatch.style.backgroundColor = colour(request.key);
    set(made.name, `#${request.key} ${mine.get(request.id) ?? (num > 1 ? `${num} answers` : "")}`);
    made.button.title = `Show the blocks of ${request.id}`;
    [cached, computed - cached, output].forEach((part, i) => (made.parts[i].style.width = `${(100 * part) / all}%`));
    made.bar.setAttribute("aria-valuemax", all);
    made.bar.setAttribute("aria-valuenow", computed + output);
    // The picture of the blocks may be older than the rest, and a request may have just ended: only who is missing in a
    // later one, and stays so for a while, has been put back.
    const isMissing = request.state === "running" && !held.length && last.kv.at_s > request.arrival_s + request.first_token_s;
    made.numMissed = isMissing ? made.numMissed + 1 : 0;
    set(made.told, told(request, { cached, computed, output }, held.length > 0, made.numMissed > 3));
  }

  return { take, draw };
}

function told(request, { cached, computed, output }, holds, isPutBack) {
  const some = (count, name) => (count ? `, ${count} ${name}${count > 1 ? "s" : ""}` : "");
  const counts = { image: request.num_images, sound: request.num_sounds, video: request.num_videos };
  const shown = Object.entries(counts).map(([name, count]) => some(count, name)).join("");
  const prompt = `${request.prompt_tokens} in${cached ? ` (${cached} found)` : ""}${shown}`;
  if (request.state === "over") {
    const reasons = request.finish_reasons.filter((reason) => reason === "abort" || reason === "error");
    return [`${output} out, ${prompt}`, ...reasons, seconds(request.wall_s)].join(" · ");
  }
  if (output > 0) return `${output} out, ${prompt}${isPutBack ? " · put back, waits" : ""}`;
  return holds ? `${computed} of ${prompt} · prompt` : `${prompt} · waits`;
}

const set = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
