/**
 * What is known of each token, as the kernel sends it: a record of 32-bit words, read as whole numbers or as floats.
 * `feed.py` writes them and has the same layout.
 */

import { BINS } from "./redistribute.js";

export const LISTED = 20;
export const HEAD_WORDS = 9;
export const RECORD_WORDS = HEAD_WORDS + 2 * BINS + 3 * LISTED;

/**
 * @typedef {Object} Listed a token among the best at its place
 * @property {number} id
 * @property {string} text
 * @property {number} logprob the model's own
 * @property {number} penalty what penalties added to its logit
 *
 * @typedef {Object} Token
 * @property {number} index
 * @property {number} id
 * @property {string} text
 * @property {number} logprob not a number where nothing stands before it
 * @property {number} sampledLogprob not a number where it was not sampled
 * @property {number} penalty
 * @property {number} rank 1 for the most likely
 * @property {number} entropy in nats
 * @property {Settings} settings that it was sampled with
 * @property {Listed[]} listed
 * @property {number} highest logprob that the tail's distances are counted from
 * @property {Float32Array} bins of the tail: pairs of how many tokens, and the sum of their distances
 *
 * @typedef {Object} Settings
 * @property {number} temperature
 * @property {number} top_k
 * @property {number} top_p
 * @property {number} min_p
 */

/** The tokens of one text. */
export class Records {
  constructor() {
    this.count = 0;
    this.ints = new Int32Array(64 * RECORD_WORDS);
    this.floats = new Float32Array(this.ints.buffer);
    /** @type {string[]} */
    this.texts = [];
  }

  /**
   * Put records where they belong; false if some before them are missing.
   * @param {number} first index of the first of them
   * @param {string[]} texts
   * @param {Int32Array} words
   */
  put(first, texts, words) {
    if (first > this.count) return false;
    const count = first + texts.length;
    if (count * RECORD_WORDS > this.ints.length) {
      const grown = new Int32Array(2 * count * RECORD_WORDS);
      grown.set(this.ints);
      this.ints = grown;
      this.floats = new Float32Array(grown.buffer);
    }
    this.ints.set(words, first * RECORD_WORDS);
    texts.forEach((text, i) => (this.texts[first + i] = text));
    this.count = Math.max(this.count, count);
    return true;
  }

  /**
   * @param {number} index
   * @param {Library} library
   * @returns {Token}
   */
  token(index, library) {
    const at = index * RECORD_WORDS;
    const { ints, floats } = this;
    const ids = at + HEAD_WORDS + 2 * BINS;
    const listed = [];
    for (let j = ids; j < ids + ints[at + 7]; j++) {
      listed.push({
        id: ints[j], text: library.text(ints[j]), logprob: floats[j + LISTED], penalty: floats[j + 2 * LISTED],
      });
    }
    return {
      index,
      id: ints[at],
      text: this.texts[index],
      logprob: floats[at + 1],
      sampledLogprob: floats[at + 2],
      penalty: floats[at + 3],
      rank: ints[at + 4],
      entropy: floats[at + 5],
      settings: library.settings[ints[at + 6]],
      listed,
      highest: floats[at + 8],
      bins: floats.subarray(at + HEAD_WORDS, ids),
    };
  }
}

/** What the texts of one view share: the tokens' own texts by id, and the settings that were in force. */
export class Library {
  constructor() {
    /** @type {Map<number, string>} */
    this.words = new Map();
    /** @type {Settings[]} */
    this.settings = [];
  }

  /** @param {number} id */
  text(id) {
    return this.words.get(id) ?? `#${id}`;
  }

  /** @param {{words: [number, string][], settings: Settings[], first_setting: number}} more */
  add(more) {
    for (const [id, text] of more.words) this.words.set(id, text);
    more.settings.forEach((value, i) => (this.settings[more.first_setting + i] = value));
  }
}

/**
 * Words from a message's buffer, which may lie at any address.
 * @param {DataView | ArrayBuffer} buffer
 */
export function readWords(buffer) {
  if (!ArrayBuffer.isView(buffer)) return new Int32Array(buffer);
  return new Int32Array(buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength));
}
