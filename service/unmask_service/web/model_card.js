// What the server says of its model: a line and a sentence under the title, and the card in a dialog.

import { readme } from "./api.js";
import { endTokensOf } from "./canvas_state.js";
import { byId, facts, make } from "./dom.js";
import { count, several, told } from "./format.js";
import { fromMarkdown } from "./markdown.js";
import { kindOf, numbersInWords, orderName } from "./samplers.js";

const GENERIC = "A masked diffusion language model: it fills gaps in any order, and knows only the kind of text that it was trained on.";

/** The card of the model that the page's address names, else the first. `naming` is what requests say of it. */
export function chosen(cards) {
  const name = new URLSearchParams(location.search).get("model");
  const card = cards.find(({ id }) => id === name) ?? cards[0];
  return { ...card, naming: card === cards[0] ? {} : { model: card.id } };
}

/** Let visitors choose among several models; each has a page of its own. */
export function offerModels(cards, card) {
  const choice = byId("model-choice");
  choice.replaceChildren(...cards.map(({ id }) => make("option", { value: id, selected: id === card.id }, id)));
  choice.parentElement.hidden = cards.length === 1;
  choice.addEventListener("change", () => (location.search = new URLSearchParams({ model: choice.value })));
}

/** Show a card, as `/v1/models` gives it. */
export function showCard(card) {
  const size = card.image ? `${sizeOf(card.image)} pixels` : `up to ${count(card.length)} tokens`;
  byId("model").textContent = `${card.id} · ${count(card.vocabulary_size)} classes, each ${digitsOf(card)} · ${size}`;
  byId("about").textContent = byId("card-about").textContent = card.description ?? GENERIC;
  byId("card-title").textContent = card.id;
  byId("card-facts").replaceChildren(...facts(factsOf(card)));
  byId("card-limits").replaceChildren(...facts(limitsOf(card.limits)));
  const examples = card.examples ?? [];
  byId("card-examples").replaceChildren(...examples.map((text) => make("li", {}, make("span", { className: "quoted" }, text))));
  byId("card-examples-title").hidden = byId("card-examples").hidden = !examples.length;
  byId("card-link").disabled = false;
  byId("card-link").addEventListener("click", () => {
    byId("card").showModal();
    showReadme(card.id);
  });
  byId("card-close").addEventListener("click", () => byId("card").close());
}

/** Ask for the README when the card is opened: by then a visitor has typed the API key. */
async function showReadme(id) {
  if (byId("card-readme").childElementCount) return;
  byId("card-error").textContent = "";
  try {
    const text = await readme(id);
    byId("card-readme-title").hidden = text === null;
    // its title is the dialog's
    byId("card-readme").replaceChildren(...fromMarkdown((text ?? "").replace(/^\s*# .*\n/, "")));
  } catch (error) {
    byId("card-error").textContent = told(error);
  }
}

/** Recommended settings in words: "temperature 0.7, blocks of 8", "temperature 1, random order, remasking with 96 steps and rate 0.2". */
export function settingsInWords({ temperature = 1, top_k: topK = 0, top_p: topP = 1, sampler }) {
  const { block_length: blockLength = null, clock = null, temperature_schedule: schedule = null } = sampler ?? {};
  const kind = kindOf(sampler ?? {});
  const numbers = numbersInWords(sampler ?? {}).join(" and ");
  const parts = [`temperature ${temperature}`, orderName(blockLength)];
  if (schedule) parts[0] += ` (times ${number(schedule.start)} at first, ${number(schedule.start + schedule.change)} at last)`;
  if (topP !== 1) parts.push(`top p ${topP}`);
  if (topK) parts.push(`top k ${topK}`);
  if (kind === "groups") parts.push(numbers);
  else if (kind && kind !== "exact") parts.push(numbers ? `${kind} with ${numbers}` : kind);
  if (clock !== null) parts.push(`clock ${clock}`);
  return parts.join(", ");
}

/** A sum of decimals, without the noise of its last digits. */
const number = (value) => Number(value.toFixed(6));

const sizeOf = ({ width, height }) => `${width} × ${height}`;

function digitsOf({ sub_tokens_per_token: digits, base }) {
  return `${several(digits, "digit")} in base ${base}`;
}

function factsOf(card) {
  return [
    ["architecture", card.architecture],
    ["picture", card.image ? `${sizeOf(card.image)} pixels` : null],
    ["clock", card.image ? (card.clock ?? 1) : null],
    ["length", `up to ${several(card.length, "token")}`],
    ["canvas", card.canvas === "full" ? "always the whole length" : "as long as the request"],
    ["vocabulary", `${count(card.vocabulary_size)} classes`],
    ["a token", digitsOf(card)],
    ["takes and gives", card.tokenizer ? "text or token ids" : "token ids"],
    ["end token", endTokensOf(card).map((id) => `id ${id}`).join(" or ") || "none"],
    ["recommended", card.generation ? settingsInWords(card.generation) : null],
  ];
}

function limitsOf(limits) {
  return Object.entries(limits).map(([name, limit]) => [
    name.replace(/^max_/, "").replaceAll("_", " ").replace(/ ms$/, ", ms"),
    limit === null ? "no bound" : count(limit),
  ]);
}
