// Masking pixels of a picture and filling them again; and pictures that come from elsewhere.

import { byId } from "./dom.js";
import { several } from "./format.js";

export class PictureEditor {
  #masked = new Set();
  #from = null; // where a rectangle began, and what was masked then

  /** `onFill(body)` hears what is to be generated: the canvas as it is shown, with holes; `onPicture(log)` shows a picture. */
  constructor(view, card, { onFill, onPicture, onError }) {
    Object.assign(this, { view, card, paint: view.paint, onFill, onPicture, onError });
    byId("tools").hidden = false;
    byId("brush-size").max = Math.max(this.paint.width, this.paint.height);
    this.#listen();
    this.#showMask();
  }

  /** Another picture, or another step of it, is shown. */
  changed() {
    const { sheet, sample } = this.view;
    if (sheet !== this.sheet || sheet.states !== this.states || sample !== this.sample) this.#masked.clear();
    Object.assign(this, { sheet, states: sheet.states, sample });
    this.#showMask();
  }

  /** The fields of a request for the picture as it is shown, with the masked pixels as holes. */
  body() {
    const digits = this.#digits();
    const kept = byId("keep-first").checked ? 1 : 0;
    const holes = digits.map((token, position) =>
      this.#masked.has(Math.floor(position / this.paint.channels)) ? token.map((digit, j) => (j < kept ? digit : null)) : token);
    return canvasOf(holes, this.paint.base);
  }

  #listen() {
    const { large } = this.view;
    large.addEventListener("pointerdown", (event) => this.#press(event));
    large.addEventListener("pointermove", (event) => event.buttons === 1 && this.#drag(event));
    addEventListener("pointerup", () => (this.#from = null));
    large.addEventListener("keydown", (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      this.#touch([this.view.active], !this.#masked.has(this.view.active));
    });
    byId("mask-all").addEventListener("click", () => this.#touch(this.#all(), true));
    byId("mask-none").addEventListener("click", () => this.#touch(this.#all(), false));
    byId("mirror").addEventListener("click", () => this.#mirror());
    byId("keep-first").addEventListener("change", () => this.#showMask());
    byId("fill").addEventListener("click", () => this.onFill(this.body()));
    byId("open-png").addEventListener("click", () => byId("png-file").click());
    byId("png-file").addEventListener("change", (event) => {
      this.#open(event.target.files[0]);
      event.target.value = "";
    });
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      this.#open(event.dataTransfer.files[0]);
    });
  }

  #press(event) {
    const pixel = this.view.pixelOf(event.target);
    if (pixel === undefined || event.button !== 0) return;
    event.target.releasePointerCapture(event.pointerId); // a finger would otherwise stay with its first pixel
    this.#from = { pixel, masked: new Set(this.#masked) };
    this.#drag(event);
  }

  #drag(event) {
    const pixel = this.view.pixelOf(event.target);
    if (pixel === undefined || this.#from === null) return;
    const [tool] = [...document.getElementsByName("tool")].filter((choice) => choice.checked);
    if (tool.value === "rectangle") this.#masked = new Set(this.#from.masked);
    const pixels = tool.value === "rectangle" ? this.#between(this.#from.pixel, pixel) : this.#around(pixel);
    this.#touch(pixels, tool.value !== "eraser");
  }

  #touch(pixels, mask) {
    for (const pixel of pixels) mask ? this.#masked.add(pixel) : this.#masked.delete(pixel);
    this.#showMask();
  }

  #all() {
    return Array.from({ length: this.paint.pixels }, (_, pixel) => pixel);
  }

  #between(one, other) {
    const { width } = this.paint;
    const [rows, columns] = [(pixel) => Math.floor(pixel / width), (pixel) => pixel % width].map((of) => [of(one), of(other)].sort((a, b) => a - b));
    return this.#all().filter((pixel) => {
      const [row, column] = [Math.floor(pixel / width), pixel % width];
      return row >= rows[0] && row <= rows[1] && column >= columns[0] && column <= columns[1];
    });
  }

  /** The pixels below a brush: a square with this one in its middle. */
  #around(pixel) {
    const { width } = this.paint;
    const size = Math.max(1, Number(byId("brush-size").value) || 1);
    const [row, column] = [Math.floor(pixel / width) - (size >> 1), (pixel % width) - (size >> 1)];
    return this.#all().filter((each) => {
      const [down, right] = [Math.floor(each / width) - row, (each % width) - column];
      return down >= 0 && down < size && right >= 0 && right < size;
    });
  }

  #digits() {
    return this.#all().flatMap((pixel) => this.view.digitsOf(pixel));
  }

  /** The right half becomes the mirror image of the left one. */
  #mirror() {
    const { width, channels } = this.paint;
    const digits = this.#digits();
    const from = (pixel) => {
      const column = pixel % width;
      return pixel - column + Math.min(column, width - 1 - column);
    };
    this.onPicture(this.#pictureLog(this.#all().flatMap((pixel) => digits.slice(from(pixel) * channels, (from(pixel) + 1) * channels))));
  }

  /** A PNG becomes a picture of the model's size and colours. */
  async #open(file) {
    if (!file) return;
    const { width, height } = this.paint;
    try {
      const bitmap = await createImageBitmap(file);
      const context = new OffscreenCanvas(width, height).getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(bitmap, 0, 0, width, height);
      const { data } = context.getImageData(0, 0, width, height);
      const ids = this.#all().flatMap((pixel) => this.paint.tokensOf([...data.subarray(4 * pixel, 4 * pixel + 4)]));
      this.onPicture(this.#pictureLog(ids.map((id) => this.paint.codeOf(id))));
    } catch {
      this.onError(`“${file.name}” cannot be read as a picture.`);
    }
  }

  /** A log that begins with a picture and has no steps. */
  #pictureLog(digits) {
    const { id: model, image, base, sub_tokens_per_token, length } = this.card;
    const request = canvasOf(digits, base);
    const given = digits.flatMap((token, position) => (token.includes(null) ? [] : [[position, idOf(token, base), null]]));
    const parts = digits.flatMap((token, position) => token.flatMap((digit, j) => (token.includes(null) && digit !== null ? [[position, j, digit]] : [])));
    const start = { model, image, base, sub_tokens_per_token, length, masked: 0, canvas: [given], sub_tokens: parts };
    return { request, start, events: [], samples: [[]], done: null, error: null, ended: true, evaluations: 0, elapsedMs: 0, stepsOf: () => 0 };
  }

  #showMask() {
    byId("masked").textContent = this.#masked.size ? `${several(this.#masked.size, "pixel")} masked.` : "";
    const open = this.states ? this.#digits().some((token, position) => this.#isOpen(token, position)) : false;
    byId("fill").disabled = !open;
    for (const id of ["mask-all", "mask-none", "mirror"]) byId(id).disabled = !this.states;
    if (this.states) this.view.showMask(this.#masked);
  }

  /** Whether a token of the next request has a hole. */
  #isOpen(token, position) {
    return this.#masked.has(Math.floor(position / this.paint.channels)) || token.includes(null);
  }
}

/** A canvas of digits as a request has it: token ids with holes where no token is known in part. */
function canvasOf(digits, base) {
  const parts = digits.some((token) => token.includes(null) && token.some((digit) => digit !== null));
  if (parts) return { sub_tokens: digits };
  return { canvas: digits.map((token) => (token.includes(null) ? null : idOf(token, base))) };
}

const idOf = (digits, base) => digits.reduce((id, digit) => id * base + digit, 0);
