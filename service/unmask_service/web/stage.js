// The canvas section: a log's canvas, the token under the pointer, and the step that is shown.

import { CanvasState } from "./canvas_state.js";
import { CanvasView } from "./canvas_view.js";
import { byId, make, oncePerFrame } from "./dom.js";
import { Inspector } from "./inspector.js";
import { Player } from "./player.js";

export class Stage {
  constructor(card) {
    this.card = card;
    this.inspector = new Inspector(byId("inspector"), card);
    this.view = new CanvasView(byId("canvas"), (position) => this.inspector.show(this.view.state, position));
    this.player = new Player((...steps) => this.#show(...steps), () => this.#showPlaying());
    this.grow = oncePerFrame(() => this.#grow());
    this.#listen();
  }

  /** Show a log that has just started, from its first step on as it grows. */
  begin(log) {
    this.log = log;
    const samples = log.samples.length;
    byId("sample").replaceChildren(...log.samples.map((_, i) => make("option", { value: i }, `${i + 1} of ${samples}`)));
    byId("sample-field").hidden = samples === 1;
    this.#choose(0);
  }

  #choose(sample) {
    this.sample = sample;
    const state = new CanvasState(this.log, sample, this.card.end_token_id);
    this.inspector.clear();
    this.view.begin(state, `Canvas of ${state.length} tokens`);
    for (const id of ["scrubber", "play"]) byId(id).disabled = false;
    this.player.begin(this.log.stepsOf(sample));
    this.#grow();
    if (this.log.ended) this.player.seek(this.player.available);
  }

  #grow() {
    const available = this.log.samples[this.sample].length;
    this.player.planned = this.log.stepsOf(this.sample);
    this.player.grow(available, this.log.ended, Math.max(0.5, this.log.elapsedMs / 1000));
    if (this.log.done) this.view.join();
    byId("scrubber").max = this.player.planned;
    byId("step").textContent = `step ${this.player.step} of ${this.player.planned}`;
  }

  #show(step, since) {
    this.view.seek(step, since);
    const told = `step ${step} of ${this.player.planned}`;
    byId("scrubber").value = step;
    byId("scrubber").setAttribute("aria-valuetext", told);
    byId("step").textContent = told;
  }

  #showPlaying() {
    byId("play").textContent = this.player.playing ? "Pause" : "Play";
  }

  #listen() {
    byId("play").addEventListener("click", () => (this.player.playing ? this.player.pause() : this.player.play()));
    byId("scrubber").addEventListener("input", (event) => this.#scrub(Number(event.target.value)));
    byId("speed").addEventListener("change", (event) => (this.player.seconds = Number(event.target.value)));
    byId("sample").addEventListener("change", (event) => this.#choose(Number(event.target.value)));
    for (const choice of document.getElementsByName("view")) {
      choice.addEventListener("change", () => (byId("canvas").dataset.view = choice.value));
    }
    this.player.seconds = Number(byId("speed").value);
  }

  /** What has not been revealed yet cannot be shown: the slider stays where the log ends. */
  #scrub(step) {
    this.player.seek(step);
    byId("scrubber").value = this.player.step;
  }
}
