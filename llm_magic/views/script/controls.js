/** The row of controls: tint, and sampling settings to redraw what is there under. */

import { make } from "./dom.js";
import { TINTS } from "./heat.js";

const SLIDERS = [
  { name: "temperature", label: "temperature", min: 0.1, max: 2, step: 0.05, off: null },
  { name: "top_k", label: "top-k", min: 0, max: 100, step: 1, off: 0 },
  { name: "top_p", label: "top-p", min: 0.05, max: 1, step: 0.05, off: 1 },
  { name: "min_p", label: "min-p", min: 0, max: 0.5, step: 0.01, off: 0 },
];

/** @param {(tint: string) => void} choose */
export function drawTintChoice(choose) {
  const options = Object.entries(TINTS).map(([name, label]) => make("option", { value: name }, label));
  const select = make("select", { "aria-label": "Tint by", onchange: () => choose(select.value) }, ...options);
  return make("label", {}, "tint ", select);
}

/** Sliders that ask: what if the settings had been these? */
export class WhatIf {
  /** @param {(settings: import("./records.js").Settings | null) => void} hear null: as it was sampled */
  constructor(hear) {
    this.hear = hear;
    this.inputs = new Map();
    this.outputs = new Map();
    const rows = SLIDERS.map(({ name, label, min, max, step }) => {
      const input = make("input", { type: "range", min, max, step, "aria-label": label, oninput: () => this.#change() });
      const output = make("output");
      this.inputs.set(name, input);
      this.outputs.set(name, output);
      return make("label", {}, `${label} `, input, " ", output);
    });
    this.resetButton = make("button", { type: "button", onclick: () => this.reset() }, "as sampled");
    this.resetButton.disabled = true;
    this.element = make("details", { class: "llm-what-if" }, make("summary", {}, "what if…"),
      make("div", { class: "llm-sliders" }, ...rows, this.resetButton));
    this.isActive = false;
  }

  /** Show settings without asking anything. @param {import("./records.js").Settings} settings */
  set(settings) {
    for (const { name } of SLIDERS) this.inputs.get(name).value = settings[name];
    this.#print(settings);
    this.start = settings;
    this.#mark(false);
  }

  /** Show what is asked elsewhere. @param {import("./records.js").Settings} settings */
  show(settings) {
    const { start } = this;
    this.set(settings);
    this.start = start;
    this.#mark(true);
  }

  reset() {
    if (this.start) this.set(this.start);
    this.hear(null);
  }

  #print(settings) {
    for (const { name, off } of SLIDERS) {
      this.outputs.get(name).textContent = settings[name] === off ? "off" : String(settings[name]);
    }
  }

  #mark(isActive) {
    this.isActive = isActive;
    this.resetButton.disabled = !isActive;
  }

  #change() {
    const settings = Object.fromEntries(SLIDERS.map(({ name }) => [name, Number(this.inputs.get(name).value)]));
    this.#print(settings);
    this.#mark(true);
    this.hear(settings);
  }
}
