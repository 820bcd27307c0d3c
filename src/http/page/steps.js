// The steps of the Containerfile that have begun, found in the log; looked for when they are asked for.

import { call } from "./mcp.js";
import { settled } from "./poll.js";
import { el, find, show } from "./dom.js";
import { parseLine } from "./log.js";

const PATTERN = "^(\\[[0-9]+/[0-9]+\\] )?STEP [0-9]+/[0-9]+: ";
const STEP = /^(?:\[(\d+)\/(\d+)\] )?STEP (\d+)\/(\d+): (.*)$/;

const box = find("steps");
let now;

export function open(status) {
  now = { id: status.build_id, cursor: "0", found: [], abort: new AbortController(), busy: false, again: false };
  box.open = false;
  box.hidden = false;
}

export function close() {
  now?.abort.abort();
  now = undefined;
  box.hidden = true;
  show(find("steps-note"));
  show(box.querySelector("tbody"));
  box.querySelector("table").hidden = true;
}

/** Reads what has come since the last time, where somebody looks. */
export async function update() {
  const reading = now;
  if (!reading || !box.open) return;
  reading.again = true;
  if (reading.busy) return;
  reading.busy = true;
  try {
    for (let more = true; more || reading.again;) {
      reading.again = false;
      const args = { build_id: reading.id, from: "start", cursor: reading.cursor, phase: "build", grep: PATTERN, context_lines: 0, lines: 2000, max_bytes: 30720 };
      const answer = await call("logs", args, reading.abort.signal);
      if (answer.first_line !== undefined) answer.text.split("\n").forEach((line) => add(reading.found, parseLine(line)));
      reading.cursor = answer.cursor ?? reading.cursor;
      more = answer.more_after;
    }
    render(reading);
  } catch (error) {
    if (!settled(error)) show(find("steps-note"), error.message);
  } finally {
    reading.busy = false;
  }
}

/**
 * Takes a line for the beginning of a step. Commands can print such lines, too: one counts when it stands where
 * the server counts that step, and is the one that is due.
 */
function add(found, line) {
  const match = STEP.exec(line.text);
  if (!match) return;
  const [, stage = "1", stages, index, of, instruction] = match;
  const last = found.at(-1);
  const due = last?.stage === stage ? last.index + 1 : 1;
  if (line.where !== `build ${index}/${of}` || Number(index) !== due) return;
  const named = due === 1 ? /\sAS\s+(\S+)\s*$/i.exec(instruction)?.[1] : last.name;
  found.push({ stage, stages, index: due, of, instruction, number: line.number, name: named });
}

function render({ id, found }) {
  show(find("steps-note"), found.length === 0 ? "No step has begun." : "");
  box.querySelector("table").hidden = found.length === 0;
  show(box.querySelector("tbody"), found.map((step) => el("tr", { "data-key": String(step.number) },
    el("td", {}, step.name ?? (step.stages ? `${step.stage} of ${step.stages}` : "")),
    el("th", { scope: "row", class: "figure" }, `${step.index}/${step.of}`),
    el("td", { class: "words" }, el("code", {}, step.instruction)),
    el("td", {}, el("a", { href: `#build/${id}/${step.number}` }, `line ${step.number}`)))));
}

box.addEventListener("toggle", update);
