/** How much a token stands out: its tint, an underline as the second channel, and what is said of it. */

import { percent, showSpaces } from "./dom.js";
import { redistribute } from "./redistribute.js";

export const TINTS = {
  probability: "the model's probability",
  sampled: "the sampler's probability",
  entropy: "entropy",
  rank: "rank",
};
const STRIKING = 0.9; // from here on a token is underlined too
const FAINT = 0.06; // up to here no tint can be seen
const HIGH_ENTROPY = 6; // nats
const HIGH_RANK = 256;

/**
 * @param {import("./records.js").Token} token
 * @param {string} tint one of TINTS
 * @param {import("./records.js").Settings | null} whatIf settings to redraw under
 * @returns {{strength: number, label: string, isImpossible: boolean}} strength from 0 to 1
 */
export function judge(token, tint, whatIf) {
  if (Number.isNaN(token.logprob)) return { strength: 0, label: "nothing stands before it", isImpossible: false };
  if (whatIf || (tint === "sampled" && !Number.isNaN(token.sampledLogprob))) {
    const p = whatIf ? redistribute(token, whatIf).chosen : Math.exp(token.sampledLogprob);
    const label = whatIf ? `${percent(p)} under the changed settings` : `sampled from ${percent(p)}`;
    return { strength: 1 - p, label, isImpossible: p === 0 };
  }
  const p = Math.exp(token.logprob);
  if (tint === "sampled" && token.settings) return { strength: 1 - p, label: "put there by hand", isImpossible: false };
  if (tint === "entropy") {
    return { strength: token.entropy / HIGH_ENTROPY, label: `entropy ${token.entropy.toFixed(2)} nats`, isImpossible: false };
  }
  if (tint === "rank") {
    return { strength: Math.log(token.rank) / Math.log(HIGH_RANK), label: `rank ${token.rank}`, isImpossible: false };
  }
  return { strength: 1 - p, label: `probability ${percent(p)}`, isImpossible: false };
}

/**
 * @param {HTMLElement} span
 * @param {import("./records.js").Token} token
 */
export function paint(span, token, tint, whatIf) {
  const { strength, label, isImpossible } = judge(token, tint, whatIf);
  const shown = Math.max(0, Math.min(1, strength));
  if (shown > FAINT) span.style.setProperty("--strength", shown.toFixed(2));
  span.classList.toggle("llm-tinted", shown > FAINT);
  span.classList.toggle("llm-striking", strength > STRIKING);
  span.classList.toggle("llm-impossible", isImpossible);
  span.setAttribute("aria-label", `${showSpaces(token.text)}, ${label}`);
}

/** A token as it stands in the text: line ends, lone spaces and parts of characters can be seen. */
export function displayText(text) {
  if (text === "") return "◌"; // a part of a character, which stands at its last token
  return /^ +$/.test(text) ? text.replaceAll(" ", "␣") : text.replaceAll("\n", "↵\n");
}
