// The page's beginning: asks for a key where one is needed, waits for the model, then starts its parts.

import { address, ask, key, setKey, wanted } from "./api.js";
import { say } from "./draw.js";
import { startLive } from "./live.js";
import { startLoad } from "./load.js";
import { startModels } from "./models.js";
import { setEngine, startPlayground } from "./playground.js";

const byId = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const dialog = byId("key-dialog");
let given = null;

/** Show the dialog until somebody gives a key. */
function askForKey(words) {
  byId("key-said").textContent = words;
  if (!dialog.open) dialog.showModal();
  byId("key-open").hidden = false;
  return new Promise((resolve) => (given = resolve));
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key-input").value.trim());
  byId("key-input").value = "";
  dialog.close();
  given?.();
});
byId("key-open").addEventListener("click", () => askForKey(""));
addEventListener("albireo-key", () => {
  if (!dialog.open) askForKey(key() ? "The server does not take this key." : "");
});

export function showState(words, kind = "") {
  const pill = byId("state");
  say(pill, words, kind !== "good");
  pill.className = `pill ${kind}`;
}

/** Wait until the model is there and the key is taken. Returns: all there are, and the one that is shown. */
async function ready() {
  for (;;) {
    try {
      const { data } = await (await ask("/v1/models")).json();
      byId("key-open").hidden = !key();
      return [data, data.find((each) => each.id === wanted) ?? data[0]];
    } catch (error) {
      if (error.status === 401) {
        showState("key needed", "bad");
        await askForKey(key() ? "The server does not take this key." : "");
      } else {
        const health = await fetch(address("/health")).then((response) => response.json()).catch(() => null);
        const done = health?.progress === undefined ? "" : ` ${Math.round(100 * health.progress)} %`;
        showState(health === null ? "no connection" : `${health.status}${done}`, health === null ? "bad" : "");
        await pause(500);
      }
    }
  }
}

const [models, model] = await ready();
byId("model").textContent = model.id;
document.title = `Albireo · ${model.id}`;
startModels(models, model);
startPlayground(model);
startLoad(model);
startLive(showState, setEngine);
