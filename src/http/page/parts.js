// What is shown of a build: each function makes the contents of one section from a status.

import { copyButton, copyable, duration, el, isFinal, moment, stateBadge, table, word } from "./dom.js";
import { saveButton } from "./save.js";

/** Who can mend a failure, in words. */
const FAULTS = {
  code: "To be mended in the code: the Containerfile, the sources or the tests.",
  request: "To be mended in the arguments of the build.",
  operator: "To be mended by whoever runs this server, or owns the registry or repository.",
  transient: "Nobody need mend anything: the same build may succeed when it is tried again.",
  unknown: "It is not known who can mend it.",
};

export function failure(status) {
  const { failure: why } = status;
  if (!why) return [];
  const at = why.log_cursor && Number(why.log_cursor) + 1;
  return [
    el("h2", { id: "failure-title" }, "Why it did not succeed"),
    el("p", { class: "message" }, why.message),
    el("p", {}, FAULTS[why.fault] ?? "", " ", el("code", {}, `${why.fault}/${why.kind}`),
      why.test && [" in the test ", el("code", {}, why.test)],
      why.exit_code !== undefined && ` (exit status ${why.exit_code})`),
    why.hint && el("p", { class: "hint" }, why.hint),
    containerfileLine(why),
    why.locations?.length > 0 && [el("h3", {}, "Places"), el("ul", { class: "places" }, why.locations.map(place))],
    why.excerpt && [el("h3", {}, "Decisive output"), el("pre", { class: "excerpt" }, why.excerpt)],
    since(status.since_success),
    at && el("p", {}, el("a", { href: `#build/${status.build_id}/${at}` }, `Open the log at line ${at}`)),
    el("p", {}, published(status)),
  ];
}

/** What is otherwise than in the last success of the same source. */
function since(success) {
  if (!success) return undefined;
  const bases = (success.bases ?? []).map((base) => `${base.image}: ${base.now ?? "none"}, before ${base.before ?? "none"}`);
  const args = (success.build_args ?? []).map((name) => `build argument ${name}`);
  const contexts = (success.build_contexts ?? []).map((name) => `named context ${name}`);
  const steps = success.step ? [`line ${success.step.line ?? "?"}: ${success.step.instruction}`] : [];
  const items = [...bases, ...args, ...contexts, ...steps];
  return [
    el("h3", {}, "Since it last succeeded"),
    el("p", {}, success.summary[0].toUpperCase(), success.summary.slice(1), "."),
    items.length > 0 && el("ul", {}, items.map((item) => el("li", {}, item))),
  ];
}

/** The instruction as a line of its file, with a mark below it. */
function containerfileLine(why) {
  if (!why.file) return undefined;
  const where = [why.line && `${why.file}:${why.line}`, stageOf(why.stage), why.step && `step ${why.step}`];
  const caption = el("figcaption", {}, where.filter(Boolean).join(", ") || why.file);
  if (!why.instruction) return el("figure", { class: "anchor" }, caption);
  const number = String(why.line ?? "?");
  const mark = "^".repeat(Math.max(3, Math.min(why.instruction.split(" ", 1)[0].length, 20)));
  const code = el("code", {},
    el("span", { class: "number" }, `${number} | `), why.instruction, "\n",
    el("span", { class: "mark", "aria-hidden": "true" }, `${" ".repeat(number.length)} | ${mark} here`));
  return el("figure", { class: "anchor" }, caption, el("pre", {}, code));
}

function place(location) {
  const text = [location.file, location.line, location.column].filter((part) => part !== undefined).join(":");
  return el("li", {}, copyable(text, text), location.message && [" ", location.message]);
}

function published(status) {
  const written = (status.image?.tags ?? []).filter((tag) => tag.state === "confirmed").length;
  const unknown = (status.image?.tags ?? []).length - written;
  if (written + unknown === 0) return "Nothing was published.";
  const rest = unknown > 0 ? `; of ${unknown} it is not known` : "";
  return `${written} of ${status.tags?.length ?? written} tags were published${rest}: see the image.`;
}

/** A stage as people speak of it: the only one needs no name. */
export function stageOf(stage) {
  return stage && stage !== "0" ? `stage ${stage}` : undefined;
}

export function phases(status) {
  const names = ["source", "build", ...(status.tests?.length ? ["test"] : []), ...(status.tags?.length ? ["publish"] : [])];
  const seconds = status.times?.phase_seconds ?? {};
  if (!status.phase && Object.keys(seconds).length === 0) return [];
  const reached = names.indexOf(status.phase);
  const standing = (name, at) => {
    if (at < reached) return "done";
    if (name !== status.phase) return isFinal(status.state) ? "not reached" : "not yet";
    if (!isFinal(status.state)) return "now";
    return status.state === "succeeded" ? "done" : `ended here: ${word(status.state)}`;
  };
  const rows = names.map((name, at) => el("tr", { "aria-current": !isFinal(status.state) && name === status.phase && "step" },
    el("th", { scope: "row" }, name),
    el("td", {}, standing(name, at)),
    el("td", { class: "figure" }, seconds[name] === undefined ? "" : duration(seconds[name]))));
  return [el("h2", { id: "phases-title" }, "Phases"), table(["Phase", "State", "Took"], ["Took"], rows)];
}

export function tests(status) {
  if (!status.tests?.length) return [];
  const rows = status.tests.map((test) => el("tr", {},
    el("th", { scope: "row" }, test.name),
    el("td", {}, !isFinal(status.state) && test.status === "not_run" ? "not yet" : stateBadge(test.status)),
    el("td", { class: "figure" }, test.exit_code === undefined ? "" : String(test.exit_code)),
    el("td", { class: "figure" }, test.seconds === undefined ? "" : duration(test.seconds)),
    el("td", {}, test.first_line !== undefined && el("a", { href: `#build/${status.build_id}/${test.first_line}` }, `line ${test.first_line}`))));
  const excerpts = status.tests.filter((test) => test.excerpt)
    .map((test) => [el("h3", {}, `Last lines of ${test.name}`), el("pre", { class: "excerpt" }, test.excerpt)]);
  const cases = status.tests.filter((test) => test.report?.failures?.length)
    .map((test) => [el("h3", {}, `Cases of ${test.name} that failed`), el("ul", {}, test.report.failures.map(caseItem))]);
  return [el("h2", { id: "tests-title" }, "Tests"), table(["Test", "Result", "Exit status", "Took", "Log"], ["Exit status", "Took"], rows), cases, excerpts];
}

function caseItem({ name, file, line, message }) {
  const place = file && ` (${file}${line ? `:${line}` : ""})`;
  return el("li", { class: "words" }, name, place, message && `: ${message}`);
}

export function image(status) {
  const { image: made } = status;
  if (!made && !status.tags?.length) return [];
  const facts = made ? factsOf([
    ["Published", made.published ? "yes" : isFinal(status.state) && "no"],
    ["Digest", made.digest && copyable(made.digest, "the digest")],
    ["Image id", made.id && copyable(made.id, "the id of the image")],
    ["Size in a registry", made.size_bytes !== undefined && bytes(made.size_bytes)],
  ]) : undefined;
  const known = new Map((made?.tags ?? []).map((tag) => [tag.tag, tag]));
  const all = [...new Set([...(status.tags ?? []), ...known.keys()])];
  const rows = all.map((tag) => el("tr", {},
    el("th", { scope: "row", class: "words" }, copyable(tag, `the tag ${tag}`)),
    el("td", {}, tagWord(known.get(tag), status)),
    el("td", {}, known.get(tag)?.digest && copyButton(`${tag.replace(/:[^:/]*$/, "")}@${known.get(tag).digest}`, `${tag} by its digest`))));
  return [el("h2", { id: "image-title" }, "Image"), facts, rows.length > 0 && table(["Tag", "State", "By digest"], [], rows)];
}

function tagWord(tag, status) {
  if (tag?.state === "confirmed") return "pushed";
  if (tag) return "unknown: it may or may not have been written";
  return isFinal(status.state) ? "not pushed" : "to be pushed after the tests";
}

function bytes(count) {
  return count < 1 << 20 ? `${Math.ceil(count / 1024)} KiB` : `${(count / (1 << 20)).toFixed(1)} MiB`;
}

export function details(status) {
  const { source = {}, times = {}, resources = {}, cancel } = status;
  const by = cancel && [cancel.by, cancel.reason && `: ${cancel.reason}`];
  const memory = resources.peak_memory_mb !== undefined && `${resources.peak_memory_mb} MiB`;
  return [el("h2", { id: "details-title" }, "Details"), factsOf([
    ["Build", copyable(status.build_id, "the id of the build")],
    ["Repository", source.git && copyable(source.git, "the repository")],
    ["Ref", source.ref],
    ["Commit", source.commit && copyable(source.commit, "the commit")],
    ["Directory", source.path],
    ["Within it", source.subdir],
    ["Digest of the sources", source.digest && copyable(source.digest, "the digest of the sources")],
    ["Profile", status.profile],
    ["Submitted", times.submitted && moment(times.submitted)],
    ["Started", times.started && moment(times.started)],
    ["Finished", times.finished && moment(times.finished)],
    ["Took", isFinal(status.state) && status.elapsed_seconds !== undefined && duration(status.elapsed_seconds)],
    ["May take", status.timeout_seconds !== undefined && duration(status.timeout_seconds)],
    ["Largest memory", memory && (resources.limit_mb ? `${memory} of ${resources.limit_mb} MiB` : memory)],
    ["End asked for by", by],
    ...(status.outputs ?? []).map((output) => [`Output ${output.name}`, outputWords(output, status.build_id)]),
  ])];
}

function outputWords({ name, from, test, missing, size_bytes: size, uri }, build) {
  const of = test ? `${from} of the test ${test}` : from;
  return missing ? `none of ${of}: ${missing}` : [`${of}, ${bytes(size)} `, uri && saveButton(build, name)];
}

/** A list of names and values, without those that have no value. */
function factsOf(pairs) {
  const known = pairs.filter(([, value]) => value);
  return el("dl", {}, known.map(([name, value]) => el("div", { "data-key": name }, el("dt", {}, name), el("dd", {}, value))));
}
