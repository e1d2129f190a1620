/** The live answer: its texts, the card of the token in focus, the controls, and what its reader asks of the kernel. */

import { Branches } from "./branches.js";
import { Card } from "./card.js";
import { WhatIf, drawTintChoice } from "./controls.js";
import { make } from "./dom.js";
import { Pane } from "./pane.js";

const EXACT_AFTER_MS = 150;
const INTERRUPT_AFTER_MS = 350;

/**
 * @typedef {Object} Host what the page offers beside the picture
 * @property {() => any} whatIf settings that are asked from outside; empty if none are
 * @property {(message: any) => void} send to the kernel
 * @property {() => void} interrupt the kernel, if it is busy
 * @property {boolean} [isSaved] it was saved: nobody answers but to a branch
 */

/**
 * Draw a session into an element.
 * @param {HTMLElement} root
 * @param {import("./session.js").Session} session
 * @param {Host} host
 * @returns {() => void} takes the picture away again
 */
export function drawAnswer(root, session, host) {
  /** @type {Map<number, Pane>} */
  const panes = new Map();
  /** @type {{pane: Pane, index: number} | null} */
  let focus = null;
  let [tint, whatIf, exact, marks] = ["probability", null, null, null];
  let [drawnTree, drawnMarks] = ["", null];
  let [exactTimer, interruptTimer, repaintFrame] = [0, 0, 0];

  const stop = make("button", { type: "button", class: "llm-stop", onclick: askToStop }, "■ Stop");
  const status = make("div", { class: "llm-status" });
  const spoken = make("div", { class: "llm-spoken", role: "status", "aria-live": "polite" });
  const problem = make("div", { class: "llm-problem", role: "alert" });
  const controls = new WhatIf((settings) => {
    [whatIf, exact] = [settings, null];
    repaintSoon();
    askForExact();
  });
  const tintChoice = drawTintChoice((name) => {
    tint = name;
    repaintSoon();
  });
  const settle = make("button", {
    type: "button", title: "Leaves text in the place of this view", onclick: () => host.send({ kind: "close" }),
  }, "✕ keep as text");
  const branches = new Branches(session, {
    show: (key) => host.send({ kind: "show", node: key }),
    rename: (key, name) => host.send({ kind: "rename", node: key, name }),
    compare: (key) => host.send({ kind: "compare", node: key }),
  });
  const card = new Card({ branch, close: () => leave(true) });
  const texts = make("div", { class: "llm-texts" });
  const bar = make("div", { class: "llm-bar" }, stop, tintChoice, controls.element, settle);
  root.classList.add("llm-answer");
  root.append(bar, branches.element, texts, status, problem, spoken, card.element);
  const onScroll = (event) => {
    if (focus && !card.element.hidden && !card.element.contains(event.target)) card.place(focus.pane.spans[focus.index]);
  };
  window.addEventListener("scroll", onScroll, true);
  session.listeners.add(hear);
  takeWhatIf(host.whatIf());
  update();
  return () => {
    session.listeners.delete(hear);
    window.removeEventListener("scroll", onScroll, true);
    for (const timer of [exactTimer, interruptTimer]) clearTimeout(timer);
    cancelAnimationFrame(repaintFrame);
    card.hide();
    root.replaceChildren();
  };

  function hear(kind, message) {
    if (kind === "tokens") update();
    else if (kind === "ack") clearTimeout(interruptTimer);
    else if (kind === "exact" && focus?.pane.key === message.node && focus.index === message.index) {
      if (message.request !== requestOf(whatIf) || card.element.hidden) return; // its question is no longer asked
      exact = { probabilities: new Map(message.probabilities), kept: message.kept };
      showCard(card.isPinned);
    } else if (kind === "marks") {
      marks = message.marks && new Map(message.marks.map(([key, indexes]) => [key, new Set(indexes)]));
      branches.compared = message.compared;
      update();
    } else if (kind === "problem") {
      problem.textContent = message.text;
    } else if (kind === "whatIf") {
      takeWhatIf(message);
      repaintSoon();
    }
  }

  function takeWhatIf(asked) {
    exact = null;
    whatIf = Object.keys(asked).length ? asked : null;
    const last = session.library.settings.at(-1);
    if (last) controls.set(last);
    if (whatIf) controls.show(whatIf);
  }

  function update() {
    const wasRunning = root.classList.contains("llm-is-running");
    for (const [key, pane] of panes) {
      if (!session.shown.includes(key)) {
        pane.element.remove();
        panes.delete(key);
        if (focus?.pane === pane) {
          leave(true);
          focus = null;
        }
      }
    }
    for (const key of session.shown) {
      if (!panes.has(key)) panes.set(key, new Pane(session, key, { look, pick, leave }));
      const pane = panes.get(key);
      if (pane.element !== texts.children[session.shown.indexOf(key)]) {
        texts.insertBefore(pane.element, texts.children[session.shown.indexOf(key)] ?? null);
      }
      pane.update(tint, whatIf);
    }
    // a page that does more for each message than it must takes that time from the model
    const tree = JSON.stringify([...session.nodes.values()].map(({ records, count, before, status, ...rest }) => rest));
    if (tree !== drawnTree || marks !== drawnMarks) {
      [drawnTree, drawnMarks] = [tree, marks];
      for (const pane of panes.values()) drawMarks(pane);
      branches.update();
      texts.classList.toggle("llm-single", session.shown.length === 1);
    }
    const lines = statusLines().join("\n");
    if (status.textContent !== lines) status.textContent = lines;
    const { isRunning } = session;
    if (!isRunning) clearTimeout(interruptTimer);
    stop.hidden = !isRunning;
    root.classList.toggle("llm-is-running", isRunning);
    if (wasRunning && !isRunning) spoken.textContent = `done: ${statusLines()[0] ?? ""}`;
    const last = session.library.settings.at(-1);
    if (last && !whatIf && !controls.isActive) controls.set(last);
    settle.hidden = host.isSaved || !session.canBranch;
  }

  function drawMarks(pane) {
    const forks = [...session.nodes.values()].filter((node) => node.parent === pane.key).map((node) => node.index);
    pane.mark("llm-differs", marks?.get(pane.key) ?? new Set());
    pane.mark("llm-fork", new Set(forks));
    pane.mark("llm-forced", new Set([session.nodes.get(pane.key).index]));
  }

  function statusLines() {
    return session.shown.flatMap((key) => session.nodes.get(key)?.status ?? []);
  }

  function look(pane, index) {
    if (card.isPinned) return;
    setFocus(pane, index);
    showCard(false);
    if (whatIf) askForExact();
  }

  function pick(pane, index) {
    setFocus(pane, index);
    showCard(true);
    askForExact();
  }

  function setFocus(pane, index) {
    if (focus && focus.pane !== pane) focus.pane.unfocus();
    [focus, exact] = [{ pane, index }, null];
    pane.focus(index);
  }

  /** @param {boolean} [isFinal] also where the card is pinned */
  function leave(isFinal) {
    if (card.isPinned && !isFinal) return;
    const isReturning = card.isPinned && card.element.contains(document.activeElement);
    card.hide();
    if (isReturning && focus) {
      const { pane, index } = focus;
      pane.box.focus({ preventScroll: true });
      card.hide();
      pane.focus(index);
    }
  }

  function showCard(isPinned) {
    const { pane, index } = focus;
    const active = isPinned && card.element.contains(document.activeElement) ? document.activeElement : null;
    const typed = active?.tagName === "INPUT" ? active.value : "";
    card.show(session.token(pane.key, index), pane.spans[index], whatIf, exact, isPinned, session.canBranch);
    if (!typed) return;
    const input = card.element.querySelector("input");
    input.value = typed;
    input.focus();
  }

  function askForExact() {
    clearTimeout(exactTimer);
    if (!focus || !session.canBranch || session.isRunning || host.isSaved) return;
    const { pane, index } = focus;
    const request = requestOf(whatIf);
    exactTimer = setTimeout(
      () => host.send({ kind: "exact", node: pane.key, index, settings: whatIf, request }), EXACT_AFTER_MS,
    );
  }

  function branch(choice) {
    const { pane, index } = focus;
    leave(true);
    problem.textContent = "";
    host.send({ kind: "branch", node: pane.key, index, ...choice });
  }

  function askToStop() {
    host.send({ kind: "stop" });
    clearTimeout(interruptTimer);
    // where messages wait for the cell to end; what runs beside a branch is none of its business
    const isCell = [...session.nodes.values()].some((node) => node.is_running && node.parent === null);
    if (isCell) interruptTimer = setTimeout(host.interrupt, INTERRUPT_AFTER_MS);
  }

  function repaintSoon() {
    cancelAnimationFrame(repaintFrame);
    const work = [() => focus && !card.element.hidden && showCard(card.isPinned)];
    for (const pane of panes.values()) work.push(...pane.repaint(tint, whatIf));
    const goOn = () => {
      work.shift()();
      if (work.length) repaintFrame = requestAnimationFrame(goOn);
    };
    repaintFrame = requestAnimationFrame(goOn);
  }
}

/** Names a question, so that a late answer to another one is not taken for its own. */
function requestOf(settings) {
  return JSON.stringify(settings);
}
