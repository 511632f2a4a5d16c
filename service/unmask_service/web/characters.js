// Characters that several tokens share. The text of a token that holds a part of a character has U+FFFD in it.

const PART = "\ufffd";

/** Whether a token's text holds a part of a character. */
export const isPart = (text) => text?.includes(PART) ?? false;

/** A token's text without its parts of characters. */
export const withoutParts = (text) => text.replaceAll(PART, "");

/**
 * [{from, to, text}] of the runs of neighbours in `texts` (tokens `from` to `to`, both included) that hold parts of characters.
 *
 * `whole` is the text of all the tokens, decoded at once: what stands in it between the texts of other tokens is the text of
 * the run. It is null where `whole` is null, or does not consist of these tokens.
 */
export function sharedCharacters(texts, whole) {
  const runs = [];
  texts.forEach((text, index) => {
    if (!isPart(text)) return;
    if (runs.at(-1)?.to === index - 1) runs.at(-1).to = index;
    else runs.push({ from: index, to: index });
  });
  const found = whole === null || texts.includes(null) ? null : betweenOthers(texts, whole, runs);
  return runs.map((run, i) => ({ ...run, text: found?.[i] ?? null }));
}

function betweenOthers(texts, whole, runs) {
  if (!runs.length) return [];
  const others = [...runs, null].map((run, i) => texts.slice(i ? runs[i - 1].to + 1 : 0, run?.from).join(""));
  if (!whole.startsWith(others[0])) return null;
  const found = [];
  let at = others[0].length;
  for (let i = 1; i < others.length; i++) {
    const last = i === others.length - 1;
    const next = last ? whole.length - others[i].length : whole.indexOf(others[i], at + 1);
    if (next <= at || (last && !whole.endsWith(others[i]))) return null;
    found.push(whole.slice(at, next));
    at = next + others[i].length;
  }
  return found;
}
