// What pressing the button will cost, asked of the server a moment after each change.

import { plan } from "./api.js";
import { duration, several } from "./format.js";

const QUIET_MS = 300;

export class PlanPreview {
  #timer = null;
  #abort = new AbortController();

  /** `form` gives the body, marks the field that is at fault, and puts errors in its words. */
  constructor(output, form) {
    Object.assign(this, { output, form });
  }

  /** Ask again, once nothing has changed for a moment. */
  refresh() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), QUIET_MS);
  }

  /** Ask no more until the next refresh. */
  stop() {
    clearTimeout(this.#timer);
    this.#abort.abort();
  }

  async #ask() {
    this.#abort.abort();
    const { signal } = (this.#abort = new AbortController());
    try {
      const body = this.form.body();
      const planned = await plan(body, signal);
      this.output.textContent = planSentence(planned, body.sampler, body.seed !== undefined);
      this.form.mark(null);
    } catch (error) {
      if (signal.aborted) return;
      this.output.textContent = this.form.told(error);
      this.form.mark(error);
      if (error.retryAfter) this.#timer = setTimeout(() => this.#ask(), 1000 * error.retryAfter);
    }
  }
}

/** A plan in one line: "81 network evaluations, 47 idle steps skipped · about 0.4 s". */
export function planSentence(planned, sampler, pinned) {
  // how many steps are idle depends on the seed, which may not be drawn yet
  const drawn = ["ancestral", "remasking"].includes(sampler?.name) && !pinned;
  const about = planned.upper_bound ? "at most " : drawn ? "about " : "";
  const parts = [`${about}${several(planned.network_evaluations, "network evaluation")}`];
  if (planned.idle_steps) parts[0] += `, ${several(planned.idle_steps, "idle step")} skipped`;
  if (planned.eta_ms !== null) parts.push(`about ${duration(planned.eta_ms)}`);
  const ahead = planned.queue.running + planned.queue.waiting;
  if (ahead) parts.push(`${several(ahead, "request")} at work or ahead`);
  return parts.join(" · ");
}
