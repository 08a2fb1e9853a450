/**
 * Mathematics: finds formulas in text and draws them. Takes text and a place in it, gives elements
 * that show the formula as it was written until KaTeX (vendor/katex) has drawn it; what KaTeX cannot
 * read stays as it was written. KaTeX is loaded when the first formula is there. Knows nothing of
 * Markdown.
 */
import { el } from "../kit/dom.js";

const REACH = 4000; // characters within which a formula must close
const REMEMBERED = 500; // drawn formulas, for texts that are drawn many times while they grow
const DEEPEST = 300; // levels of a formula's tree
const SLICE = 12; // milliseconds of drawing before the page gets its turn
const OPTIONS = { throwOnError: true, trust: false, strict: "ignore", maxSize: 20, maxExpand: 300 };
/** @type {Record<string, string>} */
const CLOSING = { "\\(": "\\)", "\\[": "\\]", $$: "$$" };

/** @typedef {{element: HTMLElement, source: string, display: boolean}} Formula */

/** What is drawn, by its source. @type {Map<string, Node>} */
const drawn = new Map();
/** @type {Formula[]} */
const pending = [];
/** @type {any} */
let katex = null;
/** @type {"none" | "loading" | "loaded" | "failed"} */
let state = "none";

/**
 * The formula that begins at `at` with `\\(`, `\\[`, `$$` or `$`, and where it ends; null when there is
 * none.
 * @param {string} text
 * @param {number} at
 * @param {Map<string, number>} searched for each closing mark, up to where it was sought in vain
 */
export function formulaAt(text, at, searched) {
  const open = text.slice(at, at + 2);
  const close = CLOSING[open];
  if (!close) return text[at] === "$" ? dollars(text, at) : null;
  const start = at + 2;
  if (start < (searched.get(close) ?? 0)) return null;
  const end = text.slice(start, start + REACH).indexOf(close) + start;
  if (end < start) {
    searched.set(close, start + REACH - 1);
    return null;
  }
  const source = text.slice(start, end);
  if (!source.trim() || source.includes("`")) return null;
  return { node: formula(text.slice(at, end + 2), source, open !== "\\("), end: end + 2 };
}

/**
 * `$x$` on one line. "$5 and $6" and "$HOME/$USER" are none.
 * @param {string} text
 * @param {number} at
 */
function dollars(text, at) {
  if (/[A-Za-z0-9$]/.test(text[at - 1] ?? "") || /[\s$]/.test(text[at + 1] ?? " ")) return null;
  const line = text.slice(at, at + REACH).split("\n", 1)[0];
  const length = /^\$(?:[^$\\]|\\.)+\$/.exec(line)?.[0].length;
  if (!length) return null;
  const source = line.slice(1, length - 1);
  const isOther = /\s$/.test(source) || source.includes("`") || /[0-9A-Z_$]/.test(line[length] ?? "");
  if (isOther || isPrice(source)) return null;
  return { node: formula(line.slice(0, length), source, false), end: at + length };
}

/** Whether it is an amount of money and words, and no operator: "5 to 10". @param {string} source */
function isPrice(source) {
  const after = /^\d[\d.,]*(.+)$/s.exec(source)?.[1] ?? "";
  return /^(\s+\p{L}|[\p{Script=Han}，。；、])/u.test(after) && !/[\\^_=<>{}]/.test(after);
}

/**
 * @param {string} written with its marks
 * @param {string} source
 * @param {boolean} display on a line of its own
 */
function formula(written, source, display) {
  const element = el("span", { class: display ? "formula display" : "formula" }, written);
  const known = drawn.get(nameOf(source, display));
  if (known) show(element, known);
  else later({ element, source, display });
  return element;
}

/** @param {string} source @param {boolean} display */
function nameOf(source, display) {
  return `${display ? "$$" : "$"}${source}`;
}

/** @param {HTMLElement} element @param {Node} node */
function show(element, node) {
  element.replaceChildren(node.cloneNode(true));
  element.classList.add("drawn");
  if (element.classList.contains("display")) element.tabIndex = 0; // it may be wider than the page
}

/** @param {Formula} one */
function later(one) {
  if (state === "failed") return;
  pending.push(one);
  if (state === "none") load();
  else if (state === "loaded" && pending.length === 1) setTimeout(drawSome);
}

async function load() {
  state = "loading";
  const sheet = el("link", { rel: "stylesheet", href: "vendor/katex/katex.min.css" });
  const styled = new Promise((resolve, reject) => {
    sheet.addEventListener("load", resolve);
    sheet.addEventListener("error", reject);
  });
  document.head.append(sheet);
  try {
    // The script is no module: it leaves its name with the window.
    await Promise.all([styled, import("../vendor/katex/katex.min.js")]);
    katex = /** @type {any} */ (window).katex;
    state = "loaded";
    drawSome();
  } catch (error) {
    console.warn("formulas are shown as they were written", error);
    state = "failed";
    pending.length = 0;
  }
}

/** Draws what waits and is still on the page, a slice at a time. */
function drawSome() {
  const began = performance.now();
  while (pending.length && performance.now() - began < SLICE) {
    const one = /** @type {Formula} */ (pending.shift());
    if (one.element.isConnected) draw(one);
  }
  if (pending.length) setTimeout(drawSome);
}

/** @param {Formula} one */
function draw({ element, source, display }) {
  const name = nameOf(source, display);
  if (!drawn.has(name)) {
    try {
      if (drawn.size >= REMEMBERED) drawn.clear();
      const tree = katex.__renderToDomTree(source, { ...OPTIONS, displayMode: display });
      withoutStyles(tree);
      drawn.set(name, tree.toNode());
    } catch (error) {
      element.title = String(/** @type {Error} */ (error).message);
      return;
    }
  }
  show(element, /** @type {Node} */ (drawn.get(name)));
}

/**
 * Takes the style attributes out of the MathML, which is for screen readers only: the page's policy
 * forbids them, and the browser would report each. Refuses a tree that a browser cannot lay out: at some
 * 1,500 levels the tab crashes, and again whenever the stored conversation is opened.
 * @param {any} node of KaTeX's tree
 * @param {number} [depth]
 */
function withoutStyles(node, depth = 0) {
  if (depth > DEEPEST) throw new Error("nested too deeply");
  if (node.attributes?.style) delete node.attributes.style;
  for (const child of node.children ?? []) withoutStyles(child, depth + 1);
}
