// The log of a build: a window of lines that moves, follows, and shows what a search finds.
//
// Lines of a log are whatever a build has printed. They become text nodes, and at most MOST of them are in
// the page.

import { call } from "./mcp.js";
import { Poll, settled } from "./poll.js";
import { el, find, say, show } from "./dom.js";

const BATCH = 400;
const BYTES = 30720;
const MOST = 2000;
/** Lines shown before one that was asked for. */
const LEAD = 5;
/** Seconds that the follower waits for news, and milliseconds after news. */
const WAIT = 20;
const PAUSE = 250;

const box = find("lines");

/**
 * What is shown: `top` and `bottom` are the numbers beyond which lines are still to be read, `before` and
 * `after` say whether there are any; `grep` is what is searched for.
 */
let view;

/** `heard(phase, step)` hears of lines that are new. */
export function open(status, line, heard) {
  view = {
    id: status.build_id, heard,
    top: 1, bottom: 0, before: false, after: false, total: 0, complete: false, grep: undefined, cut: false,
    poll: undefined, abort: new AbortController(),
  };
  find("log").hidden = false;
  box.setAttribute("aria-label", `Lines of the log of ${status.name ?? status.build_id}`);
  if (line) goTo(line);
  else load(tail());
}

export function close() {
  if (!view) return;
  stop();
  view = undefined;
  box.replaceChildren();
  for (const id of ["search-problem", "log-state", "log-missing"]) find(id).textContent = "";
  find("search-text").value = "";
  find("search-clear").hidden = true;
  find("log").hidden = true;
}

/** Shows a line among its neighbours, whatever was searched for. */
export function goTo(line) {
  clearSearch();
  load({ args: { from: "start", cursor: String(Math.max(0, line - 1 - LEAD)) }, how: replace, focus: line });
}

const tail = () => ({ args: { from: "end" }, how: replace, end: true });
const beginning = () => ({ args: { from: "start" }, how: replace });
const older = () => ({ args: { from: "end", cursor: String(view.top) }, how: prepend });
const newer = () => ({ args: { from: "start", cursor: String(view.bottom) }, how: append });

function stop() {
  view.poll?.stop();
  view.abort.abort();
}

/** Reads lines once, and follows from there. */
async function load({ args, how, end, focus }) {
  stop();
  const mine = view;
  mine.abort = new AbortController();
  const { signal } = mine.abort;
  try {
    const answer = await ask(args, signal);
    how(answer, args);
    find("search-problem").textContent = "";
    if (end) box.scrollTop = box.scrollHeight;
    if (focus) focusLine(focus);
    if (mine.grep) say(stateText());
    follow();
  } catch (error) {
    if (!settled(error) && !signal.aborted) find("search-problem").textContent = error.message;
  }
}

function ask(args, signal) {
  const search = view.grep ? { grep: view.grep.text, ignore_case: view.grep.ignoreCase, context_lines: 0 } : {};
  return call("logs", { build_id: view.id, lines: BATCH, max_bytes: BYTES, ...search, ...args }, signal);
}

/** Shows what comes, while whoever reads is at the end. */
function follow() {
  if (view.complete || view.after) return;
  const turn = async (signal) => {
    render();
    if (!atEnd()) return PAUSE;
    const { args } = newer();
    const answer = await ask({ ...args, wait: WAIT }, signal);
    // Whoever has gone elsewhere meanwhile is left there.
    if (!atEnd()) return PAUSE;
    if (answer.more_after) {
      // It is printed faster than it is read.
      replace(await ask(tail().args, signal), tail().args);
    } else {
      append(answer);
    }
    box.scrollTop = box.scrollHeight;
    if (answer.first_line !== undefined && !view.grep) tell(parseLine(answer.text.split("\n").at(-1)));
    return view.complete ? null : PAUSE;
  };
  view.poll = new Poll(turn, (error) => { find("search-problem").textContent = error.message; });
}

function atEnd() {
  return box.scrollHeight - box.scrollTop - box.clientHeight < 40;
}

function tell({ where }) {
  const [phase, step] = where.split(" ");
  view.heard(phase, /^\d+\/\d+$/.test(step ?? "") ? step : undefined);
}

function replace(answer, args) {
  box.replaceChildren(...elements(answer));
  if (args.from === "start") {
    const from = Number(args.cursor ?? 0);
    view.top = from + 1;
    view.before = from > 0;
    view.bottom = Number(answer.cursor ?? from);
    view.after = answer.more_after;
  } else {
    view.top = Number(answer.cursor ?? 1);
    view.before = answer.more_before;
    view.bottom = answer.total_lines;
    view.after = false;
  }
  take(answer);
}

function prepend(answer) {
  const height = box.scrollHeight - box.scrollTop;
  box.prepend(...elements(answer));
  box.scrollTop = box.scrollHeight - height;
  view.top = Number(answer.cursor ?? view.top);
  view.before = answer.more_before;
  while (box.children.length > MOST) {
    box.lastChild.remove();
    view.after = true;
  }
  if (view.after) view.bottom = numberOf(box.lastChild);
  take(answer);
}

function append(answer) {
  box.append(...elements(answer));
  view.bottom = Number(answer.cursor ?? view.bottom);
  view.after = answer.more_after;
  while (box.children.length > MOST) {
    box.firstChild.remove();
    view.before = true;
    view.top = numberOf(box.firstChild);
  }
  take(answer);
}

/** What every answer tells. */
function take(answer) {
  view.total = answer.total_lines;
  view.complete = answer.complete;
  view.cut = answer.notes?.length > 0;
  const missing = find("log-missing");
  missing.hidden = !answer.log_missing;
  missing.textContent = answer.log_missing ?? "";
  render();
}

function render() {
  show(find("log-state"), stateText());
  find("log-older").setAttribute("aria-disabled", String(!view.before));
  find("log-newer").setAttribute("aria-disabled", String(!view.after));
  find("search-clear").hidden = !view.grep;
}

function stateText() {
  const count = box.children.length;
  const [first, last] = count > 0 ? [numberOf(box.firstChild), numberOf(box.lastChild)] : [];
  const more = view.cut ? "; the search takes long and has not come to its end" : "";
  if (view.grep) {
    const rest = [view.before && "before", view.after && "after"].filter(Boolean).join(" and ");
    const found = count === 0 ? `None of ${view.total} lines matches` : `${count} of ${view.total} lines ${count === 1 ? "matches" : "match"}`;
    return `${found}${rest ? `; there may be more ${rest} these` : ""}${more}`;
  }
  const lines = count === 0 ? "The log has no lines yet" : `Lines ${first} to ${last} of ${view.total}`;
  if (view.complete) return lines;
  return view.after || !atEnd() ? `${lines}; new ones are shown when you are at the end` : `${lines}; following`;
}

function elements(answer) {
  return answer.first_line === undefined ? [] : answer.text.split("\n").map(parseLine).map(element);
}

/** A line as `logs` gives it: NUMBER PHASE STEP | TEXT. */
export function parseLine(line) {
  const [, number, where, text] = /^(\d+) ([^|]*) \| (.*)$/s.exec(line);
  return { number: Number(number), where, text };
}

function element(line) {
  const number = view.grep
    ? el("a", { class: "number", href: `#build/${view.id}/${line.number}`, "aria-label": `Line ${line.number} in the log` }, String(line.number))
    : el("span", { class: "number" }, String(line.number));
  return el("div", { class: "line", "data-number": String(line.number), tabindex: "-1" },
    number, el("span", { class: "where" }, line.where), el("span", { class: "text" }, marked(line.text)));
}

/** The text, with what was searched for marked where that is plain words: then it takes no regular expression. */
function marked(text) {
  const wanted = view.grep?.text;
  if (!wanted || /[\\^$.|?*+()[\]{}]/.test(wanted)) return [text];
  const pattern = new RegExp(`(${wanted})`, view.grep.ignoreCase ? "giu" : "gu");
  return text.split(pattern).map((part, at) => (at % 2 ? el("mark", {}, part) : part));
}

function numberOf(line) {
  return Number(line.dataset.number);
}

function focusLine(number) {
  const line = [...box.children].find((child) => numberOf(child) >= number);
  if (!line) return;
  line.classList.add("wanted");
  line.focus({ preventScroll: true });
  line.scrollIntoView({ block: "center" });
}

function clearSearch() {
  view.grep = undefined;
  find("search-text").value = "";
  find("search-problem").textContent = "";
}

box.addEventListener("scroll", () => view && render());
find("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("search-text").value;
  view.grep = text ? { text, ignoreCase: find("search-case").checked } : undefined;
  load(tail());
});
find("search-case").addEventListener("change", () => {
  if (view.grep) find("search").requestSubmit();
});

function endSearch() {
  const searched = view.grep;
  clearSearch();
  if (searched) load(tail());
}

find("search-clear").addEventListener("click", () => {
  endSearch();
  find("search-text").focus();
});
// Some browsers have a cross in the field.
find("search-text").addEventListener("input", () => {
  if (view.grep && find("search-text").value === "") endSearch();
});
find("search-text").addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    event.preventDefault();
    endSearch();
    box.focus();
  }
});
for (const [id, what] of [["log-begin", beginning], ["log-older", older], ["log-newer", newer], ["log-end", tail]]) {
  find(id).addEventListener("click", () => {
    if (find(id).getAttribute("aria-disabled") !== "true") load(what());
  });
}
