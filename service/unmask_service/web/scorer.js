// The score that its form asks for: how the estimate settles while it runs, what it comes to.

import { duration, estimated, several } from "./format.js";
import { ScoreLog } from "./log.js";
import { Run } from "./run.js";

export class Scorer extends Run {
  constructor(scoreForm, outcome) {
    super({ path: "score", prefix: "score-", form: scoreForm, Log: ScoreLog });
    this.outcome = outcome;
  }

  begun() {
    this.outcome.hide();
  }

  courseText(left) {
    const { nats_per_token: nats, standard_error_per_token: error } = this.log.progress ?? {};
    const estimate = error === undefined || error === null ? "" : `${estimated(nats, error)} nats a token`;
    return [estimate, left].filter(Boolean).join(" · ");
  }

  summary() {
    const { tokens, nats_per_token: nats, standard_error_per_token: error, timings } = this.log.done;
    return `Done: ${several(tokens, "token")} at ${estimated(nats, error)} nats in ${duration(timings.total_ms)}.`;
  }

  ended() {
    if (this.log.done) this.outcome.show(this.log, this.form.textOf(this.log.request));
  }
}
