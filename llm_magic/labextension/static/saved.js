/** What is saved of an answer, read into a session. `bundle.py` describes the format, and writes it. */

import { LISTED, HEAD_WORDS, RECORD_WORDS, Records } from "./script/records.js";
import { BINS } from "./script/redistribute.js";
import { Session } from "./script/session.js";

export const MIME = "application/vnd.llm-magic.tokens+json";
const VERSION = 1;
const [NO_LOGPROB, NOT_SAMPLED] = [1, 2];

/**
 * Throws an error that says why, where the data is none of this format, or of a later version of it.
 * @param {any} data
 * @returns {Session}
 */
export function readSaved(data) {
  if (!Number.isInteger(data?.version)) throw new Error("these are no tokens that llm_magic has saved");
  if (data.version > VERSION) {
    throw new Error(`this was saved by a later llm_magic (format ${data.version}, here ${VERSION}): update llm_magic`);
  }
  const session = new Session();
  session.canBranch = typeof data.key === "string";
  session.library.add({ words: data.words.map(([id, text]) => [Number(id), String(text)]), settings: data.settings, first_setting: 0 });
  const bytes = Uint8Array.from(atob(data.records), (character) => character.charCodeAt(0));
  const reader = new Reader(new DataView(bytes.buffer));
  data.texts.forEach((text, key) => {
    const tokens = text.tokens.map(String);
    const ints = new Int32Array(tokens.length * RECORD_WORDS);
    const floats = new Float32Array(ints.buffer);
    for (let i = 0; i < tokens.length; i++) readRecord(reader, ints, floats, i * RECORD_WORDS, data.settings.length);
    const records = new Records();
    records.put(0, tokens, ints);
    session.nodes.set(key, {
      key, records, name: String(text.name), parent: null, index: null, count: tokens.length,
      before: String(text.before), status: text.status.map(String), is_running: false,
      problems: (text.problems ?? []).map(([index, problem]) => [Number(index), String(problem)]),
    });
    session.shown.push(key);
  });
  if (reader.at !== bytes.length) throw new Error("the saved tokens and their figures are not of one length");
  return session;
}

/** One token's figures, from the bytes that are saved to the words that views read. */
function readRecord(reader, ints, floats, at, nSettings) {
  const [id, rank, setting] = [reader.u32(), reader.u32(), reader.i16()];
  const [n, flags] = [reader.u8(), reader.u8()];
  const [logprob, sampled, penalty, entropy, highest] = [reader.f32(), reader.f32(), reader.f16(), reader.f16(), reader.f32()];
  let mask = reader.u32();
  if (n > LISTED || setting >= nSettings) throw new Error("a saved token's figures are out of range");
  ints[at] = id;
  floats[at + 1] = flags & NO_LOGPROB ? NaN : logprob;
  floats[at + 2] = flags & NOT_SAMPLED ? NaN : sampled;
  floats[at + 3] = penalty;
  ints[at + 4] = rank;
  floats[at + 5] = entropy;
  ints[at + 6] = setting;
  ints[at + 7] = n;
  floats[at + 8] = highest;
  const ids = at + HEAD_WORDS + 2 * BINS;
  for (let j = 0; j < n; j++) ints[ids + j] = reader.u24();
  for (let j = 0; j < n; j++) floats[ids + LISTED + j] = reader.f16();
  for (let j = 0; mask; j++, mask >>>= 1) if (mask & 1) floats[ids + 2 * LISTED + j] = reader.f16();
  const bins = at + HEAD_WORDS;
  for (let j = 0; j < BINS; j++) floats[bins + 2 * j] = Math.round(reader.f16() ** 2);
  for (let j = 0; j < BINS; j++) floats[bins + 2 * j + 1] = reader.f16() * floats[bins + 2 * j];
}

/** Little-endian numbers, one after the other; a RangeError behind the last. */
class Reader {
  /** @param {DataView} view */
  constructor(view) {
    this.view = view;
    this.at = 0;
  }

  #next(bytes) {
    this.at += bytes;
    return this.at - bytes;
  }

  u8 = () => this.view.getUint8(this.#next(1));
  i16 = () => this.view.getInt16(this.#next(2), true);
  u24 = () => this.u8() | (this.u8() << 8) | (this.u8() << 16);
  u32 = () => this.view.getUint32(this.#next(4), true);
  f32 = () => this.view.getFloat32(this.#next(4), true);

  /** Half precision (IEEE 754 binary16). */
  f16() {
    const bits = this.view.getUint16(this.#next(2), true);
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
    return bits & 0x8000 ? -size : size;
  }
}
