// Sounds, as something that is attached (attachments.js): named and measured, played from where they lie, sent as vLLM
// has it: OpenAI's own form is for two kinds of files.

import { bytes, count, element, seconds } from "./draw.js";
import { asWav, RATE } from "./wav.js";

/** In base64, with a text, what a request may have unless the server was told otherwise: 10 MiB. */
const MOST_BYTES = 7 << 20;
/** Kinds that the server does not read; of others it says so itself. */
const FOREIGN = /^audio\/(x-)?(3gpp2?|aac|m4a|mp4|webm)\b/;
/** Names of sounds, for those that a system knows no kind of. */
const NAMES = /\.(aac|aiff?|au|caf|flac|m4a|mp3|oga|ogg|opus|w64|wav|weba|webm)$/i;

const is = (file) => file.type.startsWith("audio/") || NAMES.test(file.name);

/** How long a sound lasts, in seconds; NaN where this browser cannot tell. */
function lengthOf(source) {
  const audio = element("audio");
  return new Promise((resolve) => {
    audio.addEventListener("loadedmetadata", () => resolve(audio.duration));
    audio.addEventListener("error", () => resolve(NaN));
    audio.preload = "metadata";
    audio.src = source;
  });
}

function check({ size }, name, as = "") {
  if (size <= MOST_BYTES) return;
  throw new Error(`${name} has ${bytes(size)}${as}, and at most ${bytes(MOST_BYTES)} are sent: cut it, or make it an MP3`);
}

/** A file -> the sound: what is sent (blob), where it is played from (source), how long it lasts, once that is known, and
    words about what was done to it. */
async function open(file, name) {
  if (!is(file)) throw new Error(`${name} is no sound`);
  check(file, name);
  const type = file.type.startsWith("audio/") ? file.type : `audio/${name.split(".").at(-1).toLowerCase()}`;
  const made = FOREIGN.test(type) ? await asWav(file) : null;
  if (made !== null) check(made, name, " as a WAV");
  const blob = made ?? new Blob([file], { type });
  const words = made === null ? "" : `${name} is sent as a WAV of ${count(RATE)} samples a second`;
  const source = URL.createObjectURL(file); // never taken back: it may be played as long as the page is there
  return { name, type, blob, source, size: blob.size, length: lengthOf(source), words };
}

function label({ name, size, length }) {
  const made = element("span", "label"), told = element("span", "soft", bytes(size));
  const title = element("span", "name", name);
  title.title = name;
  // some browsers look into a sound only when it is played
  length.then((value) => Number.isFinite(value) && (told.textContent = `${seconds(value)} · ${bytes(size)}`));
  made.append(title, told);
  return made;
}

function player({ name, source }) {
  const made = element("span", "player"), audio = element("audio");
  audio.controls = true;
  audio.preload = "metadata";
  audio.src = source;
  audio.setAttribute("aria-label", `Sound: ${name}`);
  made.append(element("span", "name", name), audio);
  return made;
}

export const sounds = {
  noun: "sound",
  is,
  open,
  label,
  shown: player,
  part: (url) => ({ type: "audio_url", audio_url: { url } }),
};
