// The same request by two or three samplers, one after the other, shown side by side after equally many evaluations.

import { CanvasState, endTokensOf } from "./canvas_state.js";
import { CanvasView } from "./canvas_view.js";
import { bringIntoView, byId, make, oncePerFrame } from "./dom.js";
import { meanEntropy } from "./entropy.js";
import { number } from "./fields.js";
import { count, duration, sentence } from "./format.js";
import { Job } from "./job.js";
import { GenerationLog } from "./log.js";
import { Paint } from "./paint.js";
import { PictureSheet } from "./picture_sheet.js";
import { Player } from "./player.js";
import { orderName, samplerBody, SAMPLERS } from "./samplers.js";

const KINDS = Object.entries(SAMPLERS).map(([kind, { name }]) => [kind, name]);
const NONE = ["none", "none"];
// the orders that a text can be revealed in: random, blocks from left to right, what the network is surest of
const DEFAULTS = [["groups", 32], ["groups", 32, null, 8], ["confidence", 32]];
const DEFAULTS_OF_PICTURES = [["groups", 16, 1], ["groups", 16, 3], ["exact", 16]];

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
  constructor(card, index, kind, steps, clock = null, blockLength = null) {
    this.card = card;
    const kinds = index < 2 ? KINDS : [...KINDS, NONE];
    this.kind = make("select", { id: `contestant-${index}` }, ...kinds.map(([value, name]) => make("option", { value }, name)));
    this.kind.value = kind;
    this.says = make("p", { className: "hint", id: `contestant-${index}-says` });
    this.kind.setAttribute("aria-describedby", this.says.id);
    this.steps = make("input", { id: `contestant-${index}-steps`, type: "number", min: 1, value: steps });
    this.blockLength = make("input", { id: `contestant-${index}-block_length`, type: "number", min: 1, value: blockLength ?? "", placeholder: "one block" });
    this.kind.addEventListener("change", () => this.#arrange());
    this.stepsField = field("Steps", this.steps);
    this.blockField = field("Block length", this.blockLength);
    this.clock = make("input", { id: `contestant-${index}-clock`, type: "number", min: 1, max: 16, value: clock ?? "", placeholder: card.clock ?? 1 });
    this.clockField = field("Clock", this.clock);
    this.field = make("div", { className: "field" },
      make("label", { htmlFor: this.kind.id }, `Sampler ${index + 1}`), this.kind, this.says,
      make("div", { className: "joined" }, this.stepsField, this.blockField, this.clockField));
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
    return samplerBody(this.kind.value, number(this.steps.id), number(this.blockLength.id), number(this.clock.id), schedule);
  }

  get name() {
    const { value } = this.steps;
    const kinds = { exact: null, groups: `first-hitting, ${value} groups`, ancestral: `ancestral, T = ${value}` };
    const kind = this.kind.value in kinds ? kinds[this.kind.value] : `${this.kind.value}, ${value} steps`;
    const blockLength = number(this.blockLength.id);
    const clock = kind && this.clock.value ? `, clock ${this.clock.value}` : "";
    return (kind ?? SAMPLERS.exact.name) + (blockLength === null ? "" : `, ${orderName(blockLength)}`) + clock;
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
    this.stepsField.hidden = ["exact", "none"].includes(this.kind.value);
    this.clockField.hidden = this.stepsField.hidden;
    this.blockField.hidden = !this.takesPart;
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
