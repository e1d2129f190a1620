/** Elements, made without a line of HTML: what models and users write only ever becomes a text node. */

/**
 * @param {string} tag
 * @param {Record<string, any>} [attributes] a class, ARIA attributes, `on…` listeners, data
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  // JupyterLab's command mode takes single keys from focused outputs, unless the very element says no
  if (/^(button|input|select|summary)$/.test(tag) || "tabindex" in attributes) {
    element.setAttribute("data-lm-suppress-shortcuts", "true");
  }
  element.append(...children);
  return element;
}

/** A token on one line, its whitespace visible. @param {string} text */
export function showSpaces(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";
}

/** @param {number} p */
export function percent(p) {
  if (!Number.isFinite(p)) return "–";
  if (p >= 0.001 || p === 0) return `${(100 * p).toFixed(1)} %`;
  return p >= 0.0001 ? `${(100 * p).toFixed(2)} %` : "<0.01 %";
}

/** Put styles into the page. @param {string} text */
export function addStyles(text) {
  document.head.append(make("style", { class: "llm-styles" }, text));
}
