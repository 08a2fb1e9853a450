/**
 * The inside of a Markdown paragraph: takes its text, gives DOM nodes. Text becomes text nodes; the
 * only attribute that comes from the text is the address of a link, and only http and https pass.
 * Every search is bounded, so a hostile line costs time in proportion to its length.
 */
import { el } from "../kit/dom.js";
import { formulaAt } from "./math.js";

const MAX_DEPTH = 6; // emphasis in a link in emphasis ... deeper is plain text
const REACH = 4000; // characters within which an emphasis must close
const LABEL = 1000; // longest text of a link
const ADDRESS = 2000; // longest address of a link

const SPECIAL = /[\\`*_~[!$]|https?:\/\//g;
const PLAIN_ADDRESS = /https?:\/\/[^\s<>"'`，。；：、！？（）《》【】「」“”]{1,2000}/y;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
/** @type {Object<string, string>} */
const TAGS = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "del" };

/**
 * The address of a link that may be followed, or null.
 * @param {string} text
 */
export function safeAddress(text) {
  if (!/^https?:\/\//i.test(text)) return null; // no relative address: it would lead to this server
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

/** @param {string} address @param {Node[]} children */
function link(address, children) {
  return el(
    "a",
    { href: address, title: address, target: "_blank", rel: "noopener noreferrer nofollow" },
    ...children,
  );
}

/**
 * @param {string} text
 * @param {number} [depth]
 * @returns {Node[]}
 */
export function inline(text, depth = 0) {
  /** @type {Node[]} */
  const nodes = [];
  /** Up to where a closing mark was sought in vain, for each mark. @type {Map<string, number>} */
  const searched = new Map();
  let plain = "";
  let at = 0;
  const flush = () => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
  };
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const found = SPECIAL.exec(text);
    if (!found) break;
    plain += text.slice(at, found.index);
    at = found.index;
    const read = depth < MAX_DEPTH ? special(text, at, depth, searched) : null;
    if (read === null) {
      plain += text[at];
      at += 1;
    } else if (typeof read.node === "string") {
      plain += read.node;
      at = read.end;
    } else {
      flush();
      nodes.push(read.node);
      at = read.end;
    }
  }
  plain += text.slice(at);
  flush();
  return nodes;
}

/**
 * What begins at `at`, or null when it is plain text after all.
 * @param {string} text
 * @param {number} at
 * @param {number} depth
 * @param {Map<string, number>} searched
 * @returns {{node: Node | string, end: number} | null}
 */
function special(text, at, depth, searched) {
  switch (text[at]) {
    case "\\":
      return escaped(text, at, searched);
    case "`":
      return codeSpan(text, at, searched);
    case "[":
      return linkSpan(text, at, depth);
    case "!":
      // A picture would be fetched from another host: its address is offered as a link instead.
      return text[at + 1] === "[" ? linkSpan(text, at + 1, depth) : null;
    case "$":
      return formulaAt(text, at, searched) ?? dollarRun(text, at);
    case "h":
      return plainAddress(text, at);
    default:
      return emphasis(text, at, depth, searched);
  }
}

/** @param {string} text @param {number} at @param {Map<string, number>} searched */
function codeSpan(text, at, searched) {
  let open = at;
  while (text[open] === "`") open += 1;
  const fence = text.slice(at, open);
  const all = { node: fence, end: open }; // the full run as text, or its rest would be tried again
  let close = Math.max(open, searched.get(fence) ?? 0);
  for (;;) {
    close = text.indexOf(fence, close);
    if (close < 0) {
      searched.set(fence, text.length);
      return all;
    }
    let end = close;
    while (text[end] === "`") end += 1;
    if (end - close === fence.length) {
      const inside = text.slice(open, close);
      const trimmed = /^ .*[^ ].* $/s.test(inside.slice(0, REACH)) ? inside.slice(1, -1) : inside;
      return { node: el("code", {}, trimmed), end };
    }
    close = end;
  }
}

/** @param {string} text @param {number} at @param {number} depth */
function linkSpan(text, at, depth) {
  const label = balanced(text, at, "[", "]", LABEL);
  if (label === null || text[label] !== "(") return null;
  const end = balanced(text, label, "(", ")", ADDRESS);
  if (end === null) return null;
  const target = text.slice(label + 1, end - 1).trim().split(/\s/, 1)[0].replace(/^<|>$/g, "");
  const address = safeAddress(target);
  const words = text.slice(at + 1, label - 1);
  if (address === null) return { node: text.slice(at, end), end };
  const children = inline(words || address, depth + 1).filter((node) => !(node instanceof HTMLAnchorElement));
  return { node: link(address, children), end };
}

/**
 * The place after the bracket that closes the one at `at`, or null.
 * @param {string} text
 * @param {number} at
 * @param {string} open
 * @param {string} close
 * @param {number} reach
 */
function balanced(text, at, open, close, reach) {
  let level = 0;
  const end = Math.min(text.length, at + reach);
  for (let place = at; place < end; place += 1) {
    if (text[place] === "\\") place += 1;
    else if (text[place] === open) level += 1;
    else if (text[place] === close && --level === 0) return place + 1;
  }
  return null;
}

/**
 * A formula, or punctuation that means nothing; a formula that has not ended stays as it is written.
 * @param {string} text
 * @param {number} at
 * @param {Map<string, number>} searched
 */
function escaped(text, at, searched) {
  const next = text[at + 1] ?? "";
  if (next === "(" || next === "[") {
    return formulaAt(text, at, searched) ?? { node: text.slice(at, at + 2), end: at + 2 };
  }
  return PUNCTUATION.test(next) ? { node: next, end: at + 2 } : null;
}

/** All of a run of dollars as text, or its rest would be tried again. @param {string} text */
function dollarRun(text, /** @type {number} */ at) {
  let end = at;
  while (text[end] === "$") end += 1;
  return { node: text.slice(at, end), end };
}

/** @param {string} text @param {number} at */
function plainAddress(text, at) {
  PLAIN_ADDRESS.lastIndex = at;
  const found = PLAIN_ADDRESS.exec(text)?.[0];
  if (!found) return null;
  let end = found.length;
  while (/[.,;:!?*_~)\]}]/.test(found[end - 1])) end -= 1;
  const shown = found.slice(0, end);
  const address = safeAddress(shown);
  return address === null ? null : { node: link(address, [document.createTextNode(shown)]), end: at + end };
}

/** @param {string} text @param {number} at @param {number} depth @param {Map<string, number>} searched */
function emphasis(text, at, depth, searched) {
  const mark = text[at + 1] === text[at] ? text.slice(at, at + 2) : text[at];
  const start = at + mark.length;
  if (!TAGS[mark] || !text[start] || /\s/.test(text[start])) return null;
  if (mark[0] === "_" && WORD.test(text[at - 1] ?? "")) return null; // snake_case
  const limit = Math.min(text.length, start + REACH);
  for (let close = Math.max(start + 1, searched.get(mark) ?? 0); close < limit; close += 1) {
    close = text.indexOf(mark, close);
    if (close < 0 || close >= limit) break;
    const after = text[close + mark.length];
    if (mark.length === 1 && (after === mark || text[close - 1] === mark)) {
      while (text[close + 1] === mark) close += 1; // a pair of marks is the other emphasis
      continue;
    }
    if (/\s/.test(text[close - 1]) || text[close - 1] === "\\") continue;
    if (mark[0] === "_" && WORD.test(after ?? "")) continue;
    // ***both***: the inner one closes first
    const end = mark.length === 2 && after === mark[0] ? close + 1 : close;
    const children = inline(text.slice(start, end), depth + 1);
    return { node: el(TAGS[mark], {}, ...children), end: end + mark.length };
  }
  searched.set(mark, limit);
  return null;
}
