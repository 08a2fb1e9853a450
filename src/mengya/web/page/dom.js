/**
 * Builds elements. Takes names, attributes and children; gives DOM nodes. A string child becomes a
 * text node: nothing on this page ever parses HTML, and the Content-Security-Policy of index.html
 * (trusted types, none allowed) would stop it if it did.
 */

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * @param {string} tag
 * @param {Object<string, any>} [attributes] `onclick` and the like take functions; null and false
 *   leave an attribute out
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

/**
 * @param {Node} parent
 * @param {Child[]} children
 */
export function append(parent, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    parent.appendChild(typeof child === "string" ? document.createTextNode(child) : child);
  }
}

/**
 * The element of index.html with this id.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element;
}

const PATHS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 11v5M14 11v5",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  check: "M5 13l4 4L19 7",
  again: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
  back: "M14 6l-6 6 6 6",
  forth: "M10 6l6 6-6 6",
  close: "M6 6l12 12M18 6L6 18",
  tune: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  compare: "M4 5h7v14H4zM13 5h7v14h-7z",
  down: "M12 5v14M6 13l6 6 6-6",
  save: "M12 4v11M7 11l5 5 5-5M5 20h14",
  open: "M12 16V5M7 9l5-5 5 5M5 20h14",
  attach: "M19 11l-7 7a4.5 4.5 0 0 1-6-6l7.5-7.5a3 3 0 0 1 4 4l-7.4 7.4a1.5 1.5 0 0 1-2-2l6.6-6.5",
  braces: "M9 4H7v7l-2 1 2 1v7h2M15 4h2v7l2 1-2 1v7h-2",
  page: "M6 3h8l4 4v14H6zM14 3v4h4M9 12h6M9 16h6",
  more: "M5 6l6 6-6 6M12 6l6 6-6 6",
};

/**
 * A line drawing in the colour of the text around it; silent for screen readers, so its button needs a label.
 * @param {keyof typeof PATHS} name
 */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.appendChild(path);
  return svg;
}

/**
 * A button that shows only a drawing.
 * @param {keyof typeof PATHS} name
 * @param {string} label what it does, for the tooltip and for screen readers
 * @param {(event: Event) => void} onclick
 */
export function iconButton(name, label, onclick) {
  return el(
    "button",
    { type: "button", class: "icon-button", title: label, "aria-label": label, onclick },
    icon(name),
  );
}

/**
 * A button that puts a text on the clipboard and says so for a moment.
 * @param {string} label
 * @param {() => string} text
 */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    await copyText(text());
    button.replaceChildren(icon("check"));
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

/**
 * Browsers offer the clipboard to https and localhost only; elsewhere (a server in the local
 * network) the old way still works.
 * @param {string} text
 */
async function copyText(text) {
  if (navigator.clipboard) {
    try {
      return await navigator.clipboard.writeText(text);
    } catch {
      // Refused, e.g. while the window is not in front: the old way below.
    }
  }
  const area = el("textarea", { class: "sr-only", readonly: true });
  /** @type {HTMLTextAreaElement} */ (area).value = text;
  document.body.appendChild(area);
  /** @type {HTMLTextAreaElement} */ (area).select();
  document.execCommand("copy");
  area.remove();
}
