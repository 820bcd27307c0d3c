// One build: how it stands, kept up to date, and the parts that make up its view.

import { call } from "./mcp.js";
import { Poll } from "./poll.js";
import { duration, el, find, isFinal, say, show, stateBadge, word } from "./dom.js";
import { sentence } from "./list.js";
import * as kill from "./kill.js";
import * as log from "./log.js";
import * as parts from "./parts.js";
import * as save from "./save.js";
import * as steps from "./steps.js";

/** Seconds that a look waits for a change. */
const WAIT = 20;
/** Seconds without output that are worth a word. */
const SILENCE = 30;
/** Milliseconds between two looks at a build that changes all the time. */
const PAUSE = 200;

/** The build that is open: its id, its status and when that came, and when its log had news. */
let now;

export function open(id, line) {
  if (now?.id === id) {
    now.line = line;
    if (line && now.status) log.goTo(line);
    return;
  }
  close();
  now = { id, line, status: undefined, received: 0, heard: 0, poll: undefined, ticking: setInterval(tick, 1000) };
  find("build").hidden = false;
  find("build-title").textContent = `Build ${id}`;
  find("build-problem").textContent = "";
  document.title = `Build ${id} – nomad-build`;
  const open = now;
  let wait = 0;
  const turn = async (signal) => {
    const args = wait > 0 ? { build_id: open.id, wait, until: "change" } : { build_id: open.id, wait };
    const { builds: [status] } = await call("status", args, signal);
    const before = open.status;
    take(status);
    // What changes between two looks is seen by looking twice.
    wait = before && mark(before) === mark(status) ? WAIT : 0;
    return isFinal(status.state) ? null : before && wait > 0 ? 0 : PAUSE;
  };
  now.poll = new Poll(turn, (error) => {
    find("build-problem").textContent = error.code === "not_found" ? "You have no build of this id." : error.message;
  });
  now.lookAgain = () => {
    wait = 0;
    open.poll.nudge();
  };
}

/** Returns the id of the build that was open. */
export function close() {
  if (!now) return undefined;
  const { id } = now;
  now.poll.stop();
  clearInterval(now.ticking);
  now = undefined;
  log.close();
  steps.close();
  kill.close();
  save.close();
  for (const part of ["failure", "phases", "tests", "image", "details"]) fill(part, []);
  show(find("standing"));
  // The next who looks may be somebody else.
  for (const title of ["build-title", "kill-title", "said"]) show(find(title));
  find("kill").hidden = true;
  find("build").hidden = true;
  return id;
}

/** What counts as a change. */
function mark({ state, phase, step, tests, cancel, image }) {
  return JSON.stringify([state, phase, step, tests, cancel, image]);
}

function take(status) {
  const before = now.status;
  now.status = status;
  now.received = performance.now();
  const name = status.name ?? status.build_id;
  find("build-title").textContent = status.name ?? `Build ${status.build_id}`;
  document.title = `${word(status.state)}: ${name} – nomad-build`;
  for (const part of ["failure", "phases", "tests", "image", "details"]) fill(part, parts[part](status));
  tick(true);
  if (isFinal(status.state)) {
    const focused = document.activeElement === find("kill");
    find("kill").hidden = true;
    // There is nothing to ask any more.
    if (kill.close() || focused) find("build-title").focus();
  } else {
    find("kill").hidden = false;
  }
  if (!before) {
    // The address may have had the beginning of the id alone.
    if (status.build_id !== now.id) {
      now.id = status.build_id;
      history.replaceState(null, "", `#build/${status.build_id}`);
    }
    log.open(status, now.line, heard);
    steps.open(status);
  } else if (before.state !== status.state || before.phase !== status.phase) {
    const more = isFinal(status.state) ? sentence(status) : status.phase && `in the phase ${status.phase}`;
    say([`${name}: ${word(status.state)}`, more].filter(Boolean).join(" "));
  }
  if (mark(before ?? {}) !== mark(status)) steps.update();
}

/** A line of the log has come. When it tells of another phase or step than the status, that is out of date. */
function heard(phase, step) {
  const { status } = now ?? {};
  if (!status || isFinal(status.state)) return;
  now.heard = performance.now();
  const known = status.phase === "build" && status.step ? `${status.step.index}/${status.step.of}` : undefined;
  if (phase !== status.phase || (step && step !== known)) now.lookAgain();
}

function fill(part, contents) {
  const section = find(part);
  section.hidden = contents.length === 0;
  show(section, contents);
}

/** Shows the seconds that pass between two looks. */
function tick(fresh) {
  const { status } = now;
  if (!status || (fresh !== true && isFinal(status.state))) return;
  const since = (moment) => Math.round((performance.now() - moment) / 1000);
  const passed = since(now.received);
  const silent = Math.min((status.idle_seconds ?? 0) + passed, now.heard ? since(now.heard) : Infinity);
  show(find("standing"), isFinal(status.state) ? ended(status) : underWay(status, passed, silent));
}

function ended(status) {
  return el("p", { class: "standing" }, stateBadge(status.state), " ", el("span", { class: "words" }, sentence(status)));
}

function underWay(status, passed, silent) {
  const { queue, step, cancel } = status;
  const facts = [];
  if (status.phase === "build" && step) facts.push(`step ${step.index} of ${step.of}${parts.stageOf(step.stage) ? ` of ${parts.stageOf(step.stage)}` : ""}`);
  if (status.elapsed_seconds !== undefined) {
    const usual = status.typical_seconds === undefined ? "" : ` of usually ${duration(status.typical_seconds)}`;
    facts.push(`${duration(status.elapsed_seconds + passed)}${usual}`);
  }
  if (silent >= SILENCE) facts.push(`no output for ${duration(silent)}`);
  if (queue) {
    facts.push(queue.position === undefined ? queue.reason : `position ${queue.position}: ${queue.reason}`);
    facts.push(`waits ${duration(queue.seconds + passed)}, gives up in ${duration(Math.max(0, queue.gives_up_in_seconds - passed))}`);
  }
  const shown = [el("p", { class: "standing" }, stateBadge(status.state), " ", [status.phase, ...facts].filter(Boolean).join(", "))];
  if (status.phase === "build" && step) {
    shown.push(el("p", { class: "now" },
      el("progress", { max: step.of, value: step.index - 1, "aria-label": "Steps of this stage that are done" }), " ",
      step.line !== undefined && `line ${step.line}: `, el("code", {}, step.instruction)));
  }
  if (cancel) {
    shown.push(el("p", { class: "warning" }, `${cancel.by} has asked for its end`, cancel.reason && `: ${cancel.reason}`,
      cancel.waiting_for && ` (it waits for ${cancel.waiting_for})`));
  }
  return shown;
}

find("kill").addEventListener("click", () => kill.ask(now.status, () => now?.lookAgain()));
