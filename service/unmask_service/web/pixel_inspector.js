// What is known of one pixel: its colour, its digits, and the colours that they leave.

import { facts, make } from "./dom.js";
import { count, several } from "./format.js";
import { percent } from "./inspector.js";
import { cssColour } from "./paint.js";

export class PixelInspector {
  constructor(panel, paint) {
    Object.assign(this, { panel, paint });
    this.clear();
  }

  clear() {
    this.panel.toggleAttribute("data-empty", true);
    this.panel.replaceChildren(make("p", { className: "hint" }, "Point at a pixel, or walk there with the arrow keys. Press to mask it."));
  }

  /** Show a pixel of the picture that a view shows large; return the same in a few words, for those who hear the page. */
  show(view, pixel) {
    const { state, paint } = { state: view.state, paint: this.paint };
    const channels = view.digitsOf(pixel);
    const colour = paint.colourOf(channels);
    const where = `row ${Math.floor(pixel / paint.width) + 1}, column ${(pixel % paint.width) + 1}`;
    const positions = channels.map((_, channel) => pixel * paint.channels + channel);
    this.panel.toggleAttribute("data-empty", false);
    this.panel.replaceChildren(
      make("h3", {}, where, swatch(colour)),
      make("dl", { className: "facts" }, ...facts([
        ["colour", hex(colour)],
        ...channels.flatMap((digits, channel) => this.#factsOf(digits, paint.channels > 1 ? `${paint.channelNames[channel]}: ` : "")),
        ["step", positions.every((position) => state.given.has(position)) ? "given" : Math.max(...positions.map((position) => state.lastTouched(position))) || "none yet"],
      ])),
      ...this.#likeliest(state, positions),
    );
    const digits = channels.map((each) => each.map((digit) => digit ?? "unknown").join(" ")).join("; ");
    return `pixel ${where}: digits ${digits}, ${several(this.#left(channels), "colour")} possible`;
  }

  #left(channels) {
    return channels.reduce((product, digits) => product * this.paint.classesLeft(digits), 1);
  }

  #factsOf(digits, prefix) {
    const whole = digits.every((digit) => digit !== null);
    return [
      [`${prefix}digits`, make("span", { className: "digits-line" }, digits.map((digit) => digit ?? "·").join(" "))],
      [`${prefix}classes left`, whole ? null : `${count(this.paint.classesLeft(digits))} of ${count(this.paint.classes)}`],
    ];
  }

  #likeliest(state, positions) {
    const lists = positions.map((position) => (state.tokenOf(position) ? null : state.candidatesOf(position)));
    return lists.flatMap((candidates, channel) => {
      if (!candidates?.likeliest.length) return [];
      const title = this.paint.channels > 1 ? `Likeliest, ${this.paint.channelNames[channel]}` : "Likeliest of these";
      const rows = candidates.likeliest.map(({ id, probability }) => {
        const bar = make("meter", { max: 1, value: probability });
        bar.setAttribute("aria-label", `probability of class ${id}`);
        return make("li", {}, this.paint.palette ? swatch(this.paint.palette[id]) : make("span", {}, String(id)), bar, percent(probability));
      });
      return [make("h4", {}, title), make("ol", { className: "likeliest" }, ...rows)];
    });
  }
}

function swatch(colour) {
  const box = make("span", { className: "swatch", title: hex(colour) });
  box.style.setProperty("--colour", cssColour(colour));
  return box;
}

const hex = (colour) => `#${colour.slice(0, colour[3] === 255 ? 3 : 4).map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
