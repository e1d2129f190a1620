/** One view's data: its texts (a tree of branches, or samples side by side), filled by messages in any number of parts. */

import { Library, RECORD_WORDS, Records, readWords } from "./records.js";

/**
 * @typedef {Object} TextNode
 * @property {number} key
 * @property {string} name
 * @property {number | null} parent the text that it branches from
 * @property {number | null} index the token that it puts in another's place
 * @property {number} count how many tokens were sent
 * @property {string} before the text that it continues, if any
 * @property {string[]} status
 * @property {[number, string][]} [problems] tokens of code that is wrong, and why
 * @property {boolean} is_running
 * @property {Records} records
 */

export class Session {
  constructor() {
    this.library = new Library();
    /** @type {Map<number, TextNode>} */
    this.nodes = new Map();
    /** @type {number[]} keys of the texts that are shown */
    this.shown = [];
    this.canBranch = false;
    /** @type {Set<(kind: string, message: any) => void>} */
    this.listeners = new Set();
  }

  get isRunning() {
    return [...this.nodes.values()].some((node) => node.is_running);
  }

  /**
   * Take in a message of tokens. Returns the keys of texts of which records before these are missing.
   * @param {any} message
   * @param {DataView | ArrayBuffer} buffer
   */
  ingest(message, buffer) {
    this.library.add(message);
    for (const { key, ...values } of message.nodes) {
      const node = this.nodes.get(key) ?? { key, records: new Records() };
      this.nodes.set(key, Object.assign(node, values));
    }
    for (const key of this.nodes.keys()) if (!message.keys.includes(key)) this.nodes.delete(key);
    if (message.shown) this.shown = message.shown;
    this.canBranch = message.can_branch;
    const words = readWords(buffer);
    const missing = new Set();
    let at = 0;
    for (const { node, first, texts } of message.parts) {
      const end = at + texts.length * RECORD_WORDS;
      if (!this.nodes.get(node).records.put(first, texts, words.subarray(at, end))) missing.add(node);
      at = end;
    }
    for (const { key, count } of message.nodes) if (this.nodes.get(key).records.count < count) missing.add(key);
    this.tell("tokens", message);
    return [...missing];
  }

  /** @param {string} kind */
  tell(kind, message) {
    for (const listener of this.listeners) listener(kind, message);
  }

  /** @param {number} key @param {number} index */
  token(key, index) {
    return this.nodes.get(key).records.token(index, this.library);
  }
}
