// The generation that the form asks for: its cost before, its canvas, what comes out.

import { bringIntoView, byId } from "./dom.js";
import { duration, several } from "./format.js";
import { GenerationLog } from "./log.js";
import { PlanPreview } from "./plan_preview.js";
import { Run } from "./run.js";

export class Composer extends Run {
  constructor(requestForm, stage, outcome) {
    super({ path: "generate", prefix: "", form: requestForm, Log: GenerationLog });
    Object.assign(this, { stage, outcome });
    this.preview = new PlanPreview(byId("plan"), requestForm);
    // while a generation runs it would be counted as ahead of the next
    requestForm.form.addEventListener("input", () => this.running || this.preview.refresh());
    this.preview.refresh();
  }

  begun() {
    this.preview.stop();
    this.outcome.hide();
  }

  shown(running) {
    byId("plan").hidden = running;
  }

  started() {
    this.form.showSeed(this.log.start.seed);
    this.stage.begin(this.log);
    bringIntoView(byId("generate").parentElement, byId("canvas"));
  }

  grown() {
    this.stage.grow();
  }

  summary() {
    const { usage, timings, choices } = this.log.done;
    if (this.stage.card.image) return `Done: ${several(choices.length, "picture")} in ${duration(timings.total_ms)}.`;
    const saved = this.log.saved ? `; ${several(this.log.saved, "evaluation")} saved behind the end` : "";
    return `Done: ${several(usage.completion_tokens, "token")} in ${duration(timings.total_ms)}${saved}.`;
  }

  ended() {
    if (this.log.start) this.outcome.show(this.log);
    this.preview.refresh();
  }
}
