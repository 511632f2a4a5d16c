// Numbers and times as people read them.

const counts = new Intl.NumberFormat("en");

/** 2025 → "2,025". */
export const count = (number) => counts.format(number);

/** 1, "step" → "1 step"; 2, "step" → "2 steps". */
export const several = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A number to four significant digits: 107.3, 0.01234, "7.50e8" from a million on. */
export function significant(number) {
  if (number >= 1e6) return number.toExponential(2).replace("e+", "e");
  return number.toLocaleString("en", { maximumSignificantDigits: 4 });
}

/** An estimate to the second digit of its standard error, the fourth decimal at the finest: "4.673 ± 0.042". */
export function estimated(value, error) {
  const digits = Math.min(4, Math.max(0, 1 - Math.floor(Math.log10(error))));
  const [told, within] = [value, error].map((number) =>
    number.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  return `${told} ± ${within}`;
}

/** Milliseconds as "40 ms", "1.3 s", "25 s" or "2 min 5 s". */
export function duration(ms) {
  if (ms < 100) return `${Math.max(1, Math.round(ms))} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return `${Math.floor(Math.round(seconds) / 60)} min ${Math.round(seconds) % 60} s`;
}

/** A message as a sentence: a capital at its head unless that is a field's name, a full stop at its end. */
export function sentence(message) {
  return /[.!?…]$/.test(message) ? message : `${message}.`;
}

/** What to tell of an error: its message, or that the server cannot be reached. */
export function told(error, message = error.message) {
  if (error instanceof TypeError) return "The server cannot be reached.";
  const wait = error.retryAfter ? ` It asks to wait ${several(error.retryAfter, "second")}.` : "";
  return sentence(message) + wait;
}
