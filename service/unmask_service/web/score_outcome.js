// What a score came to: its numbers, the heat map, and the ways to take them home.

import { byId, facts } from "./dom.js";
import { copy, curlOf, logAsJson, save } from "./export.js";
import { count, duration, estimated, several, significant } from "./format.js";
import { HeatMap, legend } from "./heat_map.js";
import { passagesOf } from "./passages.js";

const REPLICATES = { orders: "pair", integral: "replicate" };

export class ScoreOutcome {
  constructor() {
    this.map = new HeatMap(byId("heat"), byId("heat-inspector"));
    byId("heat-legend").replaceChildren(...legend());
    byId("heat-numbers").addEventListener("change", (event) => byId("heat").toggleAttribute("data-numbers", event.target.checked));
    byId("save-score").addEventListener("click", () => save(`${this.log.start.id}.json`, logAsJson(this.log), "application/json"));
    byId("copy-score-curl").addEventListener("click", () => copy(byId("score-curl")));
  }

  hide() {
    byId("score-outcome").hidden = true;
  }

  /** Show a log that ended well; `text` is that of its input, null where only ids are known. */
  show(log, text) {
    this.log = log;
    const { done, request } = log;
    byId("score-facts").replaceChildren(...facts([...numbersOf(done), ...costsOf(done)]));
    this.map.show(passagesOf(request, done.token_nats, text), done.nats);
    byId("score-curl").textContent = curlOf(log, new URL("score", document.baseURI).href, byId("key").value !== "");
    byId("score-outcome").hidden = false;
  }
}

function numbersOf({ published_integrand: published, ...done }) {
  const told = (number) => (number === null ? null : significant(number));
  return [
    ["nats, upper bound", estimated(done.nats, done.standard_error)],
    ["nats a token", estimated(done.nats_per_token, done.standard_error_per_token)],
    ["perplexity a token", told(done.perplexity_per_token)],
    ["perplexity a word", told(done.perplexity_per_word)],
    ["bits a byte", told(done.bits_per_byte)],
    ["published integrand, nats a token: no bound",
      published && estimated(published.nats_per_token, published.standard_error_per_token)],
  ];
}

function costsOf({ tokens, estimator, windows, window, overlap, timings, seed, fingerprint }) {
  const { name, replicates, network_evaluations: done, planned } = estimator;
  return [
    ["tokens", count(tokens)],
    ["evaluations", done < planned ? `${count(done)} of ${count(planned)}` : count(done)],
    [name === "orders" ? "random orders" : "integral", several(replicates, REPLICATES[name])],
    ["windows", windows > 1 ? `${count(windows)} of ${count(window)} tokens, ${count(overlap)} shared` : null],
    ["time", duration(timings.total_ms)],
    ["seed", String(seed)],
    ["fingerprint", fingerprint],
  ];
}
