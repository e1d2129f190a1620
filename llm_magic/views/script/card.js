/** The card of a token: what else could have stood there, before and behind the sampler, and the way to take it. */

import { make, percent, showSpaces } from "./dom.js";
import { redistribute } from "./redistribute.js";

const SHOWN = 10;

const NOT_ALLOWED = -1e4; // nats: an output's form leaves no chance at all

export class Card {
  /**
   * @param {{branch: (choice: {id?: number, text?: string}) => void, close: () => void}} hear
   */
  constructor(hear) {
    this.hear = hear;
    this.isPinned = false;
    this.element = make("div", { class: "llm-card", hidden: true, onkeydown: (event) => this.#press(event) });
    // in the top layer nothing clips it; inside a frame of its own height only growing helps
    this.floats = "showPopover" in this.element && window.self === window.top;
    if (this.floats) this.element.setAttribute("popover", "manual");
  }

  /**
   * @param {import("./records.js").Token} token
   * @param {HTMLElement} span that it belongs to
   * @param {import("./records.js").Settings | null} whatIf
   * @param {{probabilities: Map<number, number>, kept: number} | null} exact the kernel's answer, where it has come
   */
  show(token, span, whatIf, exact, isPinned, canBranch) {
    this.isPinned = isPinned;
    this.element.className = isPinned ? "llm-card llm-pinned" : "llm-card";
    this.element.setAttribute("role", isPinned ? "dialog" : "tooltip");
    this.element.setAttribute("aria-label", `Alternatives of ${showSpaces(token.text)}`);
    this.element.replaceChildren(...this.#contents(token, whatIf, exact, isPinned && canBranch));
    this.element.hidden = false;
    if (this.floats && !this.element.matches(":popover-open")) this.element.showPopover();
    this.place(span);
    if (isPinned) this.element.querySelector("button, input")?.focus({ preventScroll: true });
  }

  hide() {
    this.isPinned = false;
    if (this.floats && this.element.matches(":popover-open")) this.element.hidePopover();
    this.element.hidden = true;
    if (this.element.parentElement) this.element.parentElement.style.minHeight = "";
  }

  #contents(token, whatIf, exact, canBranch) {
    if (Number.isNaN(token.logprob)) return [make("div", {}, `${showSpaces(token.text)}: nothing stands before it`)];
    const settings = whatIf ?? token.settings;
    const shares = settings ? redistribute(token, settings) : null;
    if (shares && exact) correct(shares, token, exact);
    const place = token.listed.findIndex((other) => other.id === token.id);
    const rows = token.listed.slice(0, SHOWN).map((other, j) => ({
      ...other, share: shares?.listed[j], removed: shares?.removed[j] ?? "", isChosen: j === place,
    }));
    if (place >= SHOWN || place < 0) {
      rows.push({
        id: token.id, text: token.text, logprob: token.logprob, penalty: token.penalty, isChosen: true,
        share: place < 0 ? shares?.chosen : shares?.listed[place],
        removed: (place < 0 ? shares?.chosenRemoved : shares?.removed[place]) ?? "",
      });
    }
    const longest = Math.max(...rows.map((row) => Math.max(Math.exp(row.logprob), row.share ?? 0)));
    const listedMass = rows.reduce((total, row) => total + Math.exp(row.logprob), 0);
    const rest = { p: Math.max(0, 1 - listedMass) };
    rest.share = shares && Math.max(0, 1 - rows.reduce((total, row) => total + row.share, 0));
    const head = make("tr", {}, ...["", "", "model", shares ? "sampler" : "", ""].map((text) => make("th", {}, text)));
    const table = make("table", {}, head, ...rows.map((row) => this.#row(row, longest, canBranch)),
      make("tr", { class: "llm-rest" }, make("td", {}, "all others"), make("td", {}), make("td", {}, percent(rest.p)),
        make("td", {}, shares ? percent(rest.share) : ""), make("td", {})));
    const parts = [this.#head(token), table];
    if (shares) parts.push(make("div", { class: "llm-note" }, describe(settings, shares, whatIf, exact)));
    if (canBranch) parts.push(this.#typing());
    return parts;
  }

  #head(token) {
    const figures = [`rank ${token.rank}`, `entropy ${token.entropy.toFixed(2)} nats`, `token ${token.index}, id ${token.id}`];
    return make("div", { class: "llm-card-head" }, make("strong", {}, showSpaces(token.text)), ` ${figures.join(" · ")}`);
  }

  #row(row, longest, canBranch) {
    const name = showSpaces(row.text);
    const isAllowed = row.penalty > NOT_ALLOWED;
    const notes = isAllowed ? [
      row.isChosen ? "stands here" : "",
      Math.abs(row.penalty) > 0.005 ? `penalty ${row.penalty.toFixed(2)}` : "",
      row.removed && `out by ${row.removed}`,
    ].filter(Boolean) : ["not allowed here"];
    const label = canBranch && !row.isChosen && isAllowed
      ? make("button", { type: "button", class: "llm-take", "aria-label": `Branch to ${name}`,
          onclick: () => this.hear.branch({ id: row.id }) }, name)
      : make("span", {}, name);
    const bar = make("span", { class: "llm-bars", "aria-hidden": "true" }, make("i"), make("b"));
    bar.style.setProperty("--model", `${(100 * Math.exp(row.logprob)) / longest}%`);
    bar.style.setProperty("--sampler", `${(100 * (row.share ?? 0)) / longest}%`);
    return make("tr", { class: `${row.isChosen ? "llm-chosen" : ""} ${row.removed ? "llm-removed" : ""}` },
      make("td", {}, label), make("td", {}, bar), make("td", {}, percent(Math.exp(row.logprob))),
      make("td", {}, row.share === undefined ? "" : percent(row.share)), make("td", { class: "llm-why" }, notes.join(", ")));
  }

  #typing() {
    const input = make("input", { type: "text", placeholder: "another continuation…", "aria-label": "Another continuation" });
    const take = () => input.value && this.hear.branch({ text: input.value });
    input.addEventListener("keydown", (event) => {
      event.stopPropagation(); // the notebook must not hear what is typed
      if (event.key === "Enter") take();
      if (event.key === "Escape") this.hear.close();
    });
    return make("div", { class: "llm-typing" }, input, make("button", { type: "button", onclick: take }, "Branch"));
  }

  #press(event) {
    if (event.key === "Escape") this.hear.close();
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const stops = [...this.element.querySelectorAll("button, input")];
      const at = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
      stops[Math.max(0, Math.min(stops.length - 1, at))]?.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Put it below or above its token, also when the page has scrolled. */
  place(span) {
    const at = span.getClientRects()[0] ?? span.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.element;
    if (this.floats) {
      const isBelow = at.bottom + 4 + height < window.innerHeight || at.top < height + 4;
      this.element.style.left = `${Math.max(4, Math.min(at.left, window.innerWidth - width - 4))}px`;
      this.element.style.top = `${isBelow ? at.bottom + 4 : at.top - height - 4}px`;
      return;
    }
    const root = this.element.parentElement;
    const frame = root.getBoundingClientRect();
    this.element.style.left = `${Math.max(0, Math.min(at.left - frame.left, frame.width - width))}px`;
    this.element.style.top = `${at.bottom - frame.top + 4}px`;
    root.style.minHeight = `${at.bottom - frame.top + height + 12}px`;
  }
}

/** Put the kernel's figures in the place of those that the page has worked out. */
function correct(shares, token, { probabilities, kept }) {
  const isComplete = kept <= probabilities.size; // then what is not among them has fallen
  const find = (id, p) => probabilities.get(id) ?? (isComplete ? 0 : p);
  token.listed.forEach((other, j) => {
    shares.listed[j] = find(other.id, shares.listed[j]);
    shares.removed[j] = shares.listed[j] ? "" : shares.removed[j] || "a filter";
  });
  shares.chosen = find(token.id, shares.chosen);
  shares.chosenRemoved = shares.chosen ? "" : shares.chosenRemoved || "a filter";
}

/** @param {import("./records.js").Settings} settings */
function describe(settings, shares, whatIf, exact) {
  const parts = [settings.temperature === 0 ? "greedy" : `temperature ${settings.temperature}`];
  if (settings.top_k > 0) parts.push(`top-k ${settings.top_k}`);
  if (settings.top_p < 1) parts.push(`top-p ${settings.top_p}`);
  if (settings.min_p > 0) parts.push(`min-p ${settings.min_p}`);
  const kept = exact?.kept ?? shares.kept;
  const count = `${kept.toLocaleString("en")} ${kept === 1 ? "token" : "tokens"} left`;
  return `${whatIf ? "what if: " : "sampler: "}${parts.join(", ")} · ${exact ? "" : "about "}${count}`;
}
