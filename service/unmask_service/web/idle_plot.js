// The plot of idle steps against T, as in paper 2's Figure 1: curves by the formula, points from the server's own plans.

import { byId, draw, make } from "./dom.js";
import { Controls, number } from "./fields.js";
import { count, several } from "./format.js";
import { expectedIdleSteps, measureIdleSteps, stepsToMeasure } from "./idle_steps.js";
import { orderName } from "./samplers.js";

const WIDTH = 640;
const HEIGHT = 340;
const MARGIN = { left: 52, right: 120, top: 16, bottom: 44 };

export class IdlePlot {
  #asked = 0;

  constructor(card) {
    this.card = card;
    byId("idle-tokens").max = card.length;
    byId("idle-tokens").value = Math.min(64, card.length);
    byId("idle-block_length").max = card.length;
    this.controls = new Controls(byId("idle-controls"), { max_tokens: "idle-tokens", "sampler.block_length": "idle-block_length" });
    byId("idle-controls").addEventListener("input", () => this.#reset());
    byId("measure").addEventListener("click", () => this.measure());
    this.#reset();
  }

  /** Ask the server for a plan of each T, one after the other. */
  async measure() {
    this.#reset();
    const asked = this.#asked;
    try {
      for (const T of stepsToMeasure(this.subTokens, this.card.limits.max_steps)) {
        const point = await measureIdleSteps(this.card, this.tokens, T, this.blockLength);
        if (asked !== this.#asked) return;
        this.points.push(point);
        this.#draw();
      }
    } catch (error) {
      byId("idle-error").textContent = this.controls.told(error);
      this.controls.mark(error);
    }
  }

  #reset() {
    this.#asked++;
    this.points = [];
    this.tokens = Math.max(1, Math.floor(Number(byId("idle-tokens").value)) || 1);
    this.subTokens = this.tokens * this.card.sub_tokens_per_token;
    this.blockLength = number("idle-block_length");
    byId("idle-error").textContent = "";
    this.controls.mark(null);
    this.#draw();
  }

  #draw() {
    const { tokens, subTokens, points } = this;
    const digits = this.card.sub_tokens_per_token;
    const curves = [{ n: subTokens, name: `l = ${digits}`, className: "own" }];
    if (digits > 1) curves.unshift({ n: tokens, name: "l = 1", className: "single" });
    byId("idle-plot").replaceChildren(plot(curves, points, 2 * subTokens));
    byId("idle-caption").textContent =
      `${several(tokens, "token")}. Lines: expected, T (1 − 1/T)ⁿ for n = ${count(subTokens)} sub-tokens of this model ` +
      (digits > 1 ? `and for n = ${count(tokens)} at one digit a token, which no model here has. ` : ". ") +
      (points.length ? "Points: measured, the mean over 16 schedules of this server, from the least to the most." : "") +
      (this.blockLength === null ? "" : ` The lines are for one block, the points for ${inBlocks(this.blockLength)}.`);
    byId("idle-table").tBodies[0].replaceChildren(...this.#rows());
  }

  #rows() {
    const measured = new Map(this.points.map((point) => [point.T, point.mean.toFixed(1)]));
    return stepsToMeasure(this.subTokens, this.card.limits.max_steps).map((T) => {
      const expected = [this.subTokens, this.tokens].map((n) => expectedIdleSteps(T, n).toFixed(1));
      const cells = [measured.get(T) ?? "–", ...expected].map((text) => make("td", {}, text));
      return make("tr", {}, make("th", { scope: "row" }, count(T)), ...cells);
    });
  }
}

const inBlocks = (length) => (length === 1 ? "one token after the other" : orderName(length));

function plot(curves, points, largest) {
  const highest = Math.max(...curves.map(({ n }) => expectedIdleSteps(largest, n)), ...points.map((point) => point.most), 1);
  const x = (T) => MARGIN.left + (T / largest) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (idle) => HEIGHT - MARGIN.bottom - (idle / highest) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const label = `Idle steps against T, from 0 to ${largest}: at T = ${largest}, ` +
    curves.map(({ n, name }) => `${expectedIdleSteps(largest, n).toFixed(0)} for ${name}`).join(" and ");
  return draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    axes(x, y, largest, highest),
    ...curves.flatMap((curve) => line(curve, x, y, largest)),
    ...points.map((point) => mark(point, x, y)));
}

function axes(x, y, largest, highest) {
  const lines = draw("g", { class: "axes" });
  for (const tick of ticks(largest)) {
    lines.append(draw("text", { x: x(tick), y: y(0) + 18, "text-anchor": "middle" }, count(tick)));
  }
  for (const tick of ticks(highest)) {
    lines.append(draw("line", { x1: x(0), x2: x(largest), y1: y(tick), y2: y(tick) }));
    lines.append(draw("text", { x: x(0) - 8, y: y(tick) + 4, "text-anchor": "end" }, count(tick)));
  }
  lines.append(draw("text", { x: x(largest / 2), y: HEIGHT - 6, "text-anchor": "middle" }, "T, time steps"));
  lines.append(draw("text", { x: x(0), y: 10 }, "idle steps"));
  return lines;
}

function line({ n, name, className }, x, y, largest) {
  const places = Array.from({ length: 121 }, (_, i) => Math.max(1, (largest * i) / 120));
  const path = places.map((T) => `${x(T).toFixed(1)},${y(expectedIdleSteps(T, n)).toFixed(1)}`).join("L");
  const end = { x: x(largest) + 8, y: y(expectedIdleSteps(largest, n)) + 4 };
  return [draw("path", { d: `M${path}`, class: `curve ${className}` }), draw("text", { ...end, class: `name ${className}` }, `${name}, expected`)];
}

function mark({ T, mean, least, most }, x, y) {
  const told = `T = ${T}: ${mean.toFixed(1)} idle steps measured (${least} to ${most})`;
  return draw("g", { class: "measured" },
    draw("line", { x1: x(T), x2: x(T), y1: y(least), y2: y(most) }),
    draw("circle", { cx: x(T), cy: y(mean), r: 4 }),
    draw("title", {}, told));
}

/** Three to six round numbers from 0 to the largest. */
function ticks(largest) {
  const rough = largest / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].find((each) => each * power >= rough) * power);
  return Array.from({ length: Math.floor(largest / step) + 1 }, (_, i) => i * step);
}
