// The page: what the server serves, then each section with what it needs.

import { modelCards, useKey } from "./api.js";
import { Comparison } from "./compare.js";
import { Composer } from "./composer.js";
import { byId } from "./dom.js";
import { told } from "./format.js";
import { IdlePlot } from "./idle_plot.js";
import { chosen, offerModels, showCard } from "./model_card.js";
import { Outcome } from "./outcome.js";
import { PictureEditor } from "./picture_editor.js";
import { RequestForm } from "./request_form.js";
import { ScoreForm } from "./score_form.js";
import { ScoreOutcome } from "./score_outcome.js";
import { Scorer } from "./scorer.js";
import { Stage } from "./stage.js";

const PAUSE_MS = 2000;

/** The cards of the models, however long it takes until the server is there. */
async function untilThere() {
  for (;;) {
    try {
      return await modelCards();
    } catch (error) {
      byId("model").textContent = told(error);
      if (error.status === 401) byId("key").closest("details").open = true;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

byId("key").addEventListener("input", (event) => useKey(event.target.value));
let early = false;
for (const id of ["request", "score-form"]) byId(id).addEventListener("submit", (event) => event.preventDefault());
byId("request").addEventListener("submit", () => (early = true));

const cards = await untilThere();
const card = chosen(cards);
offerModels(cards, card);
showCard(card);
for (const element of document.querySelectorAll(".of-text")) element.hidden = Boolean(card.image);
const requestForm = new RequestForm(byId("request"), card);
const stage = new Stage(card);
const scoreForm = new ScoreForm(byId("score-form"), card, () => stage.sample);
const composer = new Composer(requestForm, stage, new Outcome(stage.view, (log) => scoreForm.offer(log)));
if (card.image) {
  const editor = new PictureEditor(stage.view, card, {
    onFill: (body) => composer.start(body),
    onPicture: (log) => {
      composer.outcome.hide();
      stage.begin(log);
    },
    onError: (message) => (byId("error").textContent = message),
  });
  stage.changed = () => editor.changed();
}
new Scorer(scoreForm, new ScoreOutcome());
new Comparison(requestForm, card);
new IdlePlot(card);
if (early) composer.start();
