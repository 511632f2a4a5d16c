// The pictures of a log, all after the same step: a small <canvas> each.

import { CanvasState } from "./canvas_state.js";
import { make } from "./dom.js";

export class PictureSheet {
  /** `onChoose(sample)` hears which picture is pressed; without it none can be. */
  constructor(container, paint, onChoose = null) {
    Object.assign(this, { container, paint, onChoose });
  }

  /** Show a log's pictures anew. */
  begin(log) {
    this.states = log.samples.map((_, sample) => new CanvasState(log, sample));
    const { width, height } = this.paint;
    this.pictures = this.states.map((_, sample) => {
      const canvas = make("canvas", { width, height, className: "picture" });
      Object.assign(canvas, { role: "img", ariaLabel: `picture ${sample + 1} of ${this.states.length}` });
      return { canvas, image: new ImageData(width, height) };
    });
    this.container.replaceChildren(...this.pictures.map(({ canvas }, sample) => (this.onChoose ? this.#button(canvas, sample) : canvas)));
    this.states.forEach((state, sample) => this.#draw(sample, Array.from({ length: state.length }, (_, position) => position)));
  }

  /** Show the state after a step, or a picture's last one where it has fewer. Returns the changed positions of each picture. */
  seek(step, since) {
    return this.states.map((state, sample) => {
      const changed = state.seek(Math.min(step, state.reveals.length), since);
      this.#draw(sample, changed);
      return changed;
    });
  }

  /** The digits of a pixel, a list for each of its channels. */
  digitsOf(sample, pixel) {
    const state = this.states[sample];
    return Array.from({ length: this.paint.channels }, (_, channel) => {
      const position = pixel * this.paint.channels + channel;
      return state.given.has(position) ? this.paint.codeOf(state.given.get(position).id) : state.digitsOf(position);
    });
  }

  /** A picture as it is shown, or all in rows, as a PNG with whole pixels of `scale` × `scale`. */
  png(samples, scale = 8, columns = Math.ceil(Math.sqrt(samples.length))) {
    const [width, height] = [scale * this.paint.width, scale * this.paint.height];
    const whole = make("canvas", { width: width * Math.min(columns, samples.length), height: height * Math.ceil(samples.length / columns) });
    const context = whole.getContext("2d");
    context.imageSmoothingEnabled = false;
    samples.forEach((sample, i) => {
      context.drawImage(this.pictures[sample].canvas, (i % columns) * width, Math.floor(i / columns) * height, width, height);
    });
    return new Promise((resolve) => whole.toBlob(resolve, "image/png"));
  }

  #button(canvas, sample) {
    const button = make("button", { type: "button", className: "thumbnail", ariaPressed: String(sample === 0) }, canvas);
    button.addEventListener("click", () => {
      for (const each of this.container.children) each.ariaPressed = String(each === button);
      this.onChoose(sample);
    });
    return button;
  }

  #draw(sample, positions) {
    const { canvas, image } = this.pictures[sample];
    const pixels = new Set([...positions].map((position) => Math.floor(position / this.paint.channels)));
    for (const pixel of pixels) image.data.set(this.paint.colourOf(this.digitsOf(sample, pixel)), 4 * pixel);
    if (pixels.size) canvas.getContext("2d").putImageData(image, 0, 0);
  }
}
