// Pictures, as something that is attached (attachments.js): made small enough, shown small, sent as OpenAI has it.
// They are drawn: the page's policy lets no image come from anywhere but this server.

import { element } from "./draw.js";

/** A larger picture is made smaller before it is sent: models read no more of it, and a request has a largest size. */
const MOST_SIDE = 2048, MOST_BYTES = 2 << 20, QUALITY = 0.9;
/** Kinds that the server reads as they are. */
const KINDS = new Set(["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"]);
/** The box a thumbnail fits into, in CSS pixels. */
const BOX = [144, 64];

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

/** A file -> the picture: what is sent (blob), what is shown, and words about what was done to it. */
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
  const found = { name, type: file.type || "image/jpeg", blob, small: drawn(bitmap, ...small), words };
  bitmap.close();
  return found;
}

/** A picture as it is shown: small, and named for who cannot see it. */
function thumbnail({ name, small }) {
  const canvas = drawn(small, small.width, small.height);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Picture: ${name}`);
  canvas.title = name;
  return canvas;
}

export const pictures = {
  noun: "picture",
  is: (file) => file.type.startsWith("image/"),
  open,
  label: thumbnail,
  shown: thumbnail,
  part: (url) => ({ type: "image_url", image_url: { url } }),
};
