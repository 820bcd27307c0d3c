// The builds of whoever the token belongs to.

import { call } from "./mcp.js";
import { Poll } from "./poll.js";
import { duration, el, find, isFinal, moment, say, show, stateBadge, word } from "./dom.js";

const PAGE = 50;
/** Seconds between two looks. A build that ends is seen at once, one that begins at the next look. */
const EVERY = 5;

let poll;
let pages = 1;
/** State of each build by its id, as shown. */
let states = new Map();

export function open(from) {
  find("list").hidden = false;
  find("list-problem").textContent = "";
  document.title = "Builds – nomad-build";
  start(() => find("builds").querySelector(`a[href="#build/${from}"]`)?.focus());
}

export function close() {
  poll?.stop();
  // The next who looks may be somebody else.
  show(find("builds").tBodies[0]);
  show(find("counts"));
  find("list").hidden = true;
}

function start(shown = () => {}) {
  poll?.stop();
  states = new Map();
  let first = true;
  const turn = async (signal) => {
    const begun = performance.now();
    await look(signal, first ? 0 : EVERY);
    if (first) shown();
    first = false;
    return Math.max(500, EVERY * 1000 - (performance.now() - begun));
  };
  poll = new Poll(turn, (error) => { find("list-problem").textContent = error.message; });
}

async function look(signal, wait) {
  const name = find("filter-name").value.trim() || undefined;
  const state = find("filter-state").value ? [find("filter-state").value] : undefined;
  const filter = { name, state, limit: PAGE };
  let answer = await call("status", { ...filter, wait }, signal);
  const { counts } = answer;
  const builds = [...answer.builds];
  for (let page = 1; page < pages && answer.next_cursor; page += 1) {
    answer = await call("status", { ...filter, cursor: answer.next_cursor }, signal);
    builds.push(...answer.builds);
  }
  find("list-problem").textContent = "";
  show(find("counts"), Object.entries(counts).filter(([, count]) => count > 0)
    .map(([state, count]) => `${count} ${word(state)}`).join(", "));
  find("builds").hidden = builds.length === 0;
  find("no-builds").hidden = builds.length > 0;
  show(find("no-builds"), name || state ? "None of your builds is like that." : "There are no builds yet. Agents start them.");
  show(find("builds").tBodies[0], builds.map(row));
  find("more-builds").hidden = !answer.next_cursor;
  announce(builds);
}

function row(build) {
  return el("tr", { "data-key": build.build_id },
    el("td", {}, stateBadge(build.state)),
    el("th", { scope: "row" },
      el("a", { href: `#build/${build.build_id}` }, build.name ?? build.build_id),
      build.name && el("code", { class: "aside" }, build.build_id)),
    el("td", {}, sentence(build).replace(/(sha256:[0-9a-f]{12})[0-9a-f]+/g, "$1…")),
    el("td", { class: "words" }, source(build), build.tags?.map((tag) => el("code", {}, tag))),
    el("td", {}, build.times?.submitted && moment(build.times.submitted)));
}

/** How it stands, in the server's words, without the name and the state that stand beside. */
export function sentence(build) {
  const named = build.name === undefined ? build.build_id : `${build.build_id} "${build.name}"`;
  const head = `${named} ${build.state}`;
  return build.summary.toLowerCase().startsWith(head.toLowerCase()) ? build.summary.slice(head.length).replace(/^[: ]+/, "") : build.summary;
}

function source(build) {
  const { git, ref, commit, path } = build.source ?? {};
  if (git) return el("span", {}, [git, ref, commit?.slice(0, 12)].filter(Boolean).join(" "));
  return el("span", {}, path ?? "files");
}

/** Says which builds have ended since the last look. */
function announce(builds) {
  const ended = builds.filter((build) => isFinal(build.state) && states.has(build.build_id) && !isFinal(states.get(build.build_id)));
  if (ended.length > 0) {
    say(ended.map((build) => `${build.name ?? build.build_id} ${word(build.state)} after ${duration(build.elapsed_seconds ?? 0)}`).join("; "));
  }
  states = new Map(builds.map((build) => [build.build_id, build.state]));
}

find("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  pages = 1;
  start();
});
find("filter-state").addEventListener("change", () => find("filter").requestSubmit());
find("more-builds").addEventListener("click", () => {
  pages += 1;
  start();
});
