// An image model's canvas on the page: a sheet of all pictures, and one of them large, a cell a pixel.

import { make } from "./dom.js";
import { cssColour } from "./paint.js";
import { PictureSheet } from "./picture_sheet.js";
import { TokenWalk } from "./token_walk.js";

export class PictureView {
  #cells = [];
  #walk = null;

  /**
   * `onInspect(pixel)` hears which pixel is pointed at or reached by keyboard, and returns what to call it; `onChange()` hears
   * that another picture, or another step, is shown.
   */
  constructor(container, paint, onInspect, onChange) {
    Object.assign(this, { container, paint, onInspect, onChange });
    this.thumbnails = make("div", { className: "sheet" });
    this.large = make("div", { className: "large" });
    this.sheet = new PictureSheet(this.thumbnails, paint, (sample) => this.choose(sample));
    this.sample = 0;
  }

  /** The state of the picture that is shown large. */
  get state() {
    return this.sheet.states[this.sample];
  }

  begin(log) {
    this.sheet.begin(log);
    this.container.replaceChildren(this.large, this.thumbnails);
    this.thumbnails.hidden = log.samples.length === 1;
    this.choose(0);
  }

  /** Show one of the pictures large. */
  choose(sample) {
    this.sample = sample;
    this.#cells = Array.from({ length: this.paint.pixels }, () => make("span", { className: "pixel" }));
    const list = make("div", { className: "pixels" }, ...this.#cells);
    list.style.setProperty("--columns", this.paint.width);
    const { width, height } = this.paint;
    const label = `Picture ${sample + 1} of ${width} by ${height} pixels`;
    this.#walk = new TokenWalk(list, this.#cells, { label, prefix: "pixel", tell: this.onInspect });
    this.large.replaceChildren(list);
    this.#cells.forEach((_, pixel) => this.#show(pixel));
    this.onChange();
  }

  seek(step, since) {
    const changed = this.sheet.seek(step, since)[this.sample];
    const pixels = new Set([...changed].map((position) => Math.floor(position / this.paint.channels)));
    for (const pixel of pixels) this.#show(pixel);
    if (pixels.has(this.#walk.active)) this.#walk.retell();
    if (pixels.size) this.onChange();
  }

  digitsOf(pixel) {
    return this.sheet.digitsOf(this.sample, pixel);
  }

  /** Mark the pixels of a set as masked. */
  showMask(masked) {
    this.#cells.forEach((cell, pixel) => cell.toggleAttribute("data-masked", masked.has(pixel)));
  }

  /** The pixel of an element of the large picture; undefined where it is none. */
  pixelOf(element) {
    const pixel = this.#cells.indexOf(element);
    return pixel < 0 ? undefined : pixel;
  }

  get active() {
    return this.#walk.active;
  }

  #show(pixel) {
    const cell = this.#cells[pixel];
    const positions = Array.from({ length: this.paint.channels }, (_, channel) => pixel * this.paint.channels + channel);
    const kinds = new Set(positions.map((position) => this.state.stateOf(position)));
    cell.dataset.state = kinds.size === 1 ? [...kinds][0] : "intermediate";
    cell.style.setProperty("--colour", cssColour(this.paint.colourOf(this.digitsOf(pixel))));
    const indices = positions.flatMap((position) => Array.from({ length: this.paint.digits }, (_, j) => position * this.paint.digits + j));
    const complete = this.state.log.ended && this.state.step === this.state.reveals.length;
    cell.toggleAttribute("data-fresh", !complete && indices.some((index) => this.state.fresh.has(index)));
  }
}
