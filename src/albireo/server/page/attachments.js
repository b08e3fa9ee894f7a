// What goes with the next message: pictures and sounds, chosen, dropped or pasted, shown, and taken back. Used by
// playground.js. How each is opened, shown and sent is for pictures.js and sounds.js to know.

import { element, say } from "./draw.js";
import { pictures } from "./pictures.js";
import { sounds } from "./sounds.js";

const MEDIA = [pictures, sounds];

const byId = (id) => document.getElementById(id);

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** Let people attach files to what is asked. refuse: a medium -> why there may be none of it now, or "". */
export function startAttachments(refuse) {
  const tray = byId("tray"), said = byId("tray-said");
  let held = [], numPasted = 0, numOpening = 0;

  const isTaken = (medium) => refuse(medium) === "";
  const taken = () => held.filter(({ medium }) => isTaken(medium));
  /** What a file is; of what is neither, the medium that is wanted says so. */
  const mediumOf = (file) => MEDIA.find((each) => each.is(file)) ?? MEDIA.find(isTaken) ?? pictures;

  function show() {
    for (const medium of MEDIA) byId(`${medium.noun}-open`).hidden = !isTaken(medium);
    tray.hidden = !taken().length;
    said.hidden = !MEDIA.some(isTaken) || said.textContent === "";
    tray.replaceChildren(...taken().map(item));
  }

  function item(attached, place) {
    const made = element("li", attached.medium.noun), remove = element("button", "", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", `Remove ${attached.name}`);
    remove.addEventListener("click", () => {
      held = held.filter((each) => each !== attached);
      tell(held.filter(({ words }) => words));
      const left = tray.querySelectorAll("button");
      (left[Math.min(place, left.length - 1)] ?? byId("prompt")).focus();
    });
    made.append(attached.medium.label(attached), remove);
    return made;
  }

  function tell(about) {
    say(said, about.map(({ words }) => words).join(". "), true);
    show();
  }

  /** The name of a file; pictures of a clipboard have all the same. */
  function nameOf(file, medium, isPasted) {
    return isPasted && medium === pictures ? `pasted-${++numPasted}.${file.type.split("/")[1] ?? "png"}` : file.name;
  }

  async function add(files, { isPasted = false, chosen = null } = {}) {
    const found = [];
    numOpening++;
    for (const file of files) {
      const medium = chosen ?? mediumOf(file);
      const why = refuse(medium);
      if (why) {
        say(byId("timing"), why, true);
        continue;
      }
      try {
        const opened = await medium.open(file, nameOf(file, medium, isPasted));
        found.push({ ...opened, medium, url: await dataUrl(opened.blob) });
        held.push(found.at(-1));
      } catch (error) {
        found.push({ words: error.message });
      }
    }
    numOpening--;
    tell(found.filter(({ words }) => words));
  }

  for (const medium of MEDIA) {
    const chooser = byId(`${medium.noun}-file`);
    byId(`${medium.noun}-open`).addEventListener("click", () => chooser.click());
    chooser.addEventListener("change", async () => {
      await add([...chooser.files], { chosen: medium });
      chooser.value = ""; // the same file may be chosen again
    });
  }
  byId("prompt").addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    // what office programs copy is a text, with a picture of it
    if (!files.length || event.clipboardData.getData("text/plain")) return;
    event.preventDefault();
    add(files, { isPasted: true });
  });
  // Dropped anywhere: a browser would leave the page for the file.
  const form = byId("ask");
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    form.classList.toggle("over", MEDIA.some(isTaken));
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
    held: taken,
    /** Take them out, as a message goes; or put them back. */
    set(attached) {
      held = [...attached];
      tell([]);
    },
  };
}
