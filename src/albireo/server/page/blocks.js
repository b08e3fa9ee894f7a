// The map of the KV blocks: who holds each, how far it is filled, what is kept for later.
// Started by live.js. Reads the part "kv" of an event; see docs/serving.md.

import { begin, colour, count, css, say } from "./draw.js";

const MAX_HEIGHT = 300, LARGEST = 17, SMALLEST = 4;

/** Visit the blocks of [first, count, first, count, …] in order. */
export function eachBlock(runs, visit) {
  let place = 0;
  for (let i = 0; i < runs.length; i += 2) {
    for (let block = runs[i]; block < runs[i] + runs[i + 1]; block++) visit(block, place++);
  }
}

/** Cells of a width: their size, how many in a row, and how many blocks one stands for. */
function grid(width, num) {
  const columns = (size) => Math.max(1, Math.floor(width / size));
  let size = LARGEST;
  while (size > SMALLEST && Math.ceil(num / columns(size)) * size > MAX_HEIGHT) size--;
  const most = columns(size) * Math.floor(MAX_HEIGHT / size);
  const each = Math.ceil(num / most);
  const cells = Math.ceil(num / each);
  return { size, each, cells, columns: columns(size), height: Math.ceil(cells / columns(size)) * size };
}

export function startBlocks(setFocus) {
  const canvas = document.getElementById("blocks"), said = document.getElementById("block-said");
  const hint = said.textContent;
  let holders = new Map(), cached = new Set(), layout = null, size = 16, num = 0, chosen = null;
  // Block -> request that was seen to fill it: its colour stays, pale, while the block is kept.
  const fillers = new Map();

  function take(event) {
    if (event.engine === null) return;
    size = event.engine.block_size;
    num = event.engine.num_blocks - 1; // block 0 is never handed out
    holders = new Map();
    for (const [key, index, numPrompt, , computed, numCached, runs, groups] of event.kv.sequences) {
      for (const [first, some] of groups ?? [[0, runs]]) eachBlock(some, (block, i) => {
        const place = first + i;
        const fill = Math.min(1, Math.max(0, (computed - place * size) / size));
        const held = { key, index, place, fill, isFound: (place + 1) * size <= numCached, isPrompt: place * size < numPrompt };
        if (holders.has(block)) holders.get(block).push(held);
        else holders.set(block, [held]);
      });
    }
    cached = new Set();
    eachBlock(event.kv.cached, (block) => cached.add(block));
    for (const [block, held] of holders) if (!held[0].isFound || !fillers.has(block)) fillers.set(block, held[0].key);
    for (const block of fillers.keys()) if (!holders.has(block) && !cached.has(block)) fillers.delete(block);
    document.getElementById("block-size").textContent = size;
    showStates(event.kv.states);
  }

  /** What some layers keep of a sequence beside the cache, if there are such layers. */
  function showStates(states) {
    const told = document.getElementById("states-said");
    told.hidden = states === undefined;
    if (told.hidden) return;
    const [running, snapshots, all] = states;
    say(told, `Some layers keep a state of each sequence in place of keys and values. Of ${count(all)} slots for these ${count(running)} are held by sequences, ${count(snapshots)} have a snapshot that a prompt which begins alike goes on from.`);
  }

  function draw(scene) {
    layout = grid(Math.max(1, canvas.clientWidth), num);
    const { context } = begin(canvas, Math.max(layout.height, 20));
    // Of a request that is over nothing is left to point at.
    const isThere = [...holders.values()].some((held) => held.some(({ key }) => key === scene.focus));
    for (let cell = 0; cell < layout.cells; cell++) drawCell(context, cell, isThere ? scene.focus : null);
    if (chosen !== null) {
      const [x, y] = corner(Math.floor((chosen - 1) / layout.each));
      context.strokeStyle = css("ink");
      context.lineWidth = 2;
      context.strokeRect(x, y, layout.size - 1, layout.size - 1);
      say(said, describe(chosen), true);
    }
    const shared = [...holders.values()].filter((held) => held.length > 1).length;
    const words = `${count(num)} blocks of ${size} tokens: ${count(holders.size)} held, ${count(shared)} of them shared, ${count(cached.size)} kept for later`;
    canvas.setAttribute("aria-label", words);
    if (chosen === null) say(said, holders.size || cached.size ? `${words}.` : hint);
  }

  const corner = (cell) => [(cell % layout.columns) * layout.size, Math.floor(cell / layout.columns) * layout.size];

  function drawCell(context, cell, focus) {
    const [x, y] = corner(cell), inner = layout.size - (layout.size > 6 ? 2 : 1);
    const first = 1 + cell * layout.each;
    let block = first;
    // A cell of several blocks shows one that is held, or else one that is kept.
    while (block < first + layout.each && !holders.has(block)) block++;
    if (block === first + layout.each) for (block = first; block < first + layout.each - 1 && !cached.has(block); ) block++;
    const held = holders.get(block);
    if (held) {
      drawHeld(context, held, x, y, inner, focus);
    } else if (cached.has(block)) {
      context.globalAlpha = fillers.has(block) ? 0.3 : 1;
      context.fillStyle = fillers.has(block) ? colour(fillers.get(block)) : css("cached");
      if (focus !== null) context.globalAlpha *= 0.4;
      context.fillRect(x, y, inner, inner);
      context.globalAlpha = 1;
    } else {
      context.fillStyle = css("free");
      context.fillRect(x, y, inner, inner);
    }
  }

  function drawHeld(context, held, x, y, inner, focus) {
    const isDim = focus !== null && !held.some(({ key }) => key === focus);
    context.globalAlpha = isDim ? 0.18 : 1;
    const shown = held.slice(0, Math.max(1, Math.min(4, Math.floor(inner / 3))));
    shown.forEach(({ key, index, fill }, place) => {
      const left = Math.round((inner * place) / shown.length), right = Math.round((inner * (place + 1)) / shown.length);
      context.fillStyle = colour(key, index);
      if (held.length === 1 && fill < 1) {
        context.globalAlpha *= 0.25;
        context.fillRect(x, y, inner, inner);
        context.globalAlpha = isDim ? 0.18 : 1;
        context.fillRect(x, y, inner * fill, inner);
      } else {
        context.fillRect(x + left, y, right - left, inner);
      }
    });
    if (held.length > 1 && inner >= 5) {
      context.strokeStyle = css("ink");
      context.lineWidth = 1.25;
      context.strokeRect(x + 0.5, y + 0.5, inner - 1, inner - 1);
    }
    context.globalAlpha = 1;
  }

  function describe(block) {
    const held = holders.get(block);
    if (!held) {
      if (!cached.has(block)) return `Block ${block}: free.`;
      return `Block ${block}: nobody holds it; its ${size} tokens are kept, for a prompt that begins alike, until the room is needed.`;
    }
    const names = [...new Set(held.map(({ key, index }) => (index ? `#${key}.${index}` : `#${key}`)))];
    const { place, fill, isPrompt } = held[0];
    const where = `tokens ${place * size + 1} to ${(place + 1) * size} of ${isPrompt ? "the prompt" : "the sequence"}`;
    const filled = fill < 1 ? `, ${Math.round(fill * size)} of ${size} there` : "";
    if (held.length === 1) return `Block ${block}: request ${names[0]}, ${where}${filled}.`;
    return `Block ${block}: shared by ${held.length}: ${names.slice(0, 8).join(" ")}${names.length > 8 ? " …" : ""}; ${where}, computed once.`;
  }

  function choose(block) {
    chosen = block !== null && block >= 1 && block <= num ? block : null;
    setFocus(chosen === null ? null : (holders.get(chosen)?.[0].key ?? null));
  }

  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / layout.size);
    const row = Math.floor((event.clientY - box.top) / layout.size);
    if (column < 0 || column >= layout.columns || row < 0) return null;
    return 1 + (row * layout.columns + column) * layout.each;
  };
  canvas.addEventListener("pointermove", (event) => layout && choose(under(event)));
  canvas.addEventListener("pointerdown", (event) => layout && choose(under(event)));
  canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && choose(null));
  canvas.addEventListener("blur", () => choose(null));
  canvas.addEventListener("keydown", (event) => {
    const by = layout && { ArrowRight: 1, ArrowLeft: -1, ArrowDown: layout.columns, ArrowUp: -layout.columns }[event.key];
    if (event.key === "Escape") choose(null);
    if (!by) return;
    event.preventDefault();
    choose(Math.min(num, Math.max(1, (chosen ?? 1) + (chosen === null ? 0 : by * layout.each))));
  });
  return { take, draw };
}
