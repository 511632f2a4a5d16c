// What a sample's canvas looks like after any number of its steps: a step forth applies an entry of the log, a step back
// undoes it. No DOM here.

import { sharedCharacters } from "./characters.js";

const UNKNOWN = -1;

export class CanvasState {
  #digits;
  #touched;
  #completed;
  #forgotten = []; // by step, what it masked again: {position, index, digit, token}
  #characters = new Map(); // of positions that share one: {positions, text}

  /** The canvas of one sample of a log, before its first step. */
  constructor(log, sample, endTokenIds = []) {
    const { start } = log;
    this.log = log;
    this.sample = sample;
    this.reveals = log.samples[sample];
    this.digitsPerToken = start.sub_tokens_per_token;
    this.given = new Map(start.canvas[sample].map(([position, id, text]) => [position, { id, text }]));
    // a network that always sees its whole length has masked tokens behind the request, which are never revealed
    const holes = start.masked / log.samples.length / this.digitsPerToken;
    this.length = start.image ? start.length : this.given.size + holes;
    this.endTokenIds = endTokenIds;
    this.step = 0;
    this.fresh = new Set();
    this.#digits = new Int32Array(this.length * this.digitsPerToken).fill(UNKNOWN);
    for (const [position, j, digit] of start.sub_tokens ?? []) this.#digits[position * this.digitsPerToken + j] = digit;
    this.#touched = Array.from({ length: this.length }, () => []);
    this.#completed = new Map();
  }

  /** Put the characters together that several tokens share, once the log is done; return the positions of these tokens. */
  join() {
    const { request, done } = this.log;
    const { text } = done.choices[this.sample];
    const tokens = new Map([...this.given, ...this.reveals.flatMap((reveal) => reveal.tokens.map(([at, id, word]) => [at, { id, text: word }]))]);
    const generated = (position) => !this.given.has(position);
    const isEnd = (position) => generated(position) && this.#isEnd(tokens.get(position));
    const positions = Array.from({ length: this.length }, (_, position) => position);
    const answered = positions.slice(0, positions.find(isEnd));
    const holes = positions.filter(generated);
    const typed = (passage) => (typeof passage === "string" ? passage : null);
    const passages = request.canvas ? [[answered, text]] : [
      [positions.filter((position) => position < holes[0]), typed(request.prompt)],
      [answered.filter(generated), text],
      [positions.filter((position) => position > holes.at(-1)), typed(request.suffix)],
    ];
    for (const [where, whole] of passages) this.#join(where, where.map((position) => tokens.get(position)?.text ?? null), whole);
    return [...this.#characters.keys()];
  }

  /** The text of the characters that a token is a part of; null while they are not known whole. */
  characterOf(position) {
    const shared = this.#characters.get(position);
    return shared?.positions.every((each) => this.tokenOf(each)) ? shared.text : null;
  }

  /** Whether a token's characters stand in the token before it. */
  continues(position) {
    return this.characterOf(position) !== null && this.#characters.get(position).positions[0] !== position;
  }

  /** Whether a token stands behind a generated end token, where nothing is part of the answer. */
  isBehindEnd(position) {
    return position > this.end && !this.given.has(position);
  }

  /**
   * Go to the state after `step` steps; return the positions that have changed.
   *
   * `fresh` then holds what was revealed after step `since`, as indices position · l + j.
   */
  seek(step, since = step - 1) {
    const changed = new Set([...this.fresh].map((index) => Math.floor(index / this.digitsPerToken)));
    while (this.step < step) this.#apply(this.reveals[this.step++], changed);
    while (this.step > step) this.#undo(this.reveals[--this.step], changed);
    const revealed = this.reveals.slice(Math.max(0, since), step).flatMap((reveal) => this.#indicesOf(reveal));
    this.fresh = new Set(revealed.filter((index) => this.#digits[index] !== UNKNOWN));
    for (const index of this.fresh) changed.add(Math.floor(index / this.digitsPerToken));
    for (const position of [...changed]) this.#characters.get(position)?.positions.forEach((each) => changed.add(each));
    return changed;
  }

  /** `given`, `masked`, `intermediate` or `unmasked`. */
  stateOf(position) {
    if (this.given.has(position)) return "given";
    const known = this.digitsOf(position).filter((digit) => digit !== null).length;
    return known === 0 ? "masked" : known < this.digitsPerToken ? "intermediate" : "unmasked";
  }

  /** The digits of a token that was not given, null where masked. */
  digitsOf(position) {
    const from = position * this.digitsPerToken;
    return Array.from(this.#digits.subarray(from, from + this.digitsPerToken), (d) => (d === UNKNOWN ? null : d));
  }

  /** {id, text} of a token that is given or complete; text is null without a tokenizer. */
  tokenOf(position) {
    return this.given.get(position) ?? this.#completed.get(position) ?? null;
  }

  /** The step, counted from 1, in which a token was last touched; 0 for never. */
  lastTouched(position) {
    return (this.#touched[position].at(-1) ?? -1) + 1;
  }

  /** The reveals of a token's digits up to now: [{step, counted from 1, probability when revealed, null where not told}]. */
  revealsOf(position) {
    return this.#touched[position].flatMap((step) => {
      const { sub_tokens, log_probabilities: told } = this.reveals[step];
      const own = [...sub_tokens.keys()].filter((i) => sub_tokens[i][0] === position);
      return own.map((i) => ({ step: step + 1, probability: told ? Math.exp(told[i]) : null }));
    });
  }

  /** The tokens that the next step reveals something of, as far as the log goes. */
  get next() {
    return new Set((this.reveals[this.step]?.sub_tokens ?? []).map(([position]) => position));
  }

  /** {left, likeliest: [{id, text, probability}]} of an intermediate token, if the server was asked for candidates. */
  candidatesOf(position) {
    const touched = this.lastTouched(position);
    const found = touched ? this.reveals[touched - 1].candidates?.find(([where]) => where === position) : null;
    if (!found) return null;
    const [, left, likeliest] = found;
    return { left, likeliest: likeliest.map(([id, text, probability]) => ({ id, text, probability })) };
  }

  /** Where the first generated end token lies; what is generated behind it is no part of the answer. */
  get end() {
    for (let position = 0; position < this.length; position++) {
      if (this.#isEnd(this.#completed.get(position))) return position;
    }
    return this.length;
  }

  #isEnd(token) {
    return this.endTokenIds.includes(token?.id);
  }

  #join(positions, texts, whole) {
    for (const { from, to, text } of sharedCharacters(texts, whole)) {
      const shared = { positions: positions.slice(from, to + 1), text };
      for (const position of shared.positions) this.#characters.set(position, shared);
    }
  }

  #apply(reveal, changed) {
    for (const [position, j, digit] of reveal.sub_tokens) {
      this.#digits[position * this.digitsPerToken + j] = digit;
      this.#touch(position, changed);
    }
    for (const [position, id, text] of reveal.tokens) this.#completed.set(position, { id, text });
    this.#forgotten[this.step - 1] = (reveal.masked ?? []).map(([position, j]) => {
      const index = position * this.digitsPerToken + j;
      return { position, index, digit: this.#digits[index], token: this.#completed.get(position) };
    });
    for (const { position, index } of this.#forgotten[this.step - 1]) {
      this.#digits[index] = UNKNOWN;
      this.#completed.delete(position);
      this.#touch(position, changed);
    }
  }

  #undo(reveal, changed) {
    for (const { position, index, digit, token } of this.#forgotten[this.step]) {
      this.#digits[index] = digit;
      if (token) this.#completed.set(position, token);
      this.#untouch(position, changed);
    }
    for (const [position, j] of reveal.sub_tokens) {
      this.#digits[position * this.digitsPerToken + j] = UNKNOWN;
      this.#untouch(position, changed);
    }
    for (const [position] of reveal.tokens) this.#completed.delete(position);
  }

  #touch(position, changed) {
    if (this.#touched[position].at(-1) !== this.step - 1) this.#touched[position].push(this.step - 1);
    changed.add(position);
  }

  #untouch(position, changed) {
    if (this.#touched[position].at(-1) === this.step) this.#touched[position].pop();
    changed.add(position);
  }

  #indicesOf(reveal) {
    return reveal.sub_tokens.map(([position, j]) => position * this.digitsPerToken + j);
  }
}

/** The tokens that end a text of a model. */
export function endTokensOf(card) {
  return card.end_token_ids ?? (card.end_token_id === null ? [] : [card.end_token_id]);
}
