// What a build has handed over, saved as a file: a link alone would come without the token.

import { fetchFile } from "./mcp.js";
import { el, say } from "./dom.js";

let fetching = new AbortController();

/** A button that saves the output `name` of a build. */
export function saveButton(build, name) {
  const path = `v1/builds/${build}/outputs/${encodeURIComponent(name)}`;
  return el("button", { type: "button", class: "copy", "data-save": path, "data-name": name, "aria-label": `Save ${name}` }, "Save");
}

/** Gives up what is being fetched: the next who looks may be somebody else. */
export function close() {
  fetching.abort();
  fetching = new AbortController();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-save]");
  if (!button || button.ariaBusy === "true") return;
  const { save, name } = button.dataset;
  const { signal } = fetching;
  button.ariaBusy = "true";
  say(`Fetching ${name}`);
  try {
    const url = URL.createObjectURL(await fetchFile(save, signal));
    el("a", { href: url, download: name }).click();
    // The browser has begun to read it by then.
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    say(`The browser has ${name}`);
  } catch (error) {
    if (signal.aborted) return;
    say(`${name} cannot be saved: ${error.message}`);
    button.textContent = "Failed";
    setTimeout(() => { button.textContent = "Save"; }, 2000);
  } finally {
    button.ariaBusy = null;
  }
});
