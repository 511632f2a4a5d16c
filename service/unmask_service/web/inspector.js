// What is known of one token: its digits, and the classes that they leave.

import { isPart } from "./characters.js";
import { facts, make } from "./dom.js";
import { count, several } from "./format.js";
import { whyThen } from "./samplers.js";

export class Inspector {
  constructor(panel, card) {
    this.panel = panel;
    this.card = card;
    this.clear();
  }

  clear() {
    this.panel.toggleAttribute("data-empty", true);
    this.panel.replaceChildren(make("p", { className: "hint" }, "Point at a token, or walk there with the arrow keys."));
  }

  /** Show a token as it is in a state; return the same in a few words, for those who hear the page. */
  show(state, position) {
    const kind = state.stateOf(position);
    const candidates = kind === "intermediate" ? state.candidatesOf(position) : null;
    const token = state.tokenOf(position);
    const behind = state.isBehindEnd(position);
    this.panel.toggleAttribute("data-empty", false);
    this.panel.replaceChildren(
      make("h3", {}, `Token ${position}`, stateMark(kind, behind)),
      make("dl", { className: "facts" }, ...facts([
        ["text", token?.text && !isPart(token.text) ? quoted(token.text) : null],
        ["part of", isPart(token?.text) ? quoted(state.characterOf(position) ?? "a character") : null],
        ["token id", token ? count(token.id) : null],
        ["digits", kind === "given" ? null : digitsOf(state, position)],
        ["classes left", this.#classesLeft(kind, candidates)],
        ["step", kind === "given" ? null : (state.lastTouched(position) || "none yet")],
        ["why then", state.lastTouched(position) ? whyThen(state.log.request.sampler) : null],
        ["how sure", howSure(state, position)],
        ["next", state.next.has(position) ? "revealed in the next step" : null],
      ])),
      ...this.#likeliest(candidates),
    );
    return spoken(state, position, behind ? `${kind}, behind the end` : kind, token, candidates);
  }

  #classesLeft(kind, candidates) {
    if (kind === "masked") return `all ${count(this.card.vocabulary_size)}`;
    if (kind === "intermediate" && candidates) return `${count(candidates.left)} of ${count(this.card.vocabulary_size)}`;
    return null;
  }

  #likeliest(candidates) {
    if (!candidates?.likeliest.length) return [];
    const rows = candidates.likeliest.map(({ id, text, probability }) => {
      const bar = make("meter", { max: 1, value: probability });
      bar.setAttribute("aria-label", `probability of ${text ?? id}`);
      return make("li", {}, make("span", { className: "quoted" }, text ?? String(id)), bar, percent(probability));
    });
    return [make("h4", {}, "Likeliest of these"), make("ol", { className: "likeliest" }, ...rows)];
  }
}

/** Probabilities as percentages, small ones as bounds. */
export function percent(p) {
  if (p < 0.001) return "< 0.1 %";
  if (p > 0.995 && p < 1) return "> 99 %";
  return `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`;
}

const quoted = (text) => make("span", { className: "quoted" }, text);

function stateMark(kind, behind) {
  const mark = make("span", { className: "mark" }, behind ? "behind the end" : kind);
  mark.dataset.state = kind;
  mark.toggleAttribute("data-behind-end", behind);
  return mark;
}

function digitsOf(state, position) {
  return make("span", { className: "digits-line" }, state.digitsOf(position).map((digit) => digit ?? "·").join(" "));
}

/** The probability that each digit had when it was revealed, first to last; null where the log has none. */
function howSure(state, position) {
  const told = state.revealsOf(position).filter(({ probability }) => probability !== null);
  return told.length ? told.map(({ step, probability }) => `${percent(probability)} in step ${step}`).join(", ") : null;
}

function spoken(state, position, kind, token, candidates) {
  if (token) return `token ${position}, ${kind}: ${wordOf(state, position, token)}`;
  if (state.stateOf(position) === "masked") return `token ${position}, ${kind}`;
  const digits = state.digitsOf(position).map((digit) => digit ?? "unknown").join(", ");
  const left = candidates ? `; ${several(candidates.left, "word")} possible` : "";
  return `token ${position}, ${kind}: digits ${digits}${left}`;
}

function wordOf(state, position, { id, text }) {
  if (isPart(text)) return `part of ${state.characterOf(position) ?? "a character"}`;
  return text ?? id;
}
