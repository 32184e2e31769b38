// @ts-check
// Depth as the browser has it: values and what they mean, colours, histogram, numbers for people. No DOM here.

/**
 * What the node tells of one picture of a depth.
 * @typedef {object} Told
 * @property {number} width
 * @property {number} height
 * @property {[number, number]} full width and height of the depth itself
 * @property {"metric" | "affine_inverse" | "scale_inverse" | "affine_depth" | "ordinal"} kind
 * @property {string} unit
 * @property {string} source
 * @property {number} low the value that is 0 in relative depth
 * @property {number} high the value that is 1
 * @property {number | null} focal in pixels of this width
 * @property {number} picture
 * @property {number} pictures
 * @property {FileName} values of this picture, or of all `frames` one after the other
 * @property {[number, number, number, number | null][]} [frames] place in the batch, low, high and focal of each
 * @property {FileName} [photo] JPEG files, one after the other
 * @property {number[]} [photos] where each of them ends
 * @property {Record<string, number>} [chosen] what near, far, focus and softness were in the run
 */

/** @typedef {{filename: string, subfolder: string, type: string}} FileName */
/** @typedef {"relative" | "metres"} Space */
/**
 * What the mask is cut from: the values of the band's far and near end, and how the node's widgets soften it.
 * @typedef {{least: number, most: number, softness: number, space: Space}} Band
 */

/** How many times as far as the closest point the axis of metres reaches. */
const MOST_TIMES = 300;
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
    // The axis of metres is logarithmic: on an even one of 1/z, what is far has no room. Sky would take it all.
    const least = told.kind === "metric" ? Math.max(told.low, told.high / MOST_TIMES) : 0;
    this.ends = least > 0 && told.high > least ? [Math.log(least), Math.log(told.high)] : null;
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

  /** The place of a value on the axis, 0 at its far end to 1. @param {number} value */
  onAxis(value) {
    if (!this.ends) return this.share(value);
    const [least, most] = this.ends;
    return value > 0 ? (Math.log(value) - least) / (most - least) : 0;
  }

  /** The value at a place on the axis. The far end of an axis of metres is the farthest pixel. @param {number} at */
  fromAxis(at) {
    if (!this.ends) return this.atShare(at);
    if (at <= 0) return this.told.low;
    return Math.exp(this.ends[0] + at * (this.ends[1] - this.ends[0]));
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

  /** A value in the depth's own unit, for people; "" where nothing was measured. @param {number} value */
  text(value) {
    if (Number.isNaN(value)) return "";
    if (this.hasMetres) return value > 1 / FAR_AWAY ? `${short(1 / value)} m` : "∞";
    return short(value);
  }

  /** Marks for the axis, [place, text], as the node's widgets count. @param {Space} space @returns {[number, string][]} */
  ticks(space) {
    if (space === "metres" && this.hasMetres)
      return roundMetres(this.told.low, this.told.high).map((value) => [this.onAxis(value), `${short(1 / value)} m`]);
    return Array.from({ length: 11 }, (_, i) => [this.onAxis(this.atShare(i / 10)), String(i / 10)]);
  }

  /** How many pixels lie in each of `bins` even stretches of the axis, from its far end. @param {number} bins */
  histogram(bins) {
    const counts = new Uint32Array(bins);
    for (const value of this.values) {
      if (Number.isNaN(value)) continue;
      const bin = Math.floor(this.onAxis(value) * bins);
      counts[Math.min(bins - 1, Math.max(0, bin))]++;
    }
    return counts;
  }

  /**
   * How much a value lies in the band, 0 to 1, as the node's mask has it.
   * @param {number} value
   * @param {Band} band
   */
  weight(value, { least, most, softness, space }) {
    const slack = this.range * 1e-6;
    if (value >= least - slack && value <= most + slack) return 1;
    if (!(softness > 0)) return 0;
    const [at, end] = [this.toSpace(value, space), this.toSpace(value < least ? least : most, space)];
    return Math.max(0, 1 - Math.abs(at - end) / softness);
  }

  /** The pixel closest to the middle of those nearest to a value. @param {number} value */
  find(value) {
    const { width, height } = this.told;
    let [best, least] = [-1, Number.POSITIVE_INFINITY];
    for (let i = 0; i < this.values.length; i++) {
      if (Number.isNaN(this.values[i])) continue;
      const away = Math.hypot((i % width) / width - 0.5, Math.floor(i / width) / height - 0.5);
      const miss = Math.abs(this.values[i] - value) / this.range + away * 0.01;
      if (miss < least) [best, least] = [i, miss];
    }
    return best < 0 ? null : { across: ((best % width) + 0.5) / width, down: (Math.floor(best / width) + 0.5) / height };
  }

  /** The mask of a band, RGBA. @param {Band} band */
  mask(band) {
    const rgba = new Uint8ClampedArray(this.values.length * 4);
    for (let i = 0, at = 0; i < this.values.length; i++, at += 4) {
      const value = this.values[i];
      rgba.fill(Number.isNaN(value) ? 0 : this.weight(value, band) * 255, at, at + 3);
      rgba[at + 3] = 255;
    }
    return rgba;
  }

  /**
   * The picture in false colour, RGBA; what lies outside of the band is darkened, what is not valid is black.
   * @param {Uint8ClampedArray} table 256 colours, RGB
   * @param {Band | null} band null = all of it
   */
  colours(table, band) {
    const rgba = new Uint8ClampedArray(this.values.length * 4);
    for (let i = 0, at = 0; i < this.values.length; i++, at += 4) {
      const value = this.values[i];
      rgba[at + 3] = 255;
      if (Number.isNaN(value)) continue;
      const entry = Math.round(Math.min(1, Math.max(0, this.share(value))) * 255) * 3;
      const light = band ? 0.25 + 0.75 * this.weight(value, band) : 1;
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
