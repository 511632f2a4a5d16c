// The samplers: what they are called, what they do, and how a request asks for them.

import { several } from "./format.js";

const RANDOM = "its turn in a random order";

/** The numbers that some samplers take and others do not, as requests name them. */
export const NUMBERS = ["steps", "rate", "bound"];

/**
 * Of each: its name, what it does, why it reveals what it reveals, whether the network decides that, and its numbers, each with what it
 * is where its field is empty: null says that this is up to the server.
 */
export const SAMPLERS = {
  exact: {
    name: "first-hitting, exact",
    says: "Reveals one digit with each network evaluation: exact, and the slowest.",
    why: RANDOM,
    numbers: {},
  },
  groups: {
    name: "first-hitting, k groups",
    says: "Reveals the same order in k groups, one evaluation each: faster, but the digits of a group do not see one another.",
    why: RANDOM,
    numbers: { steps: null },
  },
  ancestral: {
    name: "ancestral, T steps",
    says: "Goes through T time steps and reveals in each what falls due then; steps in which nothing does are skipped.",
    why: "at a random time",
    numbers: { steps: null },
  },
  remasking: {
    name: "remasking, T steps",
    says: "As ancestral, and each step masks some of what is revealed again, to be drawn anew with more known around it.",
    why: "at a random time",
    numbers: { steps: null, rate: 0.02 },
  },
  confidence: {
    name: "confidence, k steps",
    says: "Reveals what the network is surest of, in k evaluations: likelier texts, and more alike, than the model's own.",
    why: "the network was surest of it",
    byConfidence: true,
    numbers: { steps: null },
  },
  margin: {
    name: "margin, k steps",
    says: "Reveals first where the likeliest digit is furthest ahead of the next, in k evaluations.",
    why: "its likeliest digit was furthest ahead",
    byConfidence: true,
    numbers: { steps: null },
  },
  entropy: {
    name: "entropy, k steps",
    says: "Reveals first where the network hesitates least, in k evaluations.",
    why: "the network hesitated least",
    byConfidence: true,
    numbers: { steps: null },
  },
  entropy_bounded: {
    name: "entropy, bounded",
    says: "Each evaluation reveals where the network hesitates least, as much as the bound allows, in nats.",
    why: "the network hesitated least",
    byConfidence: true,
    numbers: { bound: 0.5 },
  },
  threshold: {
    name: "threshold",
    says: "Each evaluation reveals all digits whose largest probability is at least the bound.",
    why: "the network was sure enough",
    byConfidence: true,
    numbers: { bound: 0.9 },
  },
};

/**
 * The part of a request's body that names the sampler; nothing for the API's default.
 *
 * `given` has the fields of `sampler` by the API's names, null where one is empty; those that the sampler does not take are left out.
 */
export function samplerBody(kind, given) {
  const { numbers } = SAMPLERS[kind];
  const sampler = ["exact", "groups"].includes(kind) ? {} : { name: kind };
  for (const name of [...Object.keys(numbers), "block_length", ...(kind === "exact" ? [] : ["clock"]), "temperature_schedule"]) {
    // the API has no default for a bound: an empty field sends its placeholder
    const value = given[name] ?? (name === "bound" ? numbers.bound : null);
    if (value !== null) sampler[name] = value;
  }
  return Object.keys(sampler).length ? { sampler } : {};
}

/** The kind of a body's sampler, as in SAMPLERS; null where this page has no such sampler. */
export function kindOf({ name = "first_hitting", steps = null } = {}) {
  const kind = name === "first_hitting" ? (steps === null ? "exact" : "groups") : name;
  return kind in SAMPLERS ? kind : null;
}

/** The numbers of a body's sampler in words, without those that it leaves out: ["96 steps", "rate 0.2"]. */
export function numbersInWords(sampler) {
  const kind = kindOf(sampler);
  const inWords = (name, value) => (name === "steps" ? several(value, kind === "groups" ? "group" : "step") : `${name} ${value}`);
  const given = Object.keys(SAMPLERS[kind]?.numbers ?? {}).filter((name) => (sampler[name] ?? null) !== null);
  return given.map((name) => inWords(name, sampler[name]));
}

/** Whether the network decides what a sampler reveals next. */
export const isByConfidence = (kind) => Boolean(SAMPLERS[kind]?.byConfidence);

/** Why a request's sampler revealed a digit when it did; null where this page does not know the sampler. */
export function whyThen(sampler = {}) {
  const { why } = SAMPLERS[kindOf(sampler)] ?? {};
  return why ? why + ((sampler.block_length ?? null) === null ? "" : ", in its block") : null;
}

/** An order of the canvas in words: "random order", "blocks of 8", "left to right". */
export function orderName(blockLength) {
  if (blockLength === null) return "random order";
  return blockLength === 1 ? "left to right" : `blocks of ${blockLength}`;
}
