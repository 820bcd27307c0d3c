// Asking again and again: while the page can be seen, and ever more slowly while nobody answers.

import { CallError } from "./mcp.js";

const FIRST_PAUSE = 1;
const LONGEST_PAUSE = 30;

/** Hears of problems: `trouble(error, seconds)` when it will be tried again, `trouble()` when all is well. */
let trouble = () => {};
/** Hears that the server wants another token. */
let unauthorised = () => {};

export function listen(hears) {
  ({ trouble, unauthorised } = hears);
}

/** Whether nobody need be told of an error of a call any more: it was stopped, or another token is asked for. */
export function settled(error) {
  if (error.kind === "unauthorised") unauthorised(error);
  return error.kind === "unauthorised" || error.name === "AbortError";
}

/**
 * Calls `turn(signal)` until it returns null; otherwise it returns the milliseconds to the next turn.
 * `refused(error)` hears of an error that makes it useless to go on.
 */
export class Poll {
  #turn;
  #refused;
  #ended = false;
  #abort = new AbortController();
  #wake = () => {};
  #again = false;
  #seen = () => this.nudge();

  constructor(turn, refused) {
    this.#turn = turn;
    this.#refused = refused;
    document.addEventListener("visibilitychange", this.#seen);
    this.#run();
  }

  /** Ends the turn that waits, and begins another. */
  nudge() {
    this.#again = true;
    this.#abort.abort();
    this.#wake();
  }

  stop() {
    this.#ended = true;
    document.removeEventListener("visibilitychange", this.#seen);
    this.nudge();
  }

  async #run() {
    let failures = 0;
    while (!this.#ended) {
      this.#again = false;
      if (document.hidden) {
        await this.#pause();
        continue;
      }
      this.#abort = new AbortController();
      let pause;
      try {
        pause = await this.#turn(this.#abort.signal);
        if (failures > 0) trouble();
        failures = 0;
      } catch (error) {
        if (this.#abort.signal.aborted) continue;
        if (!(error instanceof CallError)) throw error;
        if (error.kind !== "unreachable") {
          this.stop();
          if (!settled(error)) this.#refused(error);
          return;
        }
        const seconds = error.retryAfter ?? Math.min(FIRST_PAUSE * 2 ** failures, LONGEST_PAUSE);
        failures += 1;
        trouble(error, seconds);
        pause = seconds * 1000;
      }
      if (pause === null) {
        this.stop();
        return;
      }
      await this.#pause(pause);
    }
  }

  /** Until it is woken, or the time is over. */
  #pause(milliseconds) {
    if (this.#again || milliseconds === 0) return undefined;
    return new Promise((resolve) => {
      const timer = milliseconds === undefined ? undefined : setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
