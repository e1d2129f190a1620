/** The tree of a text's branches: each can be shown, named, and compared with the one that is shown. */

import { make, showSpaces } from "./dom.js";

export class Branches {
  /**
   * @param {import("./session.js").Session} session
   * @param {{show: (key: number) => void, rename: (key: number, name: string) => void, compare: (key: number | null) => void}} hear
   */
  constructor(session, hear) {
    this.session = session;
    this.hear = hear;
    this.compared = null;
    this.element = make("div", { class: "llm-branches", role: "tree", "aria-label": "Branches", hidden: true });
  }

  update() {
    const { nodes, shown } = this.session;
    const isTree = [...nodes.values()].some((node) => node.parent !== null);
    this.element.hidden = !isTree;
    if (!isTree) return;
    const focusedKey = this.element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.element.replaceChildren(...this.#rows(null, 1, shown[0]));
    if (focusedKey) this.element.querySelector(`[data-key="${focusedKey}"]`)?.focus();
  }

  *#rows(parent, level, shownKey) {
    const siblings = [...this.session.nodes.values()].filter((node) => node.parent === parent);
    siblings.sort((a, b) => (a.index ?? 0) - (b.index ?? 0) || a.key - b.key);
    for (const node of siblings) {
      yield this.#row(node, level, node.key === shownKey);
      yield* this.#rows(node.key, level + 1, shownKey);
    }
  }

  #row(node, level, isShown) {
    const at = node.index ?? 0;
    const excerpt = showSpaces(node.records.texts.slice(at, at + 8).join("")).slice(0, 40).replaceAll("␣", " ");
    const where = node.index === null ? "" : ` at token ${node.index}`;
    const pick = make("button", {
      type: "button", role: "treeitem", class: "llm-branch", "aria-level": level, "aria-selected": isShown,
      "data-key": node.key, tabindex: isShown ? 0 : -1, title: "Enter shows it, F2 names it",
      onclick: () => this.hear.show(node.key), onkeydown: (event) => this.#press(event, node),
      ondblclick: () => this.#rename(node, pick),
    }, make("strong", {}, node.name), `${where}: ${excerpt}…`);
    const row = make("div", { class: "llm-branch-row", role: "none" }, pick);
    row.style.marginInlineStart = `${1.2 * (level - 1)}em`;
    if (!isShown) {
      const isCompared = this.compared === node.key;
      row.append(make("button", {
        type: "button", class: "llm-compare", "aria-pressed": isCompared,
        onclick: () => this.hear.compare(isCompared ? null : node.key),
      }, isCompared ? "alone again" : "compare"));
    }
    return row;
  }

  #press(event, node) {
    const all = [...this.element.querySelectorAll(".llm-branch")];
    const at = all.indexOf(event.currentTarget);
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (step) all[Math.max(0, Math.min(all.length - 1, at + step))].focus();
    else if (event.key === "F2") this.#rename(node, event.currentTarget);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #rename(node, button) {
    const input = make("input", { type: "text", "aria-label": "Name of the branch" });
    input.value = node.name;
    let isDone = false;
    const finish = (isKept) => {
      if (isDone) return;
      isDone = true;
      if (isKept && input.value.trim()) this.hear.rename(node.key, input.value.trim());
      this.update();
    };
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter" || event.key === "Escape") finish(event.key === "Enter");
    });
    input.addEventListener("blur", () => finish(true));
    button.replaceWith(input);
    input.select();
  }
}
