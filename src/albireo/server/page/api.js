// Requests to this server: the key, errors in words, and server-sent events read from a fetch, so that the key is a header.
// Used by everything that asks. The key lives in the tab's session storage only.

const STORE = "albireo-api-key";
const MAX_EVENT = 16 << 20;

/** The server refused: its words, and the HTTP status. */
export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

export const key = () => sessionStorage.getItem(STORE) ?? "";
export const setKey = (value) => (value ? sessionStorage.setItem(STORE, value) : sessionStorage.removeItem(STORE));

/** Of several models the one to look at, by ?model= of the page's address; null: the first, or the one that is awake. */
export const wanted = new URLSearchParams(location.search).get("model");

/** What this page asked for, the last requests: id of the answer -> what it is. */
export const mine = new Map();

export function note(id, what) {
  mine.set(id, what);
  if (mine.size > 500) mine.delete(mine.keys().next().value);
}

/** The address of a path of this server, which a proxy may have put below another. */
export const address = (path) => new URL(`.${path}`, document.baseURI).href;

/** fetch() of a path of this server. Throws Refused, with the server's own words. */
export async function ask(path, { body, signal } = {}) {
  const headers = key() ? { authorization: `Bearer ${key()}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(address(path), {
    method: body === undefined ? "GET" : "POST",
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
  });
  if (response.ok) return response;
  let words = `the server answered ${response.status}`;
  try {
    words = (await response.json()).error?.message ?? words;
  } catch {
    // not JSON: the status says enough
  }
  if (response.status === 401) dispatchEvent(new CustomEvent("albireo-key", { detail: words }));
  throw new Refused(response.status, words);
}

/** The events of a response, parsed; ends at [DONE] or with the response. */
export async function* events(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += decoder.decode(value, { stream: true });
      if (buffer.length > MAX_EVENT) throw new Error("an event is too long");
      let end;
      while ((end = buffer.indexOf("\n\n")) >= 0) {
        const line = buffer.slice(0, end);
        buffer = buffer.slice(end + 2);
        if (!line.startsWith("data: ")) continue;
        if (line === "data: [DONE]") return;
        yield JSON.parse(line.slice(6));
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
