// What came out, and what it cost; and the ways to take it home.

import { film } from "./api.js";
import { byId, facts } from "./dom.js";
import { meanEntropy } from "./entropy.js";
import { copy, curlOf, logAsJson, save, textOf } from "./export.js";
import { count, duration, told } from "./format.js";

export class Outcome {
  /** `view` shows the canvas; `onText(log)` hears of a log whose text is shown, and null when it is no more. */
  constructor(view, onText = () => {}) {
    Object.assign(this, { view, onText });
    const name = () => this.log.start.id;
    byId("save-log").addEventListener("click", () => save(`${name()}.json`, logAsJson(this.log), "application/json"));
    byId("save-text").addEventListener("click", () => save(`${name()}.txt`, textOf(this.log), "text/plain"));
    byId("save-png").addEventListener("click", () => this.#savePictures("", [view.sample]));
    byId("save-sheet").addEventListener("click", () => this.#savePictures("-sheet", [...this.log.samples.keys()]));
    byId("save-film").addEventListener("click", () => this.#saveFilm());
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
    byId("text").hidden = byId("save-text").hidden = !done || Boolean(log.start.image);
    for (const id of ["save-png", "save-sheet", "save-film"]) byId(id).hidden = !log.start.image;
    byId("facts").replaceChildren(...facts(done ? factsOf(log) : []));
    byId("curl").textContent = curlOf(log, new URL("generate", document.baseURI).href, byId("key").value !== "");
    byId("outcome").hidden = false;
    this.onText(done && !log.start.image ? log : null);
  }

  /** Pictures as they are shown, after the step that is shown. */
  async #savePictures(suffix, samples) {
    save(`${this.log.start.id}${suffix}.png`, await this.view.sheet.png(samples), "image/png");
  }

  async #saveFilm() {
    try {
      save(`${this.log.start.id}-film.png`, await film(this.log.start.id), "image/png");
    } catch (error) {
      byId("error").textContent = told(error);
    }
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
