// Taking a generation or a score home: its log as JSON, its text, and the command that makes it again.

import { make } from "./dom.js";

/** The request and every event with its time of arrival; enough to replay it. */
export function logAsJson(log) {
  return JSON.stringify({ request: log.request, events: log.events }, null, 1);
}

/** The text of every sample; ids where the model has no tokenizer. */
export function textOf(log) {
  return log.done.choices.map((choice) => choice.text ?? choice.token_ids.join(" ")).join("\n\n");
}

/** A curl command that gives the same again: the seed is the one that was used, a deadline becomes the steps it chose. */
export function curlOf(log, address, withKey) {
  const { deadline_ms, candidates, logprobs, ...request } = log.request;
  const body = { ...request, seed: log.start.seed, stream: true };
  if (deadline_ms && log.done) body.sampler = { ...body.sampler, steps: log.done.sampling.steps };
  const key = withKey ? ` \\\n  -H "Authorization: Bearer $API_KEY"` : "";
  return `curl -N ${address} -H 'Content-Type: application/json'${key} \\\n  -d ${quoted(JSON.stringify(body))}`;
}

/** A word for a POSIX shell. */
export const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Let the browser save a file. */
export function save(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url));
}

/** Copy an element's text; without the permission, select it for the reader to copy. */
export async function copy(element) {
  getSelection().selectAllChildren(element);
  await navigator.clipboard?.writeText(element.textContent).catch(() => {});
}
