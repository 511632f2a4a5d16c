// What came out, and what it cost; and the ways to take it home.

import { byId, facts } from "./dom.js";
import { meanEntropy } from "./entropy.js";
import { copy, curlOf, logAsJson, save, textOf } from "./export.js";
import { count, duration } from "./format.js";

export class Outcome {
  /** `onText(log)` hears of a log whose text is shown, and null when it is no more. */
  constructor(onText = () => {}) {
    this.onText = onText;
    const name = () => this.log.start.id;
    byId("save-log").addEventListener("click", () => save(`${name()}.json`, logAsJson(this.log), "application/json"));
    byId("save-text").addEventListener("click", () => save(`${name()}.txt`, textOf(this.log), "text/plain"));
    byId("copy-curl").addEventListener("click", () => copy(byId("curl")));
  }

  hide() {
    byId("outcome").hidden = true;
    this.onText(null);
  }

  /** Show the end of a log; of one that did not finish there is a log and a command, but no text. */
  show(log) {
    this.log = log;
    const { done } = log;
    byId("text").textContent = done ? textOf(log) : "";
    byId("text").hidden = byId("save-text").hidden = !done;
    byId("facts").replaceChildren(...facts(done ? factsOf(log) : []));
    byId("curl").textContent = curlOf(log, new URL("generate", document.baseURI).href, byId("key").value !== "");
    byId("outcome").hidden = false;
    this.onText(done ? log : null);
  }
}

function factsOf(log) {
  const { sampling, timings, usage, fingerprint } = log.done;
  return [
    ["tokens", count(usage.completion_tokens)],
    ["evaluations", count(log.evaluations)],
    ["saved behind the end", log.saved ? count(log.saved) : null],
    ["rounds", count(sampling.rounds)],
    ["idle steps", count(sampling.idle_steps)],
    ["time", duration(timings.total_ms)],
    ["unigram entropy", `${meanEntropy(log.done).toFixed(2)} nats`],
    ["seed", String(sampling.seed)],
    ["fingerprint", fingerprint],
  ];
}
