// Making and changing elements. Text becomes text nodes, never markup.

/** An element with attributes (undefined and false are left out) and children (text, elements, lists of them). */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== undefined && child !== false));
  return element;
}

export function find(id) {
  return document.getElementById(id);
}

/** Gives `parent` these children. What is there already stays, with its focus and selection. */
export function show(parent, ...children) {
  const fresh = document.createElement(parent.nodeName);
  fresh.append(...children.flat(3).filter((child) => child !== undefined && child !== false));
  patchChildren(parent, fresh);
}

function patchChildren(old, fresh) {
  const wanted = [...fresh.childNodes];
  const keys = new Set(wanted.map(keyOf));
  for (const child of [...old.childNodes]) {
    if (keyOf(child) && !keys.has(keyOf(child))) child.remove();
  }
  wanted.forEach((node, at) => {
    const there = old.childNodes[at];
    const known = keyOf(node) && [...old.children].find((child) => keyOf(child) === keyOf(node));
    if (known) {
      if (known !== there) old.insertBefore(known, there ?? null);
      patch(known, node);
    } else if (there && !keyOf(there) && !keyOf(node) && there.nodeName === node.nodeName) {
      patch(there, node);
    } else {
      old.insertBefore(node, there ?? null);
    }
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

function patch(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // Whoever reads has opened it.
    const own = old.nodeName === "DETAILS" && name === "open";
    if (!fresh.hasAttribute(name) && !own) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  patchChildren(old, fresh);
}

/** Elements with the same `data-key` are the same one. */
function keyOf(node) {
  return node.dataset?.key;
}

/** Tells those who listen instead of looking. */
export function say(text) {
  find("said").textContent = text;
}

/** A button that copies `text`; `what` says which text. */
export function copyButton(text, what) {
  return el("button", { type: "button", class: "copy", "data-copy": text, "aria-label": `Copy ${what}` }, "Copy");
}

/** A text that can be copied. */
export function copyable(text, what) {
  return [el("code", {}, text), " ", copyButton(text, what)];
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const done = await copy(button.dataset.copy);
  say(done ? "Copied" : "The browser does not let this page copy");
  button.textContent = done ? "Copied" : "Failed";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // There is no clipboard for pages that came without TLS from another host.
    const field = el("textarea", { class: "unseen", "aria-hidden": "true", tabindex: "-1" });
    const focused = document.activeElement;
    field.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    focused?.focus();
    return done;
  }
}

/** 412 is "6 min 52 s". */
export function duration(seconds) {
  if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  const minutes = Math.floor((whole % 3600) / 60);
  return `${Math.floor(whole / 3600)} h${minutes ? ` ${minutes} min` : ""}`;
}

/** A table: `heads` are names of columns, `numbers` those among them whose values are numbers. */
export function table(heads, numbers, rows) {
  const head = heads.map((text) => el("th", { scope: "col", class: numbers.includes(text) && "figure" }, text));
  return el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}

/** A moment in the reader's own time zone: the time alone where it is today. */
export function moment(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text;
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const today = date.toDateString() === new Date().toDateString();
  return el("time", { datetime: text }, today ? time : `${day} ${time}`);
}

/** A state as a word with a sign; the sign is of the style sheet. */
export function stateBadge(state) {
  return el("span", { class: `state ${state}` }, word(state));
}

/** A state as people read it. */
export function word(state) {
  return state.replaceAll("_", " ");
}

export function isFinal(state) {
  return state !== "queued" && state !== "running";
}
