// What of a token's text cannot be seen is shown as a sign, and has a name for those who hear the page.

const BLANKS = { "\n": "¶", " ": "␣", "": "∅" };
const NAMES = {
  "¶": "line break",
  "␣": "space",
  "∅": "no text",
  "⏎": "end",
  "◌": "part of a character",
  "⋯": "rest of the character before",
};

export const END = "⏎";
export const PART = "◌";
export const REST = "⋯";

/** The sign for a text; "" where it can be seen. */
export const signOf = (text) => BLANKS[text] ?? "";

/** What a sign is called; undefined for "". */
export const nameOf = (sign) => NAMES[sign];
