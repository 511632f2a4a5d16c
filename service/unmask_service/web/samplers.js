// The samplers: what they are called, what they do, and how a request asks for them.

export const SAMPLERS = {
  exact: {
    name: "first-hitting, exact",
    says: "Reveals one digit with each network evaluation: exact, and the slowest.",
  },
  groups: {
    name: "first-hitting, k groups",
    says: "Reveals the same order in k groups, one evaluation each: faster, but the digits of a group do not see one another.",
  },
  ancestral: {
    name: "ancestral, T steps",
    says: "Goes through T time steps and reveals in each what falls due then; steps in which nothing does are skipped.",
  },
  remasking: {
    name: "remasking, T steps",
    says: "As ancestral, and each step masks some of what is revealed again, to be drawn anew with more known around it.",
  },
  confidence: {
    name: "confidence, k steps",
    says: "Reveals what the network is surest of, in k evaluations: likelier texts, and more alike, than the model's own.",
  },
  margin: {
    name: "margin, k steps",
    says: "Reveals first where the likeliest digit is furthest ahead of the next, in k evaluations.",
  },
  entropy: {
    name: "entropy, k steps",
    says: "Reveals first where the network hesitates least, in k evaluations.",
  },
};

// kinds that a request asks for by their own names
const NAMED = ["ancestral", "remasking", "confidence", "margin", "entropy"];

/** The part of a request's body that names the sampler; nothing for the API's default. Null stands for an empty field. */
export function samplerBody(kind, steps, blockLength, clock = null) {
  const sampler = {};
  if (NAMED.includes(kind)) sampler.name = kind;
  if (kind !== "exact") sampler.steps = steps;
  if (blockLength !== null) sampler.block_length = blockLength;
  if (clock !== null && kind !== "exact") sampler.clock = clock;
  return Object.keys(sampler).length ? { sampler } : {};
}

/** {kind, steps, blockLength, clock} of a body's sampler; kind is null where this page has no such sampler. */
export function samplerOf({ name = "first_hitting", steps = null, block_length: blockLength = null, clock = null } = {}) {
  const kind = name === "first_hitting" ? (steps === null ? "exact" : "groups") : name;
  return { kind: kind in SAMPLERS ? kind : null, steps, blockLength, clock };
}

/** An order of the canvas in words: "random order", "blocks of 8", "left to right". */
export function orderName(blockLength) {
  if (blockLength === null) return "random order";
  return blockLength === 1 ? "left to right" : `blocks of ${blockLength}`;
}
