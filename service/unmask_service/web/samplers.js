// The samplers: what they are called, what they do, and how a request asks for them.

const RANDOM = "its turn in a random order";

/** Of each: its name, what it does, why it reveals what it reveals, and whether the network decides that. */
export const SAMPLERS = {
  exact: {
    name: "first-hitting, exact",
    says: "Reveals one digit with each network evaluation: exact, and the slowest.",
    why: RANDOM,
  },
  groups: {
    name: "first-hitting, k groups",
    says: "Reveals the same order in k groups, one evaluation each: faster, but the digits of a group do not see one another.",
    why: RANDOM,
  },
  ancestral: {
    name: "ancestral, T steps",
    says: "Goes through T time steps and reveals in each what falls due then; steps in which nothing does are skipped.",
    why: "at a random time",
  },
  remasking: {
    name: "remasking, T steps",
    says: "As ancestral, and each step masks some of what is revealed again, to be drawn anew with more known around it.",
    why: "at a random time",
  },
  confidence: {
    name: "confidence, k steps",
    says: "Reveals what the network is surest of, in k evaluations: likelier texts, and more alike, than the model's own.",
    why: "the network was surest of it",
    byConfidence: true,
  },
  margin: {
    name: "margin, k steps",
    says: "Reveals first where the likeliest digit is furthest ahead of the next, in k evaluations.",
    why: "its likeliest digit was furthest ahead",
    byConfidence: true,
  },
  entropy: {
    name: "entropy, k steps",
    says: "Reveals first where the network hesitates least, in k evaluations.",
    why: "the network hesitated least",
    byConfidence: true,
  },
  entropy_bounded: {
    name: "entropy, bounded",
    says: "Each evaluation reveals where the network hesitates least, as much as the bound allows, in nats.",
    why: "the network hesitated least",
  },
  threshold: {
    name: "threshold",
    says: "Each evaluation reveals all digits whose largest probability is at least the bound.",
    why: "the network was sure enough",
  },
};

// kinds that a request asks for by their own names
const NAMED = ["ancestral", "remasking", "confidence", "margin", "entropy", "entropy_bounded", "threshold"];
/** What the bound of a sampler is where its field is empty; samplers without one are not here. */
export const BOUNDS = { entropy_bounded: 0.5, threshold: 0.9 };
const BY_CONFIDENCE = ["confidence", "margin", "entropy", ...Object.keys(BOUNDS)];

/** The part of a request's body that names the sampler; nothing for the API's default. Null stands for an empty field. */
export function samplerBody(kind, steps, blockLength, clock = null, schedule = null, bound = null) {
  const sampler = {};
  if (NAMED.includes(kind)) sampler.name = kind;
  if (kind in BOUNDS) sampler.bound = bound ?? BOUNDS[kind];
  else if (kind !== "exact") sampler.steps = steps;
  if (blockLength !== null) sampler.block_length = blockLength;
  if (clock !== null && kind !== "exact") sampler.clock = clock;
  if (schedule !== null) sampler.temperature_schedule = schedule;
  return Object.keys(sampler).length ? { sampler } : {};
}

/** {kind, steps, blockLength, clock, schedule} of a body's sampler; kind is null where this page has no such sampler. */
export function samplerOf(sampler = {}) {
  const { name = "first_hitting", steps = null, block_length: blockLength = null, clock = null } = sampler;
  const kind = name === "first_hitting" ? (steps === null ? "exact" : "groups") : name;
  return { kind: kind in SAMPLERS ? kind : null, steps, blockLength, clock, schedule: sampler.temperature_schedule ?? null };
}

/** Whether the network decides what a sampler reveals next. */
export const isByConfidence = (kind) => Boolean(SAMPLERS[kind]?.byConfidence);

/** Why a request's sampler revealed a digit when it did; null where this page does not know the sampler. */
export function whyThen(sampler) {
  const { kind, blockLength } = samplerOf(sampler);
  return SAMPLERS[kind]?.why ? SAMPLERS[kind].why + (blockLength === null ? "" : ", in its block") : null;
}

/** An order of the canvas in words: "random order", "blocks of 8", "left to right". */
export function orderName(blockLength) {
  if (blockLength === null) return "random order";
  return blockLength === 1 ? "left to right" : `blocks of ${blockLength}`;
}
