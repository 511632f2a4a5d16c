// The same request by two or three samplers, one after the other, shown side by side after equally many evaluations.

import { CanvasState, endTokensOf } from "./canvas_state.js";
import { CanvasView } from "./canvas_view.js";
import { bringIntoView, byId, make, oncePerFrame } from "./dom.js";
import { meanEntropy } from "./entropy.js";
import { number, showNumbers } from "./fields.js";
import { count, duration, sentence } from "./format.js";
import { Job } from "./job.js";
import { GenerationLog } from "./log.js";
import { Paint } from "./paint.js";
import { PictureSheet } from "./picture_sheet.js";
import { Player } from "./player.js";
import { numbersInWords, orderName, samplerBody, SAMPLERS } from "./samplers.js";

const KINDS = Object.entries(SAMPLERS).map(([kind, { name }]) => [kind, name]);
const NONE = ["none", "none"];
const FIELDS = {
  steps: ["Steps", { min: 1 }],
  rate: ["Rate", { min: 0, max: 1, step: "any" }],
  bound: ["Bound", { min: 0, step: "any" }],
  block_length: ["Block length", { min: 1, placeholder: "one block" }],
  clock: ["Clock", { min: 1, max: 16 }],
};
// the orders that a text can be revealed in: random, blocks from left to right, what the network is surest of
const DEFAULTS = [["groups", { steps: 32 }], ["groups", { steps: 32, block_length: 8 }], ["confidence", { steps: 32 }]];
const DEFAULTS_OF_PICTURES = [["groups", { steps: 16, clock: 1 }], ["groups", { steps: 16, clock: 3 }], ["exact", { steps: 16 }]];

export class Comparison {
  #running = null;

  constructor(requestForm, card) {
    Object.assign(this, { requestForm, card });
    this.contestants = (card.image ? DEFAULTS_OF_PICTURES : DEFAULTS).map((settings, i) => new Contestant(card, i, ...settings));
    byId("contestants").replaceChildren(...this.contestants.map((each) => each.field));
    this.player = new Player((...steps) => this.#show(...steps), () => this.#showPlaying());
    this.#listen();
  }

  #listen() {
    byId("compare").addEventListener("click", () => this.run());
    byId("compare-cancel").addEventListener("click", () => this.#running?.cancel().catch((error) => this.#fail(error)));
    byId("compare-play").addEventListener("click", () => (this.player.playing ? this.player.pause() : this.player.play()));
    byId("compare-scrubber").addEventListener("input", (event) => this.player.seek(Number(event.target.value)));
    byId("compare-order").addEventListener("change", () => this.#showOrder());
    addEventListener("pagehide", () => this.#running?.leave());
  }

  /** Run all that take part. */
  async run() {
    if (this.#running) return;
    byId("compare-error").textContent = "";
    try {
      this.#begin();
      let { seed } = this.base;
      for (const contestant of this.taking) {
        const log = await this.#contest(contestant, { ...this.base, ...(seed !== undefined && { seed }), ...contestant.sampler(this.schedule) });
        if (!log.done) throw log.error;
        seed = log.start.seed;
        if (!this.card.image) contestant.view.join();
        byId("compare-table").tBodies[0].append(rowOf(contestant.name, log));
        this.#warn(log.done.warnings ?? []);
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#end();
  }

  #begin() {
    const { candidates, deadline_ms, logprobs, sampler, ...base } = this.requestForm.body();
    this.base = base;
    this.schedule = sampler?.temperature_schedule ?? null;
    this.taking = this.contestants.filter((each) => each.takesPart);
    for (const each of this.taking) each.clear();
    byId("compare-canvases").replaceChildren(...this.taking.map((each) => each.figure));
    byId("compare-table").tBodies[0].replaceChildren();
    this.#showOrder();
    this.#warn([]);
    byId("comparison").hidden = false;
    byId("compare-cancel").hidden = false;
    this.#enable(false);
    bringIntoView(byId("compare").parentElement, byId("compare-canvases"));
  }

  async #contest(contestant, body) {
    const log = new GenerationLog(body);
    this.#running = new Job("generate", body);
    const grow = oncePerFrame(() => contestant.showStep(contestant.stepsDone));
    for await (const event of this.#running.events()) {
      log.add(event);
      if (event.event === "start") contestant.begin(log);
      grow();
    }
    return log;
  }

  #end() {
    this.#running = null;
    byId("compare-cancel").hidden = true;
    const shown = this.taking?.filter((each) => each.log) ?? [];
    if (!shown.length) return;
    const most = Math.max(...shown.map((each) => each.stepsDone));
    byId("compare-scrubber").max = most;
    this.player.begin(most);
    this.player.grow(most, true, 5);
    this.player.seek(most);
    this.#enable(true);
  }

  #show(step, since) {
    for (const each of this.taking) each.showStep(step, since);
    byId("compare-scrubber").value = step;
    byId("compare-step").textContent = `after ${count(step)} evaluations`;
  }

  #showOrder() {
    for (const { canvas, view, log } of this.contestants) {
      canvas.toggleAttribute("data-order", byId("compare-order").checked && !this.card.image);
      if (log && !this.card.image) view.showNext();
    }
  }

  #showPlaying() {
    byId("compare-play").textContent = this.player.playing ? "Pause" : "Play";
  }

  #enable(possible) {
    for (const id of ["compare-scrubber", "compare-play"]) byId(id).disabled = !possible;
  }

  /** All contestants get the same texts: the warnings of one are those of all. */
  #warn(sentences) {
    byId("compare-warnings").replaceChildren(...sentences.map((each) => make("p", {}, sentence(each))));
  }

  #fail(error) {
    byId("compare-error").textContent = error.code === "cancelled" ? "Cancelled." : this.requestForm.told(error);
  }
}

/** A sampler that takes part: its controls, and its canvas. */
class Contestant {
  constructor(card, index, kind, given) {
    this.card = card;
    const kinds = index < 2 ? KINDS : [...KINDS, NONE];
    this.kind = make("select", { id: `contestant-${index}` }, ...kinds.map(([value, name]) => make("option", { value }, name)));
    this.kind.value = kind;
    this.says = make("p", { className: "hint", id: `contestant-${index}-says` });
    this.kind.setAttribute("aria-describedby", this.says.id);
    this.kind.addEventListener("change", () => this.#arrange());
    this.inputs = Object.fromEntries(Object.entries(FIELDS).map(([name, [, bounds]]) =>
      [name, make("input", { id: `contestant-${index}-${name}`, type: "number", value: given[name] ?? "", ...bounds })]));
    this.inputs.clock.placeholder = card.clock ?? 1;
    this.field = make("div", { className: "field" },
      make("label", { htmlFor: this.kind.id }, `Sampler ${index + 1}`), this.kind, this.says,
      make("div", { className: "joined" }, ...Object.entries(FIELDS).map(([name, [label]]) => field(label, this.inputs[name]))));
    const canvas = make("div", { className: "canvas" });
    canvas.dataset.view = card.image ? "pictures" : "text";
    this.caption = make("h3");
    this.figure = make("div", { className: "contestant" }, this.caption, canvas);
    this.canvas = canvas;
    this.view = card.image ? new PictureSheet(canvas, new Paint(card, card.vocabulary_size)) : new CanvasView(canvas);
    this.#arrange();
  }

  get takesPart() {
    return this.kind.value !== "none";
  }

  /** Its part of a request's body, with the temperature schedule that all share. */
  sampler(schedule) {
    const given = Object.fromEntries(Object.entries(this.inputs).map(([name, { id }]) => [name, number(id)]));
    return samplerBody(this.kind.value, { ...given, temperature_schedule: schedule });
  }

  get name() {
    const { sampler = {} } = this.sampler(null);
    const parts = [{ exact: SAMPLERS.exact.name, groups: "first-hitting" }[this.kind.value] ?? this.kind.value, ...numbersInWords(sampler)];
    if ("block_length" in sampler) parts.push(orderName(sampler.block_length));
    if ("clock" in sampler) parts.push(`clock ${sampler.clock}`);
    return parts.join(", ");
  }

  clear() {
    this.log = null;
    this.caption.textContent = this.name;
    this.canvas.replaceChildren();
  }

  begin(log) {
    this.log = log;
    if (this.card.image) this.view.begin(log);
    else this.view.begin(new CanvasState(log, 0, endTokensOf(this.card)), `Canvas of ${this.name}`);
  }

  /** The steps of the sample that is shown, or of all pictures. */
  get stepsDone() {
    return this.card.image ? Math.max(...this.log.samples.map((reveals) => reveals.length)) : this.log.samples[0].length;
  }

  /** Show the canvas after so many steps, or its last state where it has fewer. */
  showStep(step, since) {
    if (this.log) this.view.seek(Math.min(step, this.stepsDone), since);
  }

  #arrange() {
    this.says.textContent = SAMPLERS[this.kind.value]?.says ?? "";
    showNumbers(this.kind.value, (name) => this.inputs[name]);
    this.inputs.block_length.closest(".field").hidden = !this.takesPart;
  }
}

const field = (name, input) => make("div", { className: "field" }, make("label", { htmlFor: input.id }, name), input);

function rowOf(name, { done }) {
  const { network_evaluations, rounds, idle_steps } = done.sampling;
  const { total_ms, queue_ms } = done.timings;
  const cells = [
    count(network_evaluations),
    count(rounds),
    count(idle_steps),
    count(network_evaluations + idle_steps),
    duration(total_ms - queue_ms),
    meanEntropy(done).toFixed(2),
  ];
  const row = make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell)));
  // a narrow page shows a row as a list, each number with the name of its column
  const columns = [...byId("compare-table").tHead.rows[0].cells];
  for (const [i, cell] of [...row.cells].entries()) cell.dataset.column = columns[i].textContent;
  return row;
}
