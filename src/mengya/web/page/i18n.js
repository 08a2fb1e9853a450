/**
 * The language of the page: takes names, gives words. Elements of index.html carry their word as
 * `data-t` (text), `data-t-label` (label and tooltip) or `data-t-placeholder`; what scripts build
 * calls `t` and is rebuilt when the language changes.
 */
import { EN, ZH } from "./words.js";

const WORDS = { zh: { ...ZH }, en: { ...EN } };

/** @type {"zh" | "en"} */
let current = "zh";

/**
 * Adds a page's own words to those of the kit; call it before anything else here.
 * @param {Record<string, string>} zh
 * @param {Record<string, string>} en
 */
export function addWords(zh, en) {
  Object.assign(WORDS.zh, zh);
  Object.assign(WORDS.en, en);
}

/**
 * @param {string} name
 * @param {Object<string, string | number>} [values]
 */
export function t(name, values = {}) {
  const word = WORDS[current][name];
  if (word === undefined) throw new Error(`no word for ${name}`);
  return word.replace(/\{(\w+)\}/g, (_, key) => String(values[key]));
}

/** @param {"zh" | "en"} language */
export function setLanguage(language) {
  current = language;
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-t]")) {
    element.textContent = t(/** @type {HTMLElement} */ (element).dataset.t ?? "");
  }
  for (const element of document.querySelectorAll("[data-t-label]")) {
    const word = t(/** @type {HTMLElement} */ (element).dataset.tLabel ?? "");
    element.setAttribute("aria-label", word);
    element.setAttribute("title", word);
  }
  for (const element of document.querySelectorAll("[data-t-placeholder]")) {
    element.setAttribute("placeholder", t(/** @type {HTMLElement} */ (element).dataset.tPlaceholder ?? ""));
  }
}

/**
 * A problem in words: what happened and what to do. Codes of the server that a page has words for are
 * said in its language.
 * @param {import("./server.js").Problem} problem
 */
export function problemWords(problem) {
  const wait = problem.wait === null ? t("waitLittle") : t("waitSeconds", { seconds: problem.wait });
  const space = current === "zh" ? "" : " ";
  return [t(`problem_${problem.kind}`, { wait }).trim(), codeWords(problem)].filter(Boolean).join(space);
}

/** What the server's own name of an error means, or null. @param {import("./server.js").Problem} problem */
export function codeWords({ code, param }) {
  const names = param ? [`code_${code}_of`, `code_${code}`] : [`code_${code}`];
  const name = names.find((one) => one in WORDS[current]);
  return name ? t(name, { param: param ?? "" }) : null;
}

/** A number for reading: three digits that matter. @param {number} value */
export function short(value) {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
