// The chooser of models, where there are several, or adapters: the page begins again with the one that is chosen, as
// its address says. Started by app.js.

import { address } from "./api.js";
import { element } from "./draw.js";

const select = document.getElementById("models");

/** What can be chosen: each model by its first name, and adapters. */
const choices = (cards) => cards.filter((each) => each.parent !== null || each.id === each.root);

/** Say how each is, as /health has it; what it does not know is an adapter, or served alone. */
async function tell() {
  const health = await fetch(address("/health"), { cache: "no-store" }).then((response) => response.json()).catch(() => null);
  for (const { name, status, retry_s } of health?.models ?? []) {
    const option = [...select.options].find((each) => each.value === name);
    const when = retry_s ? `, tried again in ${Math.ceil(retry_s)} s` : "";
    if (option) option.label = status === "ok" ? name : `${name} (${status}${when})`;
  }
}

export function startModels(cards, chosen) {
  const offered = choices(cards);
  if (offered.length < 2) return;
  select.append(...offered.map(({ id }) => {
    const option = element("option", "", id);
    option.value = id;
    option.selected = id === chosen.id;
    return option;
  }));
  select.addEventListener("focus", tell);
  select.addEventListener("change", () => {
    const page = new URL(location.href);
    page.searchParams.set("model", select.value);
    location.assign(page);
  });
  document.getElementById("model").hidden = true;
  select.hidden = false;
  tell();
}
