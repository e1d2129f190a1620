/** The live answer as a Jupyter widget. */

import { drawAnswer } from "./answer.js";
import { Session } from "./session.js";

const GREETED_AFTER_MS = [0, 60, 120, 250, 500, 1000];

/** One session a model, whatever the number of its views. @type {Map<string, Session>} */
const sessions = new Map();

function sessionOf(model) {
  const key = model.get("session");
  if (!sessions.has(key)) sessions.set(key, new Session());
  return sessions.get(key);
}

/** Messages are heard from here on: those before were lost, and are made good by snapshots. */
function initialize({ model }) {
  const session = sessionOf(model);
  const takeSnapshot = () => {
    const header = model.get("header");
    if (header?.parts) session.ingest(header, model.get("snapshot"));
  };
  // a page's first words may be kept until the cell has ended: a subshell for them is only being made
  const page = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const timers = GREETED_AFTER_MS.map((ms) => setTimeout(() => model.send({ kind: "ready", page }), ms));
  const endGreeting = () => timers.forEach(clearTimeout);
  const hear = (message, buffers) => {
    if (message.kind === "heard") {
      if (message.page === page) endGreeting();
    } else if (message.kind !== "tokens") session.tell(message.kind, message);
    else if (session.ingest(message, buffers[0]).length) model.send({ kind: "resend" });
  };
  const hearWhatIf = () => session.tell("whatIf", model.get("what_if"));
  model.on("change:header", takeSnapshot); // it differs each time; the snapshot is set with it
  model.on("msg:custom", hear);
  model.on("change:what_if", hearWhatIf);
  takeSnapshot();
  return () => {
    endGreeting();
    model.off("change:header", takeSnapshot);
    model.off("msg:custom", hear);
    model.off("change:what_if", hearWhatIf);
    sessions.delete(model.get("session"));
  };
}

function render({ model, el }) {
  return drawAnswer(el, sessionOf(model), {
    whatIf: () => model.get("what_if"),
    send: (message) => model.send(message),
    interrupt() {
      const kernel = model.widget_manager?.kernel; // of JupyterLab and Notebook
      if (kernel?.status === "busy") kernel.interrupt();
    },
  });
}

export default { initialize, render };
