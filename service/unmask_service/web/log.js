// The log of a generation or a score: all that is known of it. What the page shows is read from here.

export class Log {
  #begun = performance.now();

  constructor(request) {
    this.request = request;
    this.events = [];
    this.start = null;
    this.done = null;
    this.error = null;
  }

  /** Add an event as it arrives. */
  add({ id, event, data }) {
    this.events.push({ id, event, at_ms: Math.round(performance.now() - this.#begun), data });
    if (event === "start") this.start = data;
    else if (event === "done") this.done = data;
    else if (event === "error") this.error = data.error;
  }

  get ended() {
    return Boolean(this.done || this.error);
  }

  /** Network evaluations done. */
  get evaluations() {
    return 0;
  }

  /** Milliseconds from the first event to the last one. */
  get elapsedMs() {
    return this.events.length ? this.events.at(-1).at_ms - this.events[0].at_ms : 0;
  }

  /** Milliseconds left: by the server's forecast until something is done, then by the course so far. */
  get remainingMs() {
    const done = this.evaluations;
    if (!done) return this.start?.eta_ms ?? null;
    return (this.elapsedMs / done) * (this.start.network_evaluations - done);
  }
}

export class GenerationLog extends Log {
  samples = [];

  add(event) {
    super.add(event);
    if (event.event === "start") this.samples = event.data.canvas.map(() => []);
    else if (event.event === "unmask") this.samples[event.data.index].push(event.data);
  }

  get evaluations() {
    return this.samples.reduce((sum, reveals) => sum + reveals.length, 0);
  }

  /** Evaluations of the plan that were not needed: once a block holds an end token, what lies behind it is left masked. */
  get saved() {
    const bounded = this.request.sampler?.bound !== undefined; // its plan says how many there may be at most
    return this.done && !bounded ? this.start.network_evaluations - this.evaluations : 0;
  }

  /** Steps of a sample: those that it took; before its end what each `unmask` says; before the first, its share of the plan. */
  stepsOf(sample) {
    if (this.done) return this.samples[sample].length;
    return this.samples[sample][0]?.steps ?? Math.round(this.start.network_evaluations / this.samples.length);
  }
}

export class ScoreLog extends Log {
  /** What the last event said of the estimate. */
  progress = null;

  add(event) {
    super.add(event);
    if (event.event === "progress") this.progress = event.data;
  }

  get evaluations() {
    return this.progress?.network_evaluations_done ?? 0;
  }
}
