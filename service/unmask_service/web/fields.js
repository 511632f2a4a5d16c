// From fields to the values of a request, and from an error back to the field that is at fault.

import { byId } from "./dom.js";
import { told } from "./format.js";
import { NUMBERS, SAMPLERS } from "./samplers.js";

/** What a field holds cannot become part of a request. */
export class FieldError extends Error {
  constructor(param, message) {
    super(message);
    this.param = param;
  }
}

/** A number field's value; null where it is empty. */
export function number(id) {
  const { value } = byId(id);
  return value === "" ? null : Number(value);
}

/** Show the fields of the numbers that a kind of sampler takes, and a clock beside any; `input` finds a field's control by its API name. */
export function showNumbers(kind, input) {
  const numbers = SAMPLERS[kind]?.numbers ?? {};
  const show = (name, shown) => (input(name).closest(".field").hidden = !shown);
  for (const name of NUMBERS) {
    show(name, name in numbers);
    input(name).placeholder = numbers[name] ?? "";
  }
  show("clock", Object.keys(numbers).length > 0);
}

/** A seed as it was typed. Throws FieldError. */
export function seedOf(text) {
  const seed = Number(text.trim() || NaN);
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new FieldError("seed", `seed must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`);
  }
  return seed;
}

/** A temperature schedule, {start, change, power}, from two or three numbers; null for an empty text. Throws FieldError. */
export function scheduleOf(param, text) {
  const numbers = text.replaceAll("−", "-").split(/[\s,]+/).filter(Boolean).map(Number);
  if (!numbers.length) return null;
  if (numbers.length < 2 || numbers.length > 3 || numbers.some(Number.isNaN)) {
    throw new FieldError(param, "two or three numbers are needed: start, change and power");
  }
  const [start, change, power = 1] = numbers;
  return { start, change, power };
}

/** Token ids from text; with holes, `_` stands for null. Throws FieldError. */
export function ids(param, text, holes = false) {
  return text.split(/[\s,]+/).filter(Boolean).map((word) => {
    if (holes && (word === "_" || word === "null")) return null;
    if (!/^\d+$/.test(word)) throw new FieldError(param, `“${word}” is not a token id`);
    return Number(word);
  });
}

/** The controls of a form by the names that the API has for what they hold: {"sampler.steps": "steps", …}, ids of elements. */
export class Controls {
  constructor(form, ids) {
    Object.assign(this, { form, ids });
  }

  /** Mark the control of the field that is at fault; none for null, or where no control holds it. */
  mark(error) {
    for (const control of this.form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
    const control = error && this.#controlOf(fieldOf(error));
    control?.setAttribute("aria-invalid", "true");
    control?.closest("details")?.setAttribute("open", "");
  }

  /** What to tell of an error: its message, with the labels of controls in place of the API's names. */
  told(error) {
    const label = this.#labelOf(fieldOf(error));
    const asField = (name, at) => {
      if (at === 0 && name === error.param) return label ?? name;
      // other plain words are no names
      const isName = /[._]/.test(name) || name === "prompt" || name === "suffix";
      return (isName && this.#labelOf(name)) || name;
    };
    const named = error.message.replace(/(?<![\w.])[a-z_]+(?:\.[a-z_]+)?(?!\w)/g, asField);
    const message = label && !named.includes(label) ? `${label}: ${named}` : named;
    return told(error, message.replace(/^(“[^”]*”): Input should/, "$1 should"));
  }

  #controlOf(param) {
    return byId(this.ids[param] ?? this.ids[param?.split(".")[0]]);
  }

  #labelOf(param) {
    const [label] = this.#controlOf(param)?.labels ?? [];
    return label ? `“${label.textContent.trim()}”` : null;
  }
}

/** The field that is at fault: where an error names the sampler as a whole, its message begins with the field: "sampler: steps is …". */
function fieldOf({ param, message }) {
  const [, own] = /^sampler: (\w+) is /.exec(message) ?? [];
  return own ? `sampler.${own}` : param;
}
