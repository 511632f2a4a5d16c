// A section's job, from the press of its button to its end: what is said of it, how far it is, how it is stopped.

import { byId, make, oncePerFrame } from "./dom.js";
import { duration, sentence, several } from "./format.js";
import { Job } from "./job.js";

export class Run {
  #current = null;

  /**
   * `form` gives the body, marks the field that is at fault, and puts errors in its words; `Log` is the kind of log that the job has.
   * The ids of the section's elements begin with `prefix`.
   */
  constructor({ path, prefix, form, Log }) {
    Object.assign(this, { path, prefix, form, Log });
    this.showCourse = oncePerFrame(() => this.#showCourse());
    form.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
    form.form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.form.requestSubmit();
    });
    this.element("cancel").addEventListener("click", () => this.#cancel());
    addEventListener("pagehide", () => this.#current?.leave());
  }

  get running() {
    return this.#current !== null;
  }

  element(id) {
    return byId(this.prefix + id);
  }

  /** Run the request that the form holds now, with `more` fields; one that runs already is left. */
  async start(more = {}) {
    this.#current?.leave();
    const job = this.#begin(more);
    if (!job) return;
    const { log } = this;
    try {
      for await (const event of job.events()) this.#take(log, event);
    } catch (error) {
      if (this.#current === job) this.#fail(error);
    }
    if (this.#current === job) this.#end();
  }

  /** For a section to say what else happens when a job begins. */
  begun() {}

  /** … when one has told how it was planned. */
  started() {}

  /** … with every event. */
  grown() {}

  /** … when it has ended, well or not. */
  ended() {}

  /** … when its running begins to be shown, or ends to be. */
  shown() {}

  /** What is said of a job that is done. */
  summary() {
    return "Done.";
  }

  /** What is said beside the bar, `left` being the time that is left, or "". */
  courseText(left) {
    return left;
  }

  #begin(more) {
    for (const id of ["error", "status"]) this.#say(id, "");
    this.#warn([]);
    this.form.mark(null);
    try {
      const body = { ...this.form.body(), ...more };
      this.log = new this.Log(body);
      this.#current = new Job(this.path, body, (lost) =>
        this.#say("status", lost ? "The connection is lost; trying again …" : "Connected again."));
    } catch (error) {
      this.#current = null;
      this.#show(false);
      this.#fail(error);
      return null;
    }
    this.begun();
    this.#show(true);
    return this.#current;
  }

  #take(log, event) {
    log.add(event);
    if (event.event === "start") {
      this.started();
      this.#say("status", `${several(log.start.network_evaluations, "network evaluation")} planned.`);
    }
    this.grown();
    this.showCourse();
  }

  #end() {
    const { log } = this;
    this.#current = null;
    this.#show(false);
    if (log.done) {
      this.element("progress").value = 1;
      this.#say("status", this.summary());
      this.#warn(log.done.warnings ?? []);
    }
    if (log.error?.code === "cancelled") this.#say("status", `Cancelled after ${several(log.evaluations, "network evaluation")}.`);
    else if (log.error) this.#fail(log.error);
    this.ended();
  }

  #fail(error) {
    this.#say("error", this.form.told(error));
    this.#say("status", "");
    this.form.mark(error);
  }

  async #cancel() {
    try {
      await this.#current?.cancel();
    } catch (error) {
      this.#fail(error);
    }
  }

  #show(running) {
    this.element("cancel").hidden = this.element("course").hidden = !running;
    if (running) this.element("progress").value = 0;
    this.element("eta").textContent = "";
    this.shown(running);
  }

  #showCourse() {
    const { log } = this;
    if (!log.start || log.ended) return;
    this.element("progress").value = log.start.network_evaluations ? log.evaluations / log.start.network_evaluations : 1;
    const left = log.remainingMs;
    this.element("eta").textContent = this.courseText(left === null ? "" : `about ${duration(left)} left`);
  }

  /** Show the warnings of an answer, sentences of the server's. */
  #warn(sentences) {
    this.element("warnings").replaceChildren(...sentences.map((each) => make("p", {}, sentence(each))));
  }

  #say(id, text) {
    this.element(id).textContent = text;
  }
}
