// The page: who looks, and at what. It calls the server's own tools, as an agent does.

import { call, token } from "./page/mcp.js";
import { listen } from "./page/poll.js";
import { find, say } from "./page/dom.js";
import * as build from "./page/build.js";
import * as list from "./page/list.js";

const KEYS = "nomad-build.keys";

/** Shows what the address names: `#build/ID`, `#build/ID/LINE`, or all builds. */
function route() {
  const [, id, line] = /^#build\/([\w-]{1,64})(?:\/(\d{1,15}))?$/.exec(location.hash) ?? [];
  find("sign-in").hidden = true;
  find("forget").hidden = !token.get();
  if (id) {
    list.close();
    build.open(id, line && Number(line));
  } else {
    list.open(build.close());
  }
}

function askForToken(problem) {
  list.close();
  build.close();
  token.forget();
  find("forget").hidden = true;
  find("connection").textContent = "";
  find("token-problem").textContent = problem;
  find("sign-in").hidden = false;
  document.title = "Your token – nomad-build";
  find("token").focus();
}

find("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = find("token");
  const secret = field.value.trim();
  const problem = find("token-problem");
  problem.textContent = "";
  // Only such characters can be sent.
  if (!/^[\x21-\x7e]+$/.test(secret)) {
    problem.textContent = "A token has no spaces, and no letters beyond ASCII.";
    return;
  }
  try {
    await call("status", { limit: 1 }, undefined, secret);
  } catch (error) {
    problem.textContent = error.kind === "unauthorised" ? "The server does not know this token." : error.message;
    field.select();
    return;
  }
  field.value = "";
  token.set(secret);
  route();
  headingOf().focus();
});

find("forget").addEventListener("click", () => {
  askForToken("");
  say("The token is forgotten");
});

listen({
  trouble(error, seconds) {
    find("connection").textContent = error ? `No answer (${error.message}); trying again in ${seconds} s` : "";
  },
  unauthorised() {
    askForToken(token.get() ? "The server does not know this token any more." : "");
  },
});

// A fault of the page itself must not look like a build that stands still.
addEventListener("unhandledrejection", () => {
  find("connection").textContent = "This page has failed; please load it again.";
});

function headingOf() {
  return document.querySelector("main > section:not([hidden]) h1");
}

addEventListener("hashchange", (event) => {
  if (!find("sign-in").hidden) return;
  route();
  const line = /^#build\/[^/]+\/\d+$/.test(location.hash);
  if (!line && event.oldURL !== event.newURL) headingOf().focus();
});

// The address does not change when the same place is asked for once more.
document.addEventListener("click", (event) => {
  if (event.target.closest("a")?.getAttribute("href") === location.hash) route();
});

find("skip").addEventListener("click", (event) => {
  // The address names what is shown; this link is none of it.
  event.preventDefault();
  find("main").focus();
});

find("keys").checked = localStorage.getItem(KEYS) !== "off";
find("keys").addEventListener("change", () => localStorage.setItem(KEYS, find("keys").checked ? "on" : "off"));
addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea, dialog");
  if (event.key !== "/" || event.ctrlKey || event.altKey || event.metaKey || typing || !find("keys").checked) return;
  const field = [find("search-text"), find("filter-name")].find((one) => one.checkVisibility());
  if (!field) return;
  event.preventDefault();
  field.focus();
});

route();
