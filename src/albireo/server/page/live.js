// The live view: reads /v1/stats while the page is seen, keeps the last minute, and lets the views draw.
// Started by app.js. Does not know how anything is drawn.

import { ask, events, wanted } from "./api.js";
import { startBlocks } from "./blocks.js";
import { startCharts } from "./charts.js";
import { startRequests } from "./requests.js";
import { startSteps } from "./steps.js";

const RETRY_MS = 1000;

/** What several views look at: the last event, and the request that is pointed at. */
const scene = { event: null, focus: null };

export function startLive(showState, tellEngine) {
  const draw = () => {
    if (scene.event !== null) for (const view of views) view.draw(scene);
  };
  const setFocus = (key) => {
    scene.focus = key;
    draw();
  };
  const views = [startBlocks(setFocus), startRequests(setFocus), startSteps(), startCharts()];

  // With less motion wanted, the picture changes twice a second.
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)");
  let isDue = false, drawn = 0;
  const schedule = () => {
    if (isDue) return;
    isDue = true;
    const wait = isCalm.matches ? Math.max(0, drawn + 500 - performance.now()) : 0;
    setTimeout(() => requestAnimationFrame(() => {
      isDue = false;
      drawn = performance.now();
      draw();
    }), wait);
  };
  new ResizeObserver(schedule).observe(document.getElementById("live"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", schedule);

  const take = (event) => {
    scene.event = event;
    for (const view of views) view.take(event);
    showState(...words(event));
    if (event.engine !== null) tellEngine(event.engine);
    schedule();
  };
  follow(take, showState);
}

function words(event) {
  const { num_running, num_waiting, num_swapped } = event.now;
  if (event.state === "ready") {
    if (!event.requests.length) return ["ready, idle", "good"];
    const rest = [[num_waiting, "waiting"], [num_swapped, "swapped"]].filter(([count]) => count);
    return [[`${num_running} running`, ...rest.map((each) => each.join(" "))].join(", "), "good"];
  }
  // of several models one that nobody asked yet: a server of one tells of itself when it is loaded
  if (event.state === "loading" && !event.loaded_frac) return ["not loaded yet", ""];
  const done = ["loading", "waking", "restarting"].includes(event.state) ? ` ${Math.round(100 * event.loaded_frac)} %` : "";
  return [`${event.state}${done}`, event.state === "failed" ? "bad" : ""];
}

/** Read the stream again and again; not while nobody sees the page. */
async function follow(take, showState) {
  for (;;) {
    await visible();
    const stop = new AbortController();
    const hide = () => document.hidden && stop.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      for await (const event of events(await ask(wanted ? `/v1/stats?model=${encodeURIComponent(wanted)}` : "/v1/stats", { signal: stop.signal }))) take(event);
    } catch (error) {
      if (error.name !== "AbortError") showState(error.status === 401 ? "key needed" : "no connection", "bad");
    }
    document.removeEventListener("visibilitychange", hide);
    if (!stop.signal.aborted) await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
  });
}
