// A canvas on the page: a cell a token. Cells are made once; afterwards only those that have changed are touched.

import { isPart, withoutParts } from "./characters.js";
import { make } from "./dom.js";
import { END, nameOf, PART, REST, signOf } from "./signs.js";
import { TokenWalk } from "./token_walk.js";

const MASKED_DIGIT = "·";
// so many fading at once would cost more than all else
const LARGE = 256;

export class CanvasView {
  #cells = [];
  #end = null;
  #next = new Set();
  #walk = null;

  /** `onInspect(position)` hears which token is pointed at or reached by keyboard, and returns what to call it. */
  constructor(container, onInspect = null) {
    this.container = container;
    this.onInspect = onInspect;
  }

  /** Show a state's canvas anew. */
  begin(state, label) {
    this.state = state;
    this.#end = state.length;
    this.#cells = Array.from({ length: state.length }, (_, position) => this.#cell(position));
    this.list = make("div", { className: "tokens" }, ...this.#cells.map((cell) => cell.token));
    this.list.style.setProperty("--digits", state.digitsPerToken);
    this.list.style.setProperty("--digit-width", `${Math.max(1, String(state.log.start.base - 1).length)}ch`);
    this.list.toggleAttribute("data-large", state.length > LARGE);
    this.#name(label);
    this.#next = new Set();
    for (let position = 0; position < state.length; position++) this.#show(position);
    this.container.replaceChildren(this.list);
  }

  /** Show the state after a step; what was revealed after step `since` glows. */
  seek(step, since) {
    const changed = this.state.seek(step, since);
    for (const position of changed) this.#show(position);
    this.#showEnd();
    this.showNext();
    if (changed.has(this.#walk?.active)) this.#walk.retell();
  }

  /** Mark what the next step reveals, where the order is shown. */
  showNext() {
    const next = this.container.hasAttribute("data-order") ? this.state.next : new Set();
    for (const position of this.#next) this.#cells[position].token.toggleAttribute("data-next", next.has(position));
    for (const position of next) this.#cells[position].token.toggleAttribute("data-next", true);
    this.#next = next;
  }

  /** Show the characters that several tokens share whole, now that the log is done. */
  join() {
    for (const position of this.state.join()) this.#show(position);
  }

  /** Whichever is named can be reached by keyboard: cells that can be walked through, or a canvas to scroll. */
  #name(label) {
    const tokens = this.#cells.map((cell) => cell.token);
    if (this.onInspect) this.#walk = new TokenWalk(this.list, tokens, { label, prefix: "token", tell: this.onInspect });
    else Object.assign(this.container, { role: "group", ariaLabel: label, tabIndex: 0 });
  }

  #cell(position) {
    const word = make("span", { className: "word" });
    const digits = Array.from({ length: this.state.digitsPerToken }, () => make("span", { className: "digit" }));
    const token = make("span", { className: "token" }, word, make("span", { className: "digits" }, ...digits));
    token.dataset.position = position;
    return { token, word, digits };
  }

  #show(position) {
    const { token, word, digits } = this.#cells[position];
    const kind = this.state.stateOf(position);
    token.dataset.state = kind;
    this.#showOrder(token, position);
    const known = this.state.tokenOf(position);
    this.#showWord(word, position, known, kind === "intermediate" ? this.state.candidatesOf(position) : null);
    if (this.onInspect) token.ariaLabel = nameOf(word.dataset.sign) ?? (known ? null : kind);
    if (kind === "given") return;
    let glowing = false;
    this.state.digitsOf(position).forEach((digit, j) => {
      const fresh = this.state.fresh.has(position * digits.length + j);
      glowing ||= fresh;
      // a complete token's text is its word alone; its digits are drawn by the stylesheet
      digits[j].textContent = kind === "unmasked" ? "" : (digit ?? MASKED_DIGIT);
      digits[j].dataset.digit = digit ?? "";
      digits[j].toggleAttribute("data-fresh", fresh);
    });
    token.toggleAttribute("data-fresh", glowing);
  }

  /** The step in which a token was last touched; in the stylesheet's hands, early ones are dark. */
  #showOrder(token, position) {
    const step = this.state.lastTouched(position);
    token.dataset.step = step || "";
    token.style.setProperty("--early", step ? 1 - step / this.state.log.stepsOf(this.state.sample) : 0);
  }

  #showWord(word, position, known, candidates) {
    [word.textContent, word.dataset.sign] = known ? this.#textAndSign(position, known) : ["", ""];
    word.toggleAttribute("data-id", known !== null && known.text === null);
    const guess = candidates?.likeliest[0];
    word.dataset.guess = guess ? (guess.text ?? guess.id) : "";
  }

  #textAndSign(position, { id, text }) {
    if (this.state.endTokenIds.includes(id)) return ["", END];
    if (text === null) return [String(id), ""];
    if (!isPart(text)) return [text, signOf(text)];
    if (this.state.continues(position)) return ["", REST];
    const character = this.state.characterOf(position);
    return character === null ? [withoutParts(text), PART] : [character, ""];
  }

  #showEnd() {
    const { end } = this.state;
    if (end === this.#end) return;
    const [from, to] = [Math.min(end, this.#end), Math.max(end, this.#end)];
    for (let position = from; position < Math.min(to + 1, this.state.length); position++) {
      this.#cells[position].token.toggleAttribute("data-behind-end", position > end && !this.state.given.has(position));
    }
    this.#end = end;
  }
}
