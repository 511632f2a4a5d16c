// Idle steps of the ancestral sampler: what is expected of them, and what a server's plans say.

import { plan } from "./api.js";
import { samplerBody } from "./samplers.js";

const POINTS = 16;
const SAMPLES = 16;

/** Time steps of T in which none of n sub-tokens is revealed, on average: T (1 - 1/T)^n (paper 2, Proposition A.1). */
export const expectedIdleSteps = (T, n) => T * (1 - 1 / T) ** n;

/** The numbers of steps to ask for: evenly from a few up to twice the number of sub-tokens. */
export function stepsToMeasure(subTokens, most) {
  const all = Array.from({ length: POINTS }, (_, i) => Math.max(1, Math.round((2 * subTokens * (i + 1)) / POINTS)));
  return [...new Set(all.map((T) => Math.min(T, most)))];
}

/**
 * {T, mean, least, most} idle steps of a sample, over the samples of one plan of the server's; nothing is generated.
 * `blockLength` is null for one block.
 */
export async function measureIdleSteps({ limits, naming }, tokens, T, blockLength) {
  const n = Math.min(SAMPLES, limits.max_samples);
  const sampler = samplerBody("ancestral", { steps: T, block_length: blockLength });
  const planned = await plan({ ...naming, max_tokens: tokens, n, seed: T, ...sampler });
  const steps = (planned.network_evaluations + planned.idle_steps) / n;
  const idle = planned.evaluations_per_sample.map((evaluations) => steps - evaluations);
  return { T, mean: planned.idle_steps / n, least: Math.min(...idle), most: Math.max(...idle) };
}
