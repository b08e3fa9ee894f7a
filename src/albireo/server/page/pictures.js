// Pictures that go with the next message: chosen, dropped or pasted, shown small, and taken back.
// Used by playground.js. They are drawn: the page's policy lets no image come from anywhere but this server.

import { element, say } from "./draw.js";

/** A larger picture is made smaller before it is sent: models read no more of it, and a request has a largest size. */
const MOST_SIDE = 2048, MOST_BYTES = 2 << 20, QUALITY = 0.9;
/** Kinds that the server reads as they are. */
const KINDS = new Set(["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"]);
/** The box a thumbnail fits into, in CSS pixels. */
const BOX = [144, 64];

const byId = (id) => document.getElementById(id);

/** A canvas with the picture on it, on white where that is transparent. */
function drawn(source, width, height) {
  const canvas = element("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  return canvas;
}

const scaled = (picture, scale) => [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * scale)));

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** A file -> the picture: what is sent (url), what is shown, and words about what was done to it. */
async function open(file, name) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${name} is no picture that this browser can read`);
  }
  const small = scaled(bitmap, Math.min(1, BOX[0] / bitmap.width, BOX[1] / bitmap.height) * 2);
  const sent = scaled(bitmap, Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height)));
  const isLarge = sent[0] < bitmap.width || sent[1] < bitmap.height;
  let blob = file, words = "";
  if (isLarge || file.size > MOST_BYTES || !KINDS.has(file.type)) {
    const canvas = drawn(bitmap, ...sent);
    blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    if (blob === null) throw new Error(`${name} is too large for this browser`);
    const before = isLarge ? `, not ${bitmap.width} × ${bitmap.height}` : "";
    words = `${name} is sent as a JPEG of ${sent[0]} × ${sent[1]} pixels${before}`;
  }
  const found = { name, type: file.type || "image/jpeg", url: await dataUrl(blob), small: drawn(bitmap, ...small), words };
  bitmap.close();
  return found;
}

/** A picture as it is shown: small, and named for who cannot see it. */
export function thumbnail({ name, small }) {
  const canvas = drawn(small, small.width, small.height);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Picture: ${name}`);
  canvas.title = name;
  return canvas;
}

/** Let people attach pictures to what is asked. refuse: why there may be none now, or "". */
export function startPictures(refuse) {
  const tray = byId("tray"), said = byId("tray-said"), chooser = byId("picture-file"), button = byId("picture-open");
  let held = [], numPasted = 0, numOpening = 0;

  function show() {
    const isRefused = refuse() !== "";
    button.hidden = isRefused;
    tray.hidden = isRefused || !held.length;
    said.hidden = isRefused || said.textContent === "";
    tray.replaceChildren(...held.map(item));
  }

  function item(picture) {
    const made = element("li"), remove = element("button", "", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", `Remove ${picture.name}`);
    remove.addEventListener("click", () => {
      const place = held.indexOf(picture);
      held = held.filter((each) => each !== picture);
      tell(held.filter(({ words }) => words));
      (tray.querySelectorAll("button")[Math.min(place, held.length - 1)] ?? byId("prompt")).focus();
    });
    made.append(thumbnail(picture), remove);
    return made;
  }

  function tell(about) {
    say(said, about.map(({ words }) => words).join(". "), true);
    show();
  }

  async function add(files, isPasted = false) {
    const why = refuse();
    if (why) return say(byId("timing"), why, true);
    const found = [];
    numOpening++;
    for (const file of files) {
      const name = isPasted ? `pasted-${++numPasted}.${file.type.split("/")[1] ?? "png"}` : file.name;
      try {
        found.push(await open(file, name));
        held.push(found.at(-1));
      } catch (error) {
        found.push({ words: error.message });
      }
    }
    numOpening--;
    tell(found.filter(({ words }) => words));
  }

  button.addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", async () => {
    await add([...chooser.files]);
    chooser.value = ""; // the same file may be chosen again
  });
  byId("prompt").addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    // what office programs copy is a text, with a picture of it
    if (!files.length || event.clipboardData.getData("text/plain")) return;
    event.preventDefault();
    add(files, true);
  });
  // Dropped anywhere: a browser would leave the page for the file.
  const form = byId("ask");
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    form.classList.toggle("over", refuse() === "");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && form.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    form.classList.remove("over");
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });

  return {
    show,
    isOpening: () => numOpening > 0,
    /** Those that would be sent. */
    held: () => (refuse() === "" ? held : []),
    /** Take them out, as a message goes; or put them back. */
    set(pictures) {
      held = [...pictures];
      tell([]);
    },
  };
}
