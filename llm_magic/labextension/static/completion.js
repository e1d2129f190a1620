/** Ghost text in cells: asks the model in the notebook's own kernel, once that was switched on. */

import { openComm } from "./branching.js";

const TARGET = "llm_magic.complete"; // `ghost/page.py` has the other end
const SENT_CHARACTERS = 20000; // of the cells above; the kernel cuts them to its budget
const ASKED_AGAIN_AFTER_MS = 3000; // of a kernel that has no llm_magic: it may be loaded at any time
const PYTHON_MAGICS = /^%%(time|timeit|prun|capture|debug)\b/;

/** One page's comm to one kernel. The latest question is answered, never a queue. */
class Link {
  /** @param {() => void} [hearClose] */
  constructor(comm, hearClose) {
    this.comm = comm;
    this.page = crypto.getRandomValues(new Uint32Array(2)).join("-"); // others may ask on the same comm
    this.number = 0;
    /** @type {{id: string, replies: {text: string, is_done: boolean}[], wake: () => void} | null} */
    this.asked = null;
    comm.onMsg = ({ content: { data } }) => {
      if (data.id !== this.asked?.id) return;
      this.asked.replies.push(data);
      this.asked.wake();
    };
    comm.onClose = () => {
      this.#endAsked();
      hearClose?.();
    };
  }

  get isOpen() {
    return !this.comm.isDisposed;
  }

  /** @returns {string} a token for `read` */
  ask(request) {
    this.#endAsked();
    const id = `${this.page}-${++this.number}`;
    this.asked = { id, replies: [], wake() {} };
    this.comm.send({ id, ...request });
    return id;
  }

  /** The text as it grows. @param {string} id */
  async *read(id) {
    const asked = this.asked;
    while (asked?.id === id) {
      for (const reply of asked.replies.splice(0)) {
        yield reply;
        if (reply.is_done) return;
      }
      await new Promise((wake) => (asked.wake = wake));
    }
  }

  #endAsked() {
    const asked = this.asked;
    this.asked = null;
    asked?.replies.push({ text: "", is_done: true });
    asked?.wake();
  }
}

/** The links of all kernels: those that kernels have opened, and those that the setting asks for. */
export class Links {
  constructor() {
    /** @type {WeakMap<any, Link>} */
    this.known = new WeakMap();
    /** @type {WeakMap<any, number>} when kernels that have no llm_magic, or no longer, may be asked again */
    this.askAgainAt = new WeakMap();
  }

  /** Be there for what a kernel switches on, now or before this page was opened. */
  async attach(kernel) {
    kernel.registerCommTarget(TARGET, (comm) => {
      this.known.set(kernel, new Link(comm));
    });
    const reply = await kernel.requestCommInfo({ target_name: TARGET });
    const [id] = Object.keys(reply.content.comms ?? {});
    if (id && !kernel.hasComm(id)) this.known.set(kernel, new Link(kernel.createComm(TARGET, id)));
  }

  /** @param {boolean} isWanted by the setting, whatever the kernel has said */
  async get(kernel, isWanted) {
    const link = this.known.get(kernel);
    if (link?.isOpen) return link;
    if (!isWanted || Date.now() < (this.askAgainAt.get(kernel) ?? 0)) return null;
    const putOff = () => this.askAgainAt.set(kernel, Date.now() + ASKED_AGAIN_AFTER_MS);
    putOff(); // whoever types on meanwhile opens no second one
    const made = new Link(await openComm(kernel, TARGET, {}), putOff);
    this.known.set(kernel, made);
    return made;
  }
}

/** JupyterLab asks it at each pause of typing. */
export class Provider {
  /** @param {Links} links */
  constructor(links) {
    this.links = links;
    this.name = "llm_magic (the model in the notebook's kernel)";
    this.identifier = "llm-magic";
    this.settings = this.schema.default;
    /** @type {{token: string, replies: AsyncGenerator<{text: string, is_done: boolean}>} | null} */
    this.growing = null;
  }

  get schema() {
    return {
      properties: {
        startAutomatically: {
          title: "In every notebook", type: "boolean",
          description: "Also where %llm complete on was not said; the kernel needs %load_ext llm_magic.",
        },
        maxTokens: { title: "Tokens", type: "number", minimum: 1, maximum: 256 },
        maxLines: { title: "Lines", type: "number", minimum: 1, maximum: 20 },
        contextTokens: { title: "Context", type: "number", description: "Tokens of the cells above.", minimum: 16 },
        leastProbability: {
          title: "Least probability", type: "number", minimum: 0, maximum: 1,
          description: "The text ends before a token that the model finds less likely.",
        },
      },
      default: {
        enabled: true, timeout: 5000, debouncerDelay: 150, autoFillInMiddle: false,
        startAutomatically: false, maxTokens: 24, maxLines: 1, contextTokens: 500, leastProbability: 0.1,
      },
    };
  }

  configure(settings) {
    this.settings = { ...this.schema.default, ...settings };
  }

  async fetch(request, context) {
    const none = { items: [] };
    const kernel = context.session?.kernel;
    const [before, after] = [request.text.slice(0, request.offset), request.text.slice(request.offset)];
    if (!kernel || !before.trim() || (before.startsWith("%%") && !PYTHON_MAGICS.test(before))) return none;
    const { settings } = this;
    const link = await this.links.get(kernel, settings.startAutomatically);
    if (!link) return none;
    const token = link.ask({
      before, after, cells: readCellsAbove(context), max_tokens: settings.maxTokens, max_lines: settings.maxLines,
      context_tokens: settings.contextTokens, least_probability: settings.leastProbability,
    });
    // an empty text that waits for more would take the Tab key already
    const replies = link.read(token);
    const { value: first } = await replies.next();
    if (!first?.text) return none;
    this.growing = { token, replies };
    return { items: [{ insertText: first.text, token, isIncomplete: !first.is_done }] };
  }

  async *stream(token) {
    if (this.growing?.token !== token) return; // somebody has typed on
    for await (const { text, is_done: isDone } of this.growing.replies) {
      yield { response: { insertText: text, token, isIncomplete: !isDone } };
    }
  }
}

/** The code cells above the one that is written in, the last ones up to a limit. */
function readCellsAbove(context) {
  const cells = context.widget?.content?.widgets ?? [];
  const here = cells.findIndex((cell) => cell.editor && cell.editor === context.editor);
  const texts = [];
  let left = SENT_CHARACTERS;
  for (let i = here - 1; i >= 0 && left > 0; i--) {
    if (cells[i].model.type !== "code") continue;
    const text = cells[i].model.sharedModel.getSource();
    left -= text.length;
    if (left > 0) texts.unshift(text);
  }
  return texts;
}
