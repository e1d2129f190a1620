/** Going on from a token of a saved answer: asks the notebook's kernel for a live view of it. */

const TARGET = "llm_magic.branch";
const SUBSHELL_WITHIN_MS = 500;
const HOW = "run %load_ext llm_magic and this cell again, and take the token then";

/** Set by the extension's plugin. @type {{tracker: any}} */
export const places = { tracker: null };

/** The notebook that an element stands in. @param {HTMLElement} element */
export function findPanel(element) {
  return places.tracker?.find((panel) => panel.node.contains(element));
}

/** A comm to a kernel, open once messages on it can be heard while a cell runs. */
export async function openComm(kernel, target, data) {
  const comm = kernel.createComm(target);
  if (comm.subshellStarted && kernel.supportsSubshells && comm.commsOverSubshells !== "disabled") {
    await Promise.race([comm.subshellStarted, new Promise((go) => setTimeout(go, SUBSHELL_WITHIN_MS))]);
  }
  comm.open(data);
  return comm;
}

export class Branching {
  /**
   * @param {any} kernel of the notebook, if it has one
   * @param {(bundle: any) => void} keep what is left of the live view, by MIME types, when it is closed
   */
  constructor(kernel, keep) {
    this.kernel = kernel;
    this.keep = keep;
    this.comm = null;
    this.isClosed = false;
  }

  /**
   * A live view of the saved text with this key, branched at one of its tokens; an error says what is missing for it.
   * @returns {Promise<{mime: string, data: any}>}
   */
  async start(request) {
    if (!this.kernel) throw new Error(`a branch needs a kernel: choose one, then ${HOW}`);
    const comm = (this.comm = await openComm(this.kernel, TARGET, request));
    return new Promise((done, fail) => {
      comm.onMsg = ({ content: { data } }) => {
        if (data.kind === "view") done(data);
        else if (data.kind === "problem") fail(new Error(data.text));
        else if (data.kind === "kept" && !this.isClosed) this.keep(data.bundle);
      };
      comm.onClose = () => fail(new Error(`this kernel has no llm_magic: ${HOW}`));
    });
  }

  close() {
    this.isClosed = true;
    if (this.comm && !this.comm.isDisposed && !this.kernel.isDisposed) this.comm.close();
  }
}
