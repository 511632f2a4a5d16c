// What a score was about, in the order of its text.

import { sharedCharacters } from "./characters.js";

/**
 * {id, text, nats, position} of every token of the input, and {text, nats: null} for what was given before and after it.
 * `nats` is null for tokens that were given; `text` is null where only the id is known. `whole` is the text of the input, or
 * null: a character that several tokens share stands in the first of these, and the others have `rest` set.
 */
export function passagesOf({ prompt, input, suffix, given = [] }, tokenNats, whole) {
  const scored = tokenNats.map(([position, id, text, nats]) => ({ position, id, text, nats }));
  // positions are given for ids alone
  const known = given.map((position) => ({ position, id: input[position], text: null, nats: null }));
  const tokens = [...scored, ...known].sort((one, other) => one.position - other.position);
  for (const { from, to, text } of sharedCharacters(tokens.map((token) => token.text), whole)) {
    if (text !== null) tokens[from].text = text;
    for (const token of tokens.slice(from + 1, to + 1)) Object.assign(token, { text: "", rest: true });
  }
  return [...surroundings(prompt), ...tokens, ...surroundings(suffix)];
}

function surroundings(text) {
  return text?.length ? [{ text: Array.isArray(text) ? `${text.join(" ")} ` : text, nats: null }] : [];
}
