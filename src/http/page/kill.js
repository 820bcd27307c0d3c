// The dialog that asks before a build is killed.

import { call } from "./mcp.js";
import { settled } from "./poll.js";
import { find, say } from "./dom.js";

const dialog = find("kill-dialog");
let asking;

/** Asks; `killed()` hears that the server has taken it on. */
export function ask(status, killed) {
  asking = { id: status.build_id, killed };
  find("kill-title").textContent = `Kill ${status.name ? `${status.name} (${status.build_id})` : status.build_id}?`;
  find("kill-reason").value = "";
  find("kill-problem").textContent = "";
  find("kill-confirm").disabled = false;
  dialog.showModal();
}

/** Whether it was open. */
export function close() {
  const { open } = dialog;
  dialog.close();
  return open;
}

find("kill-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { id, killed } = asking;
  const confirm = find("kill-confirm");
  if (confirm.disabled) return;
  confirm.disabled = true;
  const reason = find("kill-reason").value.trim() || undefined;
  try {
    // How it ends is seen by whoever looks at the build.
    const answer = await call("kill", { build_id: id, reason, wait: 0 });
    dialog.close();
    say(answer.summary);
    killed();
  } catch (error) {
    if (settled(error)) return;
    find("kill-problem").textContent = error.message;
    confirm.disabled = false;
  }
});
find("kill-cancel").addEventListener("click", () => dialog.close());
// A call that is under way is not taken back: it may have been heard.
dialog.addEventListener("close", () => { asking = undefined; });
