// A scored text, each token coloured by what it contributes; what was given is not coloured.

import { facts, make } from "./dom.js";
import { count } from "./format.js";
import { LEVELS, levelOf } from "./heat_scale.js";
import { percent } from "./inspector.js";
import { nameOf, REST, signOf } from "./signs.js";
import { TokenWalk } from "./token_walk.js";

export class HeatMap {
  constructor(container, panel) {
    Object.assign(this, { container, panel });
  }

  /** Show passages, which together contribute `total` nats. */
  show(passages, total) {
    const tokens = passages.map(tokenOf);
    const list = make("div", { className: "heated" }, ...tokens);
    new TokenWalk(list, tokens, {
      label: "Text by what each token contributes",
      prefix: "heat",
      tell: (index) => this.#tell(passages[index], total),
    });
    this.container.replaceChildren(list);
    this.panel.toggleAttribute("data-empty", true);
    this.panel.replaceChildren(make("p", { className: "hint" }, "Point at a token, or walk there with the arrow keys."));
  }

  /** Show a token beside the text; return the same in a few words. */
  #tell(passage, total) {
    const { position, id, text, nats } = passage;
    this.panel.toggleAttribute("data-empty", false);
    this.panel.replaceChildren(
      make("h3", {}, position === undefined ? "Given" : `Token ${position}`, markOf(nats)),
      make("dl", { className: "facts" }, ...facts([
        ["nats", nats?.toFixed(3)],
        ["bits", nats === null ? null : (nats / Math.LN2).toFixed(3)],
        ["share of all", nats === null || !total ? null : percent(nats / total)],
        ["text", text && make("span", { className: "quoted" }, text)],
        ["token id", id === undefined ? null : count(id)],
      ])),
    );
    return spoken(passage);
  }
}

/** The levels as items of a legend. */
export function legend() {
  const items = LEVELS.map((name, level) => ({ name, level })).concat({ name: "given", level: "given" });
  return items.map(({ name, level }) => heated(make("li", {}, name), level));
}

function tokenOf(passage) {
  const { id, text, nats, rest } = passage;
  const sign = rest ? REST : text === " " ? "" : signOf(text); // its colour shows a space
  const shown = text === null ? String(id) : sign + text;
  const token = heated(make("span", { className: "heat", ariaLabel: spoken(passage) }, shown), levelName(nats));
  token.toggleAttribute("data-id", text === null);
  if (nats !== null) token.dataset.nats = nats.toFixed(nats < 10 ? 2 : 1);
  return token;
}

function heated(element, level) {
  element.dataset.level = level;
  return element;
}

const levelName = (nats) => (nats === null ? "given" : levelOf(nats));

function markOf(nats) {
  return heated(make("span", { className: "mark" }, nats === null ? "given" : LEVELS[levelOf(nats)]), levelName(nats));
}

function spoken({ id, text, nats, rest }) {
  const called = nameOf(rest ? REST : signOf(text)) ?? text ?? String(id);
  return nats === null ? `given: ${called}` : `${called}: ${nats.toFixed(2)} nats`;
}
