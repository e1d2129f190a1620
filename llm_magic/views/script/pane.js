/** One text: a span a token, of which one at a time is in focus; one stop for the Tab key, arrows go from token to token. */

import { make } from "./dom.js";
import { displayText, paint } from "./heat.js";

const REPAINTED_AT_ONCE = 250;
let count = 0;

export class Pane {
  /**
   * @param {import("./session.js").Session} session
   * @param {number} key of the text
   * @param {{look: (pane: Pane, index: number) => void, pick: (pane: Pane, index: number) => void, leave: () => void}} hear
   */
  constructor(session, key, hear) {
    this.session = session;
    this.key = key;
    this.hear = hear;
    this.name = `llm-pane-${++count}`;
    this.focused = -1;
    /** @type {HTMLElement[]} */
    this.spans = [];
    /** @type {import("./records.js").Token[]} those that were painted anew already */
    this.tokens = [];
    const node = session.nodes.get(key);
    this.heading = make("div", { class: "llm-heading" }, node.name);
    this.before = make("span", { class: "llm-before" }, node.before);
    this.box = make("div", {
      class: "llm-text", role: "listbox", tabindex: 0,
      "aria-label": `${node.name}: tokens; arrow keys go through them, Enter shows alternatives`,
      onpointerover: (event) => this.#reach(event, hear.look),
      onclick: (event) => this.#reach(event, hear.pick),
      onpointerleave: () => hear.leave(),
      onfocus: () => this.spans.length && hear.look(this, Math.max(0, this.focused)),
      onkeydown: (event) => this.#press(event),
    }, this.before);
    this.element = make("div", { class: "llm-pane" }, this.heading, this.box);
  }

  /** Add spans for tokens that came, and show the node's state. */
  update(tint, whatIf) {
    const node = this.session.nodes.get(this.key);
    if (this.heading.textContent !== node.name) this.heading.textContent = node.name;
    this.element.classList.toggle("llm-running", node.is_running);
    const added = document.createDocumentFragment();
    for (let i = this.spans.length; i < node.records.count; i++) {
      const token = node.records.token(i, this.session.library);
      const span = make("span", { class: "llm-token", role: "option", id: `${this.name}-${i}` }, displayText(token.text));
      span.dataset.index = String(i);
      paint(span, token, tint, whatIf);
      this.spans.push(span);
      added.append(span);
    }
    this.box.append(added);
    const last = node.records.count - 1; // a character may have been completed later
    if (last >= 0) this.spans[last].textContent = displayText(node.records.texts[last]);
    for (const [index, text] of node.problems ?? []) {
      this.spans[index]?.classList.add("llm-wrong");
      this.spans[index]?.setAttribute("title", text);
    }
  }

  /**
   * Work that paints all tokens anew, in pieces that a frame has time for: those in sight come first.
   * @returns {(() => void)[]}
   */
  repaint(tint, whatIf) {
    const seen = this.#firstInSight();
    const starts = [];
    for (let i = seen; i < this.spans.length; i += REPAINTED_AT_ONCE) starts.push(i);
    for (let i = seen - REPAINTED_AT_ONCE; i > -REPAINTED_AT_ONCE; i -= REPAINTED_AT_ONCE) starts.push(i);
    return starts.map((start) => () => {
      const end = Math.min(start + REPAINTED_AT_ONCE, this.spans.length);
      for (let i = Math.max(0, start); i < end; i++) {
        this.tokens[i] ??= this.session.token(this.key, i);
        paint(this.spans[i], this.tokens[i], tint, whatIf);
      }
    });
  }

  #firstInSight() {
    let [low, high] = [0, this.spans.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.spans[middle].getBoundingClientRect().bottom < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Mark tokens, of those that differ from another text, or where it branches. @param {string} mark a class */
  mark(mark, indexes) {
    this.spans.forEach((span, i) => span.classList.toggle(mark, indexes.has(i)));
  }

  /** @param {number} index */
  focus(index) {
    this.unfocus();
    this.focused = index;
    const span = this.spans[index];
    span.classList.add("llm-focused");
    span.setAttribute("aria-selected", "true");
    this.box.setAttribute("aria-activedescendant", span.id);
  }

  unfocus() {
    this.spans[this.focused]?.classList.remove("llm-focused");
    this.spans[this.focused]?.removeAttribute("aria-selected");
  }

  #reach(event, tell) {
    const span = event.target.closest(".llm-token");
    if (span) tell(this, Number(span.dataset.index));
  }

  #press(event) {
    const steps = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: () => this.#lineStep(1), ArrowUp: () => this.#lineStep(-1) };
    const step = steps[event.key]?.();
    const last = this.spans.length - 1;
    if (last < 0) return;
    if (event.key === "Enter") this.hear.pick(this, Math.max(0, this.focused));
    else if (event.key === "Escape") this.hear.leave(true);
    else if (step !== undefined || event.key === "Home" || event.key === "End") {
      const to = event.key === "Home" ? 0 : event.key === "End" ? last : this.focused + step;
      this.hear.look(this, Math.max(0, Math.min(last, to)));
      this.spans[this.focused].scrollIntoView({ block: "nearest" });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** How many tokens it is to the nearest one on the next or previous line. */
  #lineStep(direction) {
    const here = this.spans[this.focused]?.getClientRects()[0]; // a span that wraps has one for each line
    if (!here) return 1;
    let best = 0;
    let bestDistance = Infinity;
    for (let i = this.focused + direction; i >= 0 && i < this.spans.length; i += direction) {
      const there = this.spans[i].getClientRects()[0];
      if (!there) continue;
      const rows = direction * (there.top - here.top);
      if (rows < here.height / 2) continue;
      if (rows > 2.5 * here.height && best) break;
      const distance = Math.abs(there.left - here.left) + rows;
      if (distance < bestDistance) [best, bestDistance] = [i - this.focused, distance];
      else if (best) break;
    }
    return best || direction;
  }
}
