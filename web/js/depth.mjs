// @ts-check
// Depth as the browser has it: values and what they mean, colours, histogram, numbers for people. No DOM here.

/**
 * What the node tells of one picture of a depth.
 * @typedef {object} Told
 * @property {number} width
 * @property {number} height
 * @property {[number, number]} full width and height of the depth itself
 * @property {"metric" | "affine_inverse" | "affine_depth" | "ordinal"} kind
 * @property {string} unit
 * @property {string} source
 * @property {number} low the value that is 0 in relative depth
 * @property {number} high the value that is 1
 * @property {number | null} focal in pixels of this width
 * @property {number} picture
 * @property {number} pictures
 * @property {FileName} values
 * @property {FileName} [photo]
 */

/** @typedef {{filename: string, subfolder: string, type: string}} FileName */
/** @typedef {"relative" | "metres"} Space */

/** Metres that stand for infinitely far, the most that the node's widgets take. */
const FAR_AWAY = 1e6;

/** One picture of a depth: larger values are closer, NaN is not valid. */
export class Depth {
  /**
   * @param {Told} told
   * @param {Float32Array} values
   */
  constructor(told, values) {
    if (values.length !== told.width * told.height)
      throw new Error(`expected ${told.width * told.height} values, got ${values.length}`);
    this.told = told;
    this.values = values;
    this.range = Math.max(told.high - told.low, 1e-12);
  }

  get hasMetres() {
    return this.told.kind === "metric";
  }

  /** The place of a value between the farthest (0) and the closest (1). @param {number} value */
  share(value) {
    return (value - this.told.low) / this.range;
  }

  /** The value at a place between the farthest (0) and the closest (1). @param {number} share */
  atShare(share) {
    return this.told.low + share * this.range;
  }

  /** A value as the node's widgets count. @param {number} value @param {Space} space */
  toSpace(value, space) {
    if (space === "relative") return Number(this.share(value).toFixed(4));
    return value > 1 / FAR_AWAY ? Number((1 / value).toPrecision(5)) : FAR_AWAY;
  }

  /** A number of the node's widgets as a value. @param {number} number @param {Space} space */
  fromSpace(number, space) {
    if (space === "relative") return this.atShare(number);
    return number > 0 ? 1 / number : Number.POSITIVE_INFINITY;
  }

  /** A value in the depth's own unit, for people. @param {number} value */
  text(value) {
    if (Number.isNaN(value)) return "not measured";
    if (this.hasMetres) return value > 1 / FAR_AWAY ? `${short(1 / value)} m` : "∞";
    return short(value);
  }

  /** The depth's unit, for people. */
  get unit() {
    return { metric: "metres", affine_inverse: "a/z + b", affine_depth: "b − a·z", ordinal: "order only" }[this.told.kind];
  }

  /** Marks for the legend: [share, text], at round numbers of the depth's own unit. @returns {[number, string][]} */
  ticks() {
    const { low, high } = this.told;
    const marks = this.hasMetres ? roundMetres(low, high) : roundValues(low, high);
    return marks.map((value) => [this.share(value), this.hasMetres ? `${short(1 / value)} m` : short(value)]);
  }

  /** How many pixels lie in each of `bins` even stretches from farthest to closest. @param {number} bins */
  histogram(bins) {
    const counts = new Uint32Array(bins);
    for (const value of this.values) {
      if (Number.isNaN(value)) continue;
      const bin = Math.floor(this.share(value) * bins);
      counts[Math.min(bins - 1, Math.max(0, bin))]++;
    }
    return counts;
  }

  /**
   * The picture in false colour, RGBA; what lies outside of the band is darkened, what is not valid is black.
   * @param {Uint8ClampedArray} table 256 colours, RGB
   * @param {number} least the value of the band's far end
   * @param {number} most that of its near end
   */
  colours(table, least, most) {
    const rgba = new Uint8ClampedArray(this.values.length * 4);
    const slack = this.range * 1e-6;
    for (let i = 0, at = 0; i < this.values.length; i++, at += 4) {
      const value = this.values[i];
      rgba[at + 3] = 255;
      if (Number.isNaN(value)) continue;
      const entry = Math.round(Math.min(1, Math.max(0, this.share(value))) * 255) * 3;
      const light = value >= least - slack && value <= most + slack ? 1 : 0.25;
      rgba[at] = table[entry] * light;
      rgba[at + 1] = table[entry + 1] * light;
      rgba[at + 2] = table[entry + 2] * light;
    }
    return rgba;
  }
}

/** 256 colours (RGB) from a palette's stops, farthest first. @param {string[]} stops */
export function colourTable(stops) {
  const table = new Uint8ClampedArray(256 * 3);
  const rgb = stops.map((stop) => [0, 2, 4].map((at) => Number.parseInt(stop.slice(at, at + 2), 16)));
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (rgb.length - 1);
    const below = Math.min(Math.floor(place), rgb.length - 2);
    for (let c = 0; c < 3; c++) {
      const [one, other] = [rgb[below][c], rgb[below + 1][c]];
      table[i * 3 + c] = one + (other - one) * (place - below);
    }
  }
  return table;
}

/** Three digits. @param {number} number */
function short(number) {
  return String(Number(number.toPrecision(3)));
}

/** @param {number} low @param {number} high */
function roundMetres(low, high) {
  /** @type {number[]} */
  const marks = [];
  for (let power = -2; power <= 5; power++)
    for (const digit of [1, 2, 3, 5]) {
      const value = 1 / (digit * 10 ** power);
      if (value >= low && value <= high) marks.push(value);
    }
  return marks;
}

/** @param {number} low @param {number} high */
function roundValues(low, high) {
  const rough = (high - low) / 5;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((s) => s >= rough) ?? 10 * power;
  /** @type {number[]} */
  const marks = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at++) marks.push(at * step);
  return marks;
}
