// The controls of a score: the body of its request, and the text that was generated last, to be taken over.

import { byId } from "./dom.js";
import { Controls, ids, number, seedOf } from "./fields.js";
import { several } from "./format.js";

const TEXTS = ["prompt", "input", "suffix"];
const FIELDS = [...TEXTS, "estimator", "budget", "standard_error_per_token", "seed", "published_integrand"];

export class ScoreForm {
  #offered = null;
  #taken = null;

  /** The form, with the bounds of a model's card. `sampleShown()` tells which sample of a log is looked at. */
  constructor(form, card, sampleShown) {
    Object.assign(this, { form, card, sampleShown });
    this.controls = new Controls(form, Object.fromEntries(FIELDS.map((name) => [name, `score-${name}`])));
    byId("score-budget").max = card.limits.max_budget;
    if (!card.tokenizer) this.#takeIdsOnly();
    byId("take-over").addEventListener("click", () => this.#takeOver(this.#offered, this.sampleShown()));
    form.addEventListener("input", () => this.#showTaken());
  }

  /** The log whose text can be taken over; null for none. */
  offer(log) {
    this.#offered = log;
    byId("take-over").disabled = log === null;
  }

  /** The body of a request, without what is left at its default. Throws FieldError. */
  body() {
    return { ...this.card.naming, ...(this.#asTaken() ?? this.#typed()), ...this.#estimator(), per_token: true };
  }

  /** Mark the control that a request failed for; none for null. */
  mark(error) {
    this.controls.mark(error);
  }

  /** What to tell of an error, in the form's own words. */
  told(error) {
    return this.controls.told(error);
  }

  /** The text of a request's input, decoded at once; null where only its ids are known. */
  textOf({ input }) {
    if (typeof input === "string") return input;
    return input === this.#taken?.body.input ? this.#taken.text : null;
  }

  #takeIdsOnly() {
    Object.assign(byId("score-as_ids"), { checked: true, disabled: true });
    byId("score-input").placeholder = "token ids: 5 12 9";
  }

  /** The texts as they were taken over, in the tokens that were generated; null where they have been changed since. */
  #asTaken() {
    return this.#taken?.shown === this.#shown() ? this.#taken.body : null;
  }

  #typed() {
    const entries = TEXTS.map((name) => [name, byId(`score-${name}`).value]).filter(([name, text]) => text || name === "input");
    return Object.fromEntries(entries.map(([name, text]) => [name, byId("score-as_ids").checked ? ids(name, text) : text]));
  }

  #estimator() {
    const body = {};
    if (byId("score-estimator").value !== "orders") body.estimator = byId("score-estimator").value;
    for (const name of ["budget", "standard_error_per_token"]) {
      if (number(`score-${name}`) !== null) body[name] = number(`score-${name}`);
    }
    const seed = byId("score-seed").value;
    if (seed.trim()) body.seed = seedOf(seed);
    if (byId("score-published_integrand").checked) body.published_integrand = true;
    return body;
  }

  #takeOver(log, sample) {
    const { prompt = "", suffix = "", canvas = [] } = log.request;
    const { text, token_ids: input } = log.done.choices[sample];
    const asIds = text === null || Array.isArray(prompt) || Array.isArray(suffix);
    const given = canvas.flatMap((id, position) => (id === null || position >= input.length ? [] : [position]));
    const show = (value) => (Array.isArray(value) ? value.join(" ") : value);
    byId("score-as_ids").checked = asIds;
    byId("score-prompt").value = show(prompt);
    byId("score-input").value = asIds ? show(input) : text;
    byId("score-suffix").value = show(suffix);
    this.#taken = { text, shown: this.#shown(), body: { prompt, input, suffix, ...(given.length && { given }) } };
    this.#showTaken();
  }

  #shown() {
    return JSON.stringify([byId("score-as_ids").checked, ...TEXTS.map((name) => byId(`score-${name}`).value)]);
  }

  #showTaken() {
    const taken = this.#asTaken();
    byId("score-taken").textContent = taken ? `${several(taken.input.length, "token")}, as they were generated.` : "";
  }
}
