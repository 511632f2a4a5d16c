// The controls of a generation: the body of its request.

import { byId, make } from "./dom.js";
import { Controls, ids, number, scheduleOf, seedOf, showNumbers } from "./fields.js";
import { settingsInWords } from "./model_card.js";
import { isByConfidence, kindOf, NUMBERS, samplerBody, SAMPLERS } from "./samplers.js";

const OFF = { temperature: 1, n: 1, top_k: 0, top_p: 1, candidates: 0 };
const EXAMPLES = 5;
const PICTURES = 16;
const SAMPLER_NUMBERS = [...NUMBERS, "block_length", "clock"];
const IDS = {
  ...Object.fromEntries(["prompt", "suffix", "max_tokens", "seed", "deadline_ms", ...Object.keys(OFF)].map((id) => [id, id])),
  canvas: "holes",
  sampler: "sampler",
  ...Object.fromEntries(SAMPLER_NUMBERS.map((id) => [`sampler.${id}`, id])),
  ...Object.fromEntries(["", ".start", ".change", ".power"].map((part) => [`sampler.temperature_schedule${part}`, "temperature_schedule"])),
};

export class RequestForm {
  /** The form, with the bounds of a model's card. */
  constructor(form, card) {
    this.form = form;
    this.card = card;
    this.controls = new Controls(form, IDS);
    this.#bound();
    this.#offerExamples(card.tokenizer ? (card.examples ?? []).slice(0, EXAMPLES) : []);
    if (card.image) this.#takePictures();
    if (card.generation) this.#recommend(card.generation);
    byId("pin").checked ||= byId("seed").value !== ""; // typed before the page was ready
    form.addEventListener("input", (event) => this.#onInput(event));
    this.#arrange();
  }

  /** The body of a request, without what is left at its default. Throws FieldError. */
  body() {
    return { ...this.card.naming, ...this.#given(), ...this.#numbers(), ...this.#seed(), ...this.#sampler(), ...this.#probabilities() };
  }

  /** Show the seed that was drawn, so that it can be pinned. */
  showSeed(seed) {
    if (!byId("pin").checked) byId("seed").value = seed;
  }

  /** Mark the control that a request failed for; none for null. */
  mark(error) {
    this.controls.mark(error);
  }

  /** What to tell of an error, in the form's own words. */
  told(error) {
    return this.controls.told(error);
  }

  #bound() {
    const { limits, length, vocabulary_size, tokenizer } = this.card;
    const most = {
      max_tokens: length,
      n: limits.max_samples,
      steps: limits.max_steps,
      block_length: length,
      temperature: limits.max_temperature,
      deadline_ms: limits.max_deadline_ms,
      candidates: limits.max_candidates,
      top_k: vocabulary_size,
    };
    for (const [id, max] of Object.entries(most)) byId(id).max = max;
    byId("clock").placeholder = this.card.clock ?? 1;
    byId("candidates").value = Math.min(byId("candidates").value, most.candidates);
    if (!tokenizer) this.#takeIdsOnly();
  }

  /** A picture has no beginning and no end; several are generated at a time. */
  #takePictures() {
    byId("prompt").value = "";
    byId("n").value = Math.min(PICTURES, byId("n").max);
    byId("seed").closest(".field").before(byId("n").closest(".field"));
  }

  #takeIdsOnly() {
    Object.assign(byId("as_ids"), { checked: true, disabled: true });
    Object.assign(byId("prompt"), { value: "", placeholder: "token ids: 5 12 9; may stay empty" });
    byId("suffix").placeholder = "token ids; may stay empty";
  }

  #offerExamples(examples) {
    const buttons = examples.map((text) => make("button", { type: "button" }, text));
    buttons.forEach((button, i) => button.addEventListener("click", () => this.#begin(examples[i])));
    byId("examples").append(...buttons);
    byId("examples").hidden = !examples.length;
    if (examples.length && byId("prompt").value === byId("prompt").defaultValue) byId("prompt").value = examples[0];
  }

  #begin(text) {
    byId("prompt").value = text;
    byId("as_ids").checked = false;
    byId("holes").value = "";
    this.#changed();
  }

  /** Fill in what the model's author recommends, and say so; exact defaults are a button away. */
  #recommend(settings) {
    byId("settings").hidden = false;
    this.recommended = settings;
    this.#fill(settings);
    byId("use-exact").addEventListener("click", () => this.#use({}));
    byId("use-recommended").addEventListener("click", () => this.#use(settings));
  }

  #use(settings) {
    this.#fill(settings);
    this.#changed();
  }

  #fill({ temperature, top_k: topK, top_p: topP, sampler }) {
    const given = sampler ?? {};
    const kind = kindOf(given);
    const schedule = given.temperature_schedule;
    byId("temperature").value = temperature ?? OFF.temperature;
    byId("top_k").value = topK ?? OFF.top_k;
    byId("top_p").value = topP ?? OFF.top_p;
    if (kind) byId("sampler").value = kind;
    for (const id of SAMPLER_NUMBERS) {
      // what its sampler takes may be left out; other samplers' numbers are as at first
      byId(id).value = given[id] ?? (id in (SAMPLERS[kind]?.numbers ?? {}) ? "" : byId(id).defaultValue);
    }
    byId("temperature_schedule").value = schedule ? [schedule.start, schedule.change, schedule.power ?? 1].join(" ") : "";
  }

  /** As after typing: what depends on the fields is arranged, and the plan is asked for. */
  #changed() {
    byId("prompt").dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** Whose settings stand in the fields. */
  #showOrigin() {
    let now;
    try {
      now = settingsInWords(this.#settings());
    } catch {
      return; // a field cannot be read: that is told when it is asked for
    }
    const recommended = settingsInWords(this.recommended);
    const exact = settingsInWords({});
    const origin = { [exact]: "The API's exact defaults", [recommended]: "Recommended by the model's author" }[now];
    byId("settings-origin").textContent = `${origin ?? "Your own settings"}: ${now}.`;
    byId("use-recommended").hidden = now === recommended;
    byId("use-exact").hidden = now === exact;
  }

  #settings() {
    const [temperature, topK, topP] = ["temperature", "top_k", "top_p"].map((id) => number(id) ?? OFF[id]);
    return { temperature, top_k: topK, top_p: topP, ...this.#sampler() };
  }

  #onInput(event) {
    if (event.target.id === "seed") byId("pin").checked = event.target.value !== "";
    this.#arrange();
  }

  /** Show what the chosen sampler is and needs; grey out what a canvas with holes replaces. */
  #arrange() {
    const kind = byId("sampler").value;
    byId("sampler-says").textContent = SAMPLERS[kind].says;
    showNumbers(kind, byId);
    if (this.recommended) this.#showOrigin();
    for (const id of ["prompt", "suffix", "max_tokens"]) byId(id).disabled = byId("holes").value.trim() !== "";
  }

  #given() {
    const holes = byId("holes").value.trim();
    if (holes) return { canvas: ids("canvas", holes, true) };
    const body = {};
    for (const name of ["prompt", "suffix"]) {
      const { value } = byId(name);
      if (value) body[name] = byId("as_ids").checked ? ids(name, value) : value;
    }
    if (number("max_tokens") !== null) body.max_tokens = number("max_tokens");
    return body;
  }

  #numbers() {
    const body = {};
    for (const name of ["temperature", "n", "top_k", "top_p", "candidates", "deadline_ms"]) {
      const value = number(name);
      if (value !== null && value !== OFF[name]) body[name] = value;
    }
    return body;
  }

  #sampler() {
    const given = Object.fromEntries(SAMPLER_NUMBERS.map((id) => [id, number(id)]));
    given.temperature_schedule = scheduleOf("sampler.temperature_schedule", byId("temperature_schedule").value);
    return samplerBody(byId("sampler").value, given);
  }

  /** In confidence order the canvas tells how sure the network was of each digit. */
  #probabilities() {
    return isByConfidence(byId("sampler").value) && !this.card.image ? { logprobs: 0 } : {};
  }

  #seed() {
    return byId("pin").checked ? { seed: seedOf(byId("seed").value) } : {};
  }
}
