// The steps of the engine, newest at the right: tokens above, time below. Started by live.js.

import { begin, count, css, say, seconds } from "./draw.js";

const MAX_KEPT = 400, BAR = 5, GAP = 1, LEFT = 46, ABOVE = 96, BELOW = 44, HEIGHT = ABOVE + BELOW + 8;
const TICKS = [1, 10, 50, 200, 500, 1000, 2000, 5000, 10000, 50000];

export function startSteps() {
  const canvas = document.getElementById("steps"), said = document.getElementById("step-said");
  const hint = said.textContent;
  let steps = [], chosen = null, width = 0;

  function take(event) {
    for (const [, spent, prompt, output, num] of event.steps) {
      steps.push({ time: spent / num, prompt: prompt / num, output: output / num, num });
    }
    steps = steps.slice(-MAX_KEPT);
  }

  const shown = () => steps.slice(-Math.floor((width - LEFT) / (BAR + GAP)));

  function draw() {
    const begun = begin(canvas, HEIGHT), { context } = begun;
    width = begun.width;
    const bars = shown();
    const most = Math.max(12, ...bars.map(({ prompt, output }) => prompt + output));
    const longest = Math.max(1e-4, ...bars.map(({ time }) => time));
    const height = (tokens) => (ABOVE - 10) * Math.sqrt(tokens / most);
    axis(context, most, longest, height);
    bars.forEach(({ time, prompt, output }, place) => {
      const x = width - (bars.length - place) * (BAR + GAP);
      const low = height(output), high = height(output + prompt);
      context.globalAlpha = chosen === null || chosen === place ? 1 : 0.45;
      context.fillStyle = css("blue");
      context.fillRect(x, ABOVE - low, BAR, low);
      context.fillStyle = css("gold");
      context.fillRect(x, ABOVE - high, BAR, high - low);
      context.globalAlpha *= 0.6;
      context.fillStyle = css("soft");
      context.fillRect(x, ABOVE + 4, BAR, Math.max(1, (BELOW - 4) * Math.sqrt(time / longest)));
    });
    context.globalAlpha = 1;
    say(said, chosen !== null && bars[chosen] ? describe(bars[chosen]) : hint, chosen !== null);
  }

  function axis(context, most, longest, height) {
    context.fillStyle = css("soft");
    context.strokeStyle = css("line");
    context.lineWidth = 1;
    context.textAlign = "right";
    let last = ABOVE + 99;
    for (const tick of [0, ...TICKS].filter((value) => value <= most)) {
      const y = ABOVE - height(tick);
      if (last - y < 13) continue;
      last = y;
      context.beginPath();
      context.moveTo(LEFT, Math.round(y) + 0.5);
      context.lineTo(width, Math.round(y) + 0.5);
      context.stroke();
      context.fillText(tick >= 1000 ? `${tick / 1000}k` : tick, LEFT - 6, y + 4);
    }
    context.textAlign = "left";
    context.fillText(seconds(longest), 0, ABOVE + BELOW + 4);
  }

  function describe({ time, prompt, output, num }) {
    const who = num === 1 ? "One step" : `${num} steps, each on average`;
    const tokens = (value, what) => `${value < 10 && value % 1 ? value.toFixed(1) : count(value)} ${what}`;
    return `${who}: ${tokens(prompt, "prompt tokens")} and ${tokens(output, "answer tokens")} in ${seconds(time)}.`;
  }

  function choose(place) {
    chosen = place !== null && place >= 0 && place < shown().length ? place : null;
    draw();
  }
  canvas.addEventListener("pointermove", (event) => {
    const right = canvas.getBoundingClientRect().right - event.clientX;
    choose(shown().length - 1 - Math.floor(right / (BAR + GAP)));
  });
  canvas.addEventListener("pointerleave", () => choose(null));
  canvas.addEventListener("blur", () => choose(null));
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") choose(null);
    if (!by) return;
    event.preventDefault();
    choose(Math.min(shown().length - 1, Math.max(0, (chosen ?? shown().length) + by)));
  });
  return { take, draw };
}
