// What all drawings share: canvases that are sharp, colours of the style sheet and of requests, numbers for reading.
// Used by the views. Does not know the engine.

const cache = new Map();
for (const query of ["(prefers-color-scheme: dark)"]) matchMedia(query).addEventListener("change", () => cache.clear());

/** A colour (or other variable) of the style sheet. */
export function css(name) {
  if (!cache.has(name)) cache.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return cache.get(name);
}

/** The colour of a request; neighbours in time are far apart, continuations of one request are shades. */
export function colour(key, index = 0) {
  const name = `request ${key} ${index}`;
  if (!cache.has(name)) {
    if (cache.size > 4000) cache.clear();
    const light = parseFloat(css("light")) + (index % 2 ? -1 : 1) * Math.min(index, 6) * 4;
    cache.set(name, `hsl(${Math.round((211 + key * 137.508) % 360)} ${css("chroma")} ${light}%)`);
  }
  return cache.get(name);
}

/** Prepare a canvas of this height in CSS pixels. Returns its context, scaled, and its width. */
export function begin(canvas, height) {
  const width = Math.max(1, canvas.clientWidth), scale = devicePixelRatio || 1;
  const pixels = Math.round(width * scale), rows = Math.round(height * scale);
  if (canvas.width !== pixels || canvas.height !== rows) {
    canvas.width = pixels;
    canvas.height = rows;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = '11px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
  return { context, width };
}

/** An element with a class and a text. */
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}

/** Put words into an element, read aloud only when somebody asked for them: what changes ten times a second is not. */
export function say(node, words, isAsked = false) {
  const live = isAsked ? "polite" : "off";
  if (node.getAttribute("aria-live") !== live) node.setAttribute("aria-live", live);
  if (node.textContent !== words) node.textContent = words;
}

export const count = (value) => Math.round(value).toLocaleString("en");

export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value >= 10) return `${value.toFixed(1)} s`;
  if (value >= 1) return `${value.toFixed(2)} s`;
  const ms = value * 1000;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

export function bytes(value) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (value >= size) return `${(value / size).toFixed(value >= 100 * size ? 0 : 1)} ${unit}`;
  }
  return `${value} B`;
}

export const percent = (part) => `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
