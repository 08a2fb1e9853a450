/**
 * Colours for code: takes code and the name of its language, gives DOM nodes. Comments, strings,
 * numbers and keywords only, by one pattern for all languages; that is enough to read by.
 */
import { el } from "../kit/dom.js";

const LONGEST = 20_000; // longer code stays plain: while it streams it is coloured again and again

const HASH_COMMENTS = new Set(
  "python py sh bash shell zsh yaml yml toml ruby rb r make dockerfile".split(" "),
);
const DASH_COMMENTS = new Set("sql lua haskell hs".split(" "));

const KEYWORDS = new Set(
  (
    "and as assert async await break case catch class const continue def default del do done elif " +
    "else enum export extends fi final finally fn for from func function global go if impl import in " +
    "interface is lambda let loop match mod mut new nonlocal not or package pass private protected " +
    "pub public raise return select self static struct super switch then this throw trait try type " +
    "typeof use using var void where while with yield True False None true false null undefined nil " +
    "int float double char bool str string long short unsigned SELECT FROM WHERE INSERT INTO VALUES " +
    "UPDATE SET DELETE CREATE TABLE JOIN LEFT INNER ON GROUP BY ORDER LIMIT AND OR NOT AS"
  ).split(" "),
);

const STRING = /"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?|`(?:[^`\\]|\\.)*`?/;
const REST = /\b\d[\w.]*|[A-Za-z_][A-Za-z_0-9]*/;

/** @param {string} language */
function patternFor(language) {
  const hash = HASH_COMMENTS.has(language);
  const slashes = /\/\/[^\n]*|\/\*(?:[^*]|\*(?!\/))*(?:\*\/)?/;
  const comment = hash ? /#[^\n]*/ : DASH_COMMENTS.has(language) ? /--[^\n]*/ : slashes;
  const triple = hash ? /"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|/ : /(?!)|/;
  return new RegExp(`(${comment.source})|(${triple.source}${STRING.source})|(${REST.source})`, "g");
}

/**
 * @param {string} code
 * @param {string} language
 * @returns {Node[]}
 */
export function highlight(code, language) {
  const isPlain = !language || language === "text" || language === "markdown";
  if (code.length > LONGEST || isPlain) return [document.createTextNode(code)];
  const nodes = [];
  let last = 0;
  for (const found of code.matchAll(patternFor(language.toLowerCase()))) {
    const [text, comment, string, word] = found;
    const ofWord = /^\d/.test(word ?? "") ? "number" : KEYWORDS.has(word) ? "keyword" : null;
    const kind = comment ? "comment" : string ? "string" : ofWord;
    if (!kind) continue;
    nodes.push(
      document.createTextNode(code.slice(last, found.index)),
      el("span", { class: `code-${kind}` }, text),
    );
    last = found.index + text.length;
  }
  nodes.push(document.createTextNode(code.slice(last)));
  return nodes;
}
