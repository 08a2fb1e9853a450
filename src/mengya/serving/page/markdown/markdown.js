/**
 * Markdown as models write it: takes text, perhaps unfinished, gives DOM nodes. Headings,
 * paragraphs (a line end stays one), fenced code, lists, quotes, tables, rules, formulas. HTML is
 * text. Nesting is bounded; `inline.js` does the inside of a line, `math.js` its formulas.
 */
import { copyButton, el } from "../kit/dom.js";
import { t } from "../kit/i18n.js";
import { highlight } from "./highlight.js";
import { inline } from "./inline.js";

/**
 * @typedef {{kind: "code"|"formula"|"heading"|"rule"|"table"|"list"|"quote"|"paragraph", lines:
 *   string[], start: number, end: number, language?: string, level?: number, ordered?: boolean,
 *   first?: number}} Block `lines` is the content, `start` and `end` line numbers
 */

const MAX_DEPTH = 6; // quotes and lists inside one another; deeper is plain text
const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,12})([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;
const FORMULA = /^ {0,3}(\$\$|\\\[)/;

/** @param {string} line */
function isRule(line) {
  return line.length < 200 && /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/.test(line);
}

/** @param {string} line @param {string | undefined} next */
function isTable(line, next) {
  if (!line.includes("|") || !next?.includes("-") || !/^[\s|:-]+$/.test(next)) return false;
  return cells(line).length === cells(next).length;
}

/** Whether a line ends the paragraph above it. @param {string} line */
function interrupts(line) {
  return [FENCE, HEADING, QUOTE, ITEM, FORMULA].some((start) => start.test(line)) || isRule(line);
}

/**
 * @param {string[]} lines
 * @param {number} [depth]
 * @returns {Block[]}
 */
function blocksOf(lines, depth = 0) {
  /** @type {Block[]} */
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) at += 1;
    else {
      const block = blockAt(lines, at, depth);
      blocks.push(block);
      at = block.end;
    }
  }
  return blocks;
}

/** @param {string[]} lines @param {number} start @param {number} depth @returns {Block} */
function blockAt(lines, start, depth) {
  const line = lines[start];
  const fence = FENCE.exec(line);
  if (fence) {
    const close = (/** @type {string} */ text) => {
      const bare = text.trim();
      return bare.length >= fence[1].length && bare === fence[1][0].repeat(bare.length);
    };
    const end = until(lines, start + 1, close);
    const language = fence[2].trim().split(/\s/, 1)[0];
    return { kind: "code", language, lines: lines.slice(start + 1, end), start, end: end + 1 };
  }
  const heading = HEADING.exec(line);
  if (heading) {
    return {
      kind: "heading",
      level: heading[1].length,
      lines: [line.slice(heading[0].length).trim()],
      start,
      end: start + 1,
    };
  }
  if (isRule(line)) return { kind: "rule", lines: [], start, end: start + 1 };
  const formula = FORMULA.exec(line);
  if (formula) {
    const mark = formula[1] === "$$" ? "$$" : "\\]";
    const closes = (/** @type {string} */ text) => text.includes(mark) || !text.trim();
    const oneLine = line.indexOf(mark, formula[0].length) >= 0;
    const last = oneLine ? start : until(lines, start + 1, closes);
    const isClosed = oneLine || Boolean(lines[last]?.trim());
    const end = isClosed ? last + 1 : last;
    return { kind: isClosed ? "paragraph" : "formula", lines: lines.slice(start, end), start, end };
  }
  if (isTable(line, lines[start + 1])) {
    const end = until(lines, start + 2, (text) => !text.includes("|"));
    return { kind: "table", lines: lines.slice(start, end), start, end };
  }
  if (depth < MAX_DEPTH && QUOTE.test(line)) {
    const end = until(lines, start, (text) => !QUOTE.test(text));
    return {
      kind: "quote",
      lines: lines.slice(start, end).map((text) => text.replace(QUOTE, "")),
      start,
      end,
    };
  }
  const item = ITEM.exec(line);
  if (depth < MAX_DEPTH && item) {
    const ordered = /\d/.test(item[2]);
    const end = listEnd(lines, start, item[1].length, ordered);
    const first = ordered ? Number.parseInt(item[2], 10) : 1;
    return {
      kind: "list",
      ordered,
      first,
      level: item[1].length,
      lines: lines.slice(start, end),
      start,
      end,
    };
  }
  const end = until(
    lines,
    start + 1,
    (text, index) => !text.trim() || interrupts(text) || isTable(text, lines[index + 1]),
  );
  return { kind: "paragraph", lines: lines.slice(start, end), start, end };
}

/**
 * The first line from `at` on for which `stop` holds, or the end.
 * @param {string[]} lines
 * @param {number} at
 */
function until(lines, at, /** @type {(line: string, index: number) => boolean} */ stop) {
  while (at < lines.length && !stop(lines[at], at)) at += 1;
  return at;
}

/** Where a list ends whose items stand at `indent`. @param {string[]} lines @param {number} start */
function listEnd(lines, start, /** @type {number} */ indent, /** @type {boolean} */ ordered) {
  let end = start + 1;
  for (let at = start + 1; at < lines.length; at += 1) {
    const line = lines[at];
    const item = ITEM.exec(line);
    if (!line.trim()) continue; // an empty line stays in the list if the list continues after it
    const deeper = indentOf(line) >= indent + 2;
    const more = item && item[1].length <= indent + 1 && /\d/.test(item[2]) === ordered && !isRule(line);
    const lazy = at === end && !interrupts(line);
    if (!deeper && !more && !lazy) break;
    end = at + 1;
  }
  return end;
}

/** @param {string} line */
function indentOf(line) {
  return line.length - line.trimStart().length;
}

/** @param {string} row */
function cells(row) {
  const parts = row.trim().replace(/^\|/, "").replace(/\|$/, "").split(/(?<!\\)\|/);
  return parts.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** @param {Block} block @param {number} [depth] @returns {HTMLElement} */
function render(block, depth = 0) {
  const text = block.lines.join("\n");
  switch (block.kind) {
    case "code":
      return codeBlock(text, block.language ?? "");
    case "formula":
      return el("p", {}, text); // it has no end, or none yet
    case "heading":
      // The page has its own h1 and h2: an answer's headings come below them.
      return el(`h${Math.min(6, (block.level ?? 1) + 2)}`, {}, ...inline(text.replace(/[ \t]#{1,6}$/, "")));
    case "rule":
      return el("hr");
    case "table":
      return tableOf(block.lines);
    case "quote":
      return el(
        "blockquote",
        {},
        ...blocksOf(block.lines, depth + 1).map((inner) => render(inner, depth + 1)),
      );
    case "list":
      return listOf(block, depth);
    default:
      return el("p", {}, ...inline(text));
  }
}

/** @param {Block} block @param {number} depth */
function listOf(block, depth) {
  const indent = block.level ?? 0;
  /** @type {string[][]} */
  const items = [];
  let width = 0;
  for (const line of block.lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= indent + 1) {
      width = Math.min(item[0].length, indent + item[2].length + 1 + indent);
      items.push([line.slice(item[0].length)]);
    } else {
      items[items.length - 1].push(line.slice(Math.min(indentOf(line), Math.max(width, 2))));
    }
  }
  const entries = items.map((lines) => {
    const task = /^\[([ xX])\][ \t]+/.exec(lines[0]);
    if (task) lines[0] = lines[0].slice(task[0].length);
    const box = task && el("input", { type: "checkbox", disabled: true, checked: task[1] !== " " });
    const inner = blocksOf(lines, depth + 1);
    const [head, ...rest] = inner;
    const other = head ? [render(head, depth + 1)] : [];
    const tight = head?.kind === "paragraph" ? inline(head.lines.join("\n")) : other;
    return el("li", { class: task && "task" }, box, ...tight, ...rest.map((one) => render(one, depth + 1)));
  });
  return el(
    block.ordered ? "ol" : "ul",
    { start: block.ordered && block.first !== 1 && block.first },
    ...entries,
  );
}

/** @param {string[]} lines heading, the line that says the alignments, rows */
function tableOf(lines) {
  const heads = cells(lines[0]);
  const classes = cells(lines[1]).map((cell) => {
    if (!cell.endsWith(":")) return null;
    return cell.startsWith(":") ? "centre" : "right";
  });
  const row = (/** @type {string} */ tag, /** @type {string[]} */ values) =>
    el(
      "tr",
      {},
      ...heads.map((_, index) => el(tag, { class: classes[index] }, ...inline(values[index] ?? ""))),
    );
  const body = lines.slice(2).map((line) => row("td", cells(line)));
  return el(
    "div",
    { class: "table", tabindex: 0 },
    el("table", {}, el("thead", {}, row("th", heads)), el("tbody", {}, ...body)),
  );
}

/** @param {string} text @param {string} language */
function codeBlock(text, language) {
  const bar = el(
    "div",
    { class: "code-bar" },
    el("span", {}, language.slice(0, 30)),
    copyButton(t("copyCode"), () => text),
  );
  return el(
    "div",
    { class: "code" },
    bar,
    el("pre", { tabindex: 0 }, el("code", {}, ...highlight(text, language))),
  );
}

/** Shows a text that grows: what is finished stays as it is, only the last blocks are rebuilt. */
export class LiveMarkdown {
  /** @param {HTMLElement} host */
  constructor(host) {
    this.host = host;
    this.text = "";
    this.settled = 0; // characters whose blocks are final
    this.kept = 0; // nodes of those blocks
  }

  /** @param {string} text */
  update(text) {
    if (!text.startsWith(this.text)) [this.settled, this.kept] = [0, 0];
    this.text = text;
    const lines = text.slice(this.settled).replaceAll("\r\n", "\n").split("\n");
    const blocks = blocksOf(lines);
    while (this.host.childNodes.length > this.kept) this.host.lastChild?.remove();
    this.host.append(...blocks.map((block) => render(block)));
    // The last line may still become part of the block before it, so two blocks stay open.
    const final = blocks.length - 2;
    if (final > 0 && !text.includes("\r")) {
      this.settled += lines.slice(0, blocks[final].start).reduce((sum, line) => sum + line.length + 1, 0);
      this.kept += final;
    }
  }
}
