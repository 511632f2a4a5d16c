// How an image model's canvas is painted, as the server paints it: a pixel has the mean of the colours that its digits leave.

const OPAQUE = 255;
const CHANNELS = { 1: ["colour"], 2: ["first half", "second half"], 3: ["red", "green", "blue"] };

export class Paint {
  #means = new Map();

  /** For a card. `codes` is there where a class's digits are not those of its id. */
  constructor({ image, base, sub_tokens_per_token: digits, codes = null }, classes) {
    Object.assign(this, image, { base, digits, codes, classes });
    this.pixels = image.height * image.width;
    this.channelNames = CHANNELS[image.channels];
  }

  /** The digits of a token id, the most significant first. */
  codeOf(id) {
    const code = this.codes ? this.codes[id] : id;
    return Array.from({ length: this.digits }, (_, j) => Math.floor(code / this.base ** (this.digits - 1 - j)) % this.base);
  }

  /** How many classes digits leave; null stands for a digit that is not known. */
  classesLeft(digits) {
    return this.#classesOf(digits).length;
  }

  /** The colour of a pixel, [red, green, blue, alpha] in bytes, from the digits of its channels. */
  colourOf(channels) {
    const sum = [0, 0, 0, this.palette ? 0 : OPAQUE];
    channels.forEach((digits, channel) => this.#meanOf(channel, digits).forEach((part, i) => (sum[i] += part)));
    return sum.map((part) => Math.floor(part + 0.5));
  }

  /** The token ids of a pixel with a colour; what no palette has becomes the nearest in OKLab. */
  tokensOf([red, green, blue, alpha]) {
    if (this.channels === 3) return [red, green, blue];
    if (this.channels === 2) return [(red << 4) | (green >> 4), ((green & 15) << 8) | blue];
    if (!this.palette) return [Math.round(0.2126 * red + 0.7152 * green + 0.0722 * blue)];
    const wanted = oklab([red, green, blue, alpha]);
    this.lab ??= this.palette.map(oklab);
    const distances = this.lab.map((each) => each.reduce((sum, part, i) => sum + (part - wanted[i]) ** 2, 0));
    return [distances.indexOf(Math.min(...distances))];
  }

  #meanOf(channel, digits) {
    const key = `${channel}:${digits.join()}`;
    if (!this.#means.has(key)) {
      const parts = this.#classesOf(digits).map((id) => this.#contribution(channel, id));
      this.#means.set(key, [0, 1, 2, 3].map((i) => parts.reduce((sum, part) => sum + part[i], 0) / Math.max(1, parts.length)));
    }
    return this.#means.get(key);
  }

  #classesOf(digits) {
    const ids = Array.from({ length: this.classes }, (_, id) => id);
    return ids.filter((id) => this.codeOf(id).every((digit, j) => digits[j] === null || digits[j] === digit));
  }

  /** What a token adds to the colour of its pixel. */
  #contribution(channel, id) {
    if (this.palette) return this.palette[id];
    if (this.channels === 1) return [id, id, id, 0];
    if (this.channels === 2) return channel ? [0, id >> 8, id & 255, 0] : [id >> 4, (id & 15) << 4, 0, 0];
    return [0, 1, 2, 3].map((i) => (i === channel ? id : 0));
  }
}

/** A colour for a stylesheet. */
export const cssColour = ([red, green, blue, alpha]) => `rgb(${red} ${green} ${blue} / ${alpha / 255})`;

// https://bottosson.github.io/posts/oklab/; lightness and colour are multiplied by alpha, which is a fourth coordinate
function oklab([red, green, blue, alpha]) {
  const [r, g, b] = [red, green, blue].map((byte) => byte / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  const [l, m, s] = [
    0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b,
    0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b,
    0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b,
  ].map((cone) => Math.cbrt(Math.max(0, cone)));
  const lab = [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s,
  ];
  return [...lab.map((part) => (part * alpha) / 255), alpha / 255];
}
