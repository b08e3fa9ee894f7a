// Numbers of now, the last minute as small charts, and where the memory goes. Started by live.js.

import { begin, bytes, count, css, element, percent, seconds } from "./draw.js";

const WINDOW_S = 60, HEIGHT = 74, SMOOTH_S = 1;

const TILES = ["running", "waiting", "tokens out/s", "tokens in/s", "KV in use", "prefix hits", "first token", "next token"];

/** name, words, unit, lines: [variable of the style sheet, value of a point]; dots: only points that have the value. */
const CHARTS = [
  { name: "Throughput", note: "Answer tokens a second, all together.", show: count, lines: [["blue", (p) => p.outputRate]] },
  { name: "First token", note: "A dot a request: its wait, and its prompt.", show: seconds, dots: true, lines: [["gold", (p) => p.first]] },
  { name: "Next token", note: "Gaps: median, and pale the 95th percentile.", show: seconds, lines: [["wash", (p) => p.gap95], ["blue", (p) => p.gap]] },
  { name: "KV blocks", note: "Held, and above it kept for later.", show: percent, most: 1, lines: [["cached", (p) => p.usage + p.kept], ["good", (p) => p.usage]] },
  { name: "Queue", note: "Running, and above it waiting.", show: count, lines: [["cached", (p) => p.running + p.waiting], ["blue", (p) => p.running]] },
];

export function startCharts() {
  const values = makeTiles(document.getElementById("tiles"));
  const charts = CHARTS.map((chart) => ({ ...chart, ...makeChart(document.getElementById("charts"), chart) }));
  const memory = startMemory();
  let points = [], last = null, lookups = null;

  function take(event) {
    const before = points.at(-1);
    const span = before === undefined ? 0.1 : Math.max(0.02, event.at_s - before.at);
    const sum = (field) => event.steps.reduce((total, step) => total + step[field], 0);
    const blocks = Math.max(1, (event.engine?.num_blocks ?? 2) - 1);
    let kept = 0;
    for (let i = 1; i < event.kv.cached.length; i += 2) kept += event.kv.cached[i];
    const point = { at: event.at_s, span, output: sum(3), prompt: sum(2), firsts: event.first_token_s };
    point.running = event.now.num_running;
    point.waiting = event.now.num_waiting;
    point.usage = event.now.kv_usage;
    point.kept = kept / blocks;
    [, point.gap, point.gap95] = event.token_gap_s;
    points.push(point);
    points = points.filter(({ at }) => at > event.at_s - WINDOW_S);
    const recent = points.filter(({ at }) => at > event.at_s - SMOOTH_S);
    const rate = (field) => recent.reduce((total, each) => total + each[field], 0) / recent.reduce((total, each) => total + each.span, 0);
    point.outputRate = rate("output");
    point.promptRate = rate("prompt");
    if (event.now.cache_queries > 0) lookups = event.now;
    last = event;
  }

  /** The middle value of the last ten seconds. */
  function median(found) {
    const sorted = found.filter((value) => value !== undefined).sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : null;
  }

  function draw() {
    const point = points.at(-1), recent = points.filter(({ at }) => at > point.at - 10);
    const told = [
      count(point.running), count(point.waiting), count(point.outputRate), count(point.promptRate), percent(point.usage),
      lookups ? percent(lookups.cache_hits / lookups.cache_queries) : "–",
      seconds(median(recent.flatMap(({ firsts }) => firsts))), seconds(median(recent.map(({ gap }) => gap))),
    ];
    told.forEach((text, i) => values[i].textContent !== text && (values[i].textContent = text));
    for (const chart of charts) drawChart(chart, points, point.at);
    memory(last, point);
  }
  return { take, draw };
}

function makeTiles(list) {
  return TILES.map((name) => {
    const tile = element("div"), value = element("dd", "", "–");
    tile.append(element("dt", "", name), value);
    list.append(tile);
    return value;
  });
}

function makeChart(parent, { name, note }) {
  const box = element("div", "chart"), title = element("h3", "", name), output = element("output"), canvas = element("canvas");
  title.append(output);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  box.append(title, canvas, element("p", "note", note));
  parent.append(box);
  return { canvas, output };
}

function drawChart(chart, points, now) {
  const { canvas, output, lines, show } = chart;
  const { context, width } = begin(canvas, HEIGHT);
  const pairs = ([, value]) => points.flatMap((p) => (chart.dots ? p.firsts.map((first) => [p.at, first]) : [[p.at, value(p)]]));
  const all = lines.map((line) => [line[0], pairs(line).filter(([, value]) => value !== undefined)]);
  const largest = all.reduce((most, [, found]) => found.reduce((high, [, value]) => Math.max(high, value), most), 0);
  const most = chart.most ?? (largest > 0 ? nice(largest) : 1);
  const x = (at) => width - ((now - at) / WINDOW_S) * width;
  const y = (value) => HEIGHT - 2 - (HEIGHT - 16) * Math.min(1, value / most);
  context.strokeStyle = css("line");
  context.lineWidth = 1;
  for (const level of [0, 0.5, 1]) {
    const row = Math.round(y(level * most)) + 0.5;
    context.beginPath();
    context.moveTo(0, row);
    context.lineTo(width, row);
    context.stroke();
  }
  for (const [name, found] of all) {
    context.fillStyle = context.strokeStyle = css(name);
    if (chart.dots) for (const [at, value] of found) dot(context, x(at), y(value));
    else area(context, found.map(([at, value]) => [x(at), y(value)]), y(0), name !== "wash" && name !== "cached");
  }
  context.fillStyle = css("soft");
  if (largest > 0) context.fillText(show(most), 2, 10);
  const current = all.at(-1)[1].at(-1);
  const text = current === undefined ? "" : show(current[1]);
  if (output.textContent !== text) output.textContent = text;
  canvas.setAttribute("aria-label", `${chart.name}, last minute: now ${text || "nothing"}, at most ${show(largest)}`);
}

function dot(context, x, y) {
  context.globalAlpha = 0.75;
  context.beginPath();
  context.arc(x, y, 2.2, 0, 7);
  context.fill();
  context.globalAlpha = 1;
}

/** A line over its area; without the line where another is above it. */
function area(context, found, bottom, hasLine) {
  if (!found.length) return;
  const path = new Path2D();
  found.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
  if (hasLine) {
    context.lineWidth = 1.6;
    context.stroke(path);
  }
  path.lineTo(found.at(-1)[0], bottom);
  path.lineTo(found[0][0], bottom);
  if (hasLine) {
    const colour = context.fillStyle;
    context.fillStyle = css("card");
    context.fill(path);
    context.fillStyle = colour;
    context.globalAlpha = 0.14;
  }
  context.fill(path);
  context.globalAlpha = 1;
}

/** The next of 1, 2, 5, 10 … */
function nice(value) {
  const scale = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((digit) => digit * scale).find((each) => each >= value * 0.999);
}

/** name, class of its colour, bytes. */
function startMemory() {
  const bar = document.getElementById("memory-bar"), list = document.getElementById("memory");
  const names = [["weights", "weights"], ["activations", "arena"], ["KV, held", "used"], ["KV, kept for later", "cached"], ["KV, free", "free"], ["engine process, resident", ""], ["server process, resident", ""]];
  const made = names.map(([name, kind]) => {
    const row = element("div"), title = element("dt"), value = element("dd");
    if (kind) title.append(element("i", `c-${kind}`));
    title.append(name);
    row.append(title, value);
    list.append(row);
    const part = kind ? element("b", `c-${kind}`) : null;
    if (part) bar.append(part);
    return { value, part };
  });
  return (event, point) => {
    if (event.engine === null) return;
    const { weights, arena, kv } = event.engine.memory;
    const sizes = [weights, arena, kv * point.usage, kv * point.kept, kv * Math.max(0, 1 - point.usage - point.kept)];
    const all = sizes.reduce((total, each) => total + each, 0);
    [...sizes, event.now.engine_bytes, event.now.server_bytes].forEach((size, i) => {
      made[i].value.textContent = bytes(Math.round(size));
      if (made[i].part) made[i].part.style.width = `${(100 * size) / all}%`;
    });
  };
}
