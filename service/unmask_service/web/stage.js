// The canvas section: a log's canvas, the token or the pixel under the pointer, and the step that is shown.

import { CanvasState, endTokensOf } from "./canvas_state.js";
import { CanvasView } from "./canvas_view.js";
import { byId, make, oncePerFrame } from "./dom.js";
import { Inspector } from "./inspector.js";
import { Paint } from "./paint.js";
import { PictureView } from "./picture_view.js";
import { PixelInspector } from "./pixel_inspector.js";
import { Player } from "./player.js";

export class Stage {
  constructor(card) {
    this.card = card;
    if (card.image) this.#showPictures(new Paint(card, card.vocabulary_size));
    else {
      this.inspector = new Inspector(byId("inspector"), card);
      this.view = new CanvasView(byId("canvas"), (position) => this.inspector.show(this.view.state, position));
    }
    this.player = new Player((...steps) => this.#show(...steps), () => this.#showPlaying());
    this.grow = oncePerFrame(() => this.#grow());
    this.#listen();
  }

  /** Show a log that has just started, from its first step on as it grows. */
  begin(log) {
    this.log = log;
    if (this.card.image) return this.#follow(() => this.view.begin(log));
    const samples = log.samples.length;
    byId("sample").replaceChildren(...log.samples.map((_, i) => make("option", { value: i }, `${i + 1} of ${samples}`)));
    byId("sample-field").hidden = samples === 1;
    this.#choose(0);
  }

  #choose(sample) {
    this.sample = sample;
    const state = new CanvasState(this.log, sample, endTokensOf(this.card));
    this.#follow(() => this.view.begin(state, `Canvas of ${state.length} tokens`));
  }

  /** Show the canvas that `begin` begins, from its first step on. */
  #follow(begin) {
    this.inspector.clear();
    begin();
    for (const id of ["scrubber", "play"]) byId(id).disabled = false;
    this.player.begin(this.#planned);
    this.#grow();
    if (this.log.ended) this.player.seek(this.player.available);
  }

  /** The samples that are shown: all pictures of a log, or the one that was chosen. */
  get #shown() {
    return this.card.image ? [...this.log.samples.keys()] : [this.sample];
  }

  get #planned() {
    return Math.max(...this.#shown.map((sample) => this.log.stepsOf(sample)));
  }

  /** Steps that all samples which are shown have done, where they have so many. */
  get #available() {
    const done = this.#shown.map((sample) => this.log.samples[sample].length);
    const behind = done.filter((steps, i) => !this.log.ended && steps < this.log.stepsOf(this.#shown[i]));
    return behind.length ? Math.min(...behind) : Math.max(...done);
  }

  #grow() {
    this.player.planned = this.#planned;
    this.player.grow(this.#available, this.log.ended, Math.max(0.5, this.log.elapsedMs / 1000));
    if (this.log.done && !this.card.image) this.view.join();
    if (!this.card.image) this.view.showNext();
    byId("scrubber").max = this.player.planned;
    byId("step").textContent = `step ${this.player.step} of ${this.player.planned}`;
  }

  #showPictures(paint) {
    byId("canvas").dataset.view = "pictures";
    byId("canvas-title").textContent = "Pictures";
    this.inspector = new PixelInspector(byId("inspector"), paint);
    this.view = new PictureView(byId("canvas"), paint, (pixel) => this.inspector.show(this.view, pixel), () => this.changed());
  }

  /** For the editor to hear that another picture, or another step of it, is shown. */
  changed() {}

  #show(step, since) {
    this.view.seek(step, since);
    const told = `step ${step} of ${this.player.planned}`;
    byId("scrubber").value = step;
    byId("scrubber").setAttribute("aria-valuetext", told);
    byId("step").textContent = told;
  }

  #showOrder(shown) {
    byId("canvas").toggleAttribute("data-order", shown);
    if (this.log) this.view.showNext();
  }

  #showPlaying() {
    byId("play").textContent = this.player.playing ? "Pause" : "Play";
  }

  #listen() {
    byId("play").addEventListener("click", () => (this.player.playing ? this.player.pause() : this.player.play()));
    byId("scrubber").addEventListener("input", (event) => this.#scrub(Number(event.target.value)));
    byId("speed").addEventListener("change", (event) => (this.player.seconds = Number(event.target.value)));
    byId("sample").addEventListener("change", (event) => this.#choose(Number(event.target.value)));
    byId("order").addEventListener("change", (event) => this.#showOrder(event.target.checked));
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
