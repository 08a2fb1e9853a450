/**
 * Conversations as files: takes conversations, gives JSON (everything, to import again) or Markdown
 * (what is shown, to read), and takes a file's text back. Knows nothing of the screen.
 */
import { el } from "../kit/dom.js";
import { t } from "../kit/i18n.js";
import { newId, shownReply, shownTurns } from "./conversation.js";
import { readConversation } from "./validate.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

const FORMAT = "mengya-conversations";
const MOST = 10_000;

/** @param {Conversation[]} conversations */
export function toJson(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
}

/** @param {Conversation} conversation */
export function toMarkdown(conversation) {
  const parts = [`# ${conversation.title}`];
  if (conversation.system.trim()) parts.push(`> ${conversation.system.trim().replaceAll("\n", "\n> ")}`);
  for (const turn of shownTurns(conversation)) {
    parts.push(`## ${t("you")}`);
    if (!turn.results.length) parts.push(turn.question);
    for (const { name, content } of turn.results) {
      parts.push(`${t("toolResult", { name })}\n\n${fenced(content)}`);
    }
    for (let lane = 0; lane < turn.replies.length; lane += 1) {
      const reply = shownReply(turn, lane);
      if (!reply) continue;
      parts.push(`## ${reply.model}`);
      if (reply.reasoning) {
        const summary = `<summary>${t("thoughtPlain")}</summary>`;
        parts.push(`<details>${summary}\n\n${reply.reasoning.trim()}\n\n</details>`);
      }
      if (reply.content) parts.push(reply.content.trim());
      for (const call of reply.toolCalls) {
        const written = JSON.stringify({ name: call.name, arguments: call.arguments });
        parts.push(`\`\`\`json\n${written}\n\`\`\``);
      }
    }
  }
  return `${parts.join("\n\n")}\n`;
}

/** As a block of code that no backticks inside it can end. @param {string} content */
export function fenced(content) {
  const longest = Math.max(2, ...[...content.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}\n${content}\n${fence}`;
}

/**
 * The conversations of an exported file, under new ids, so that importing twice overwrites nothing.
 * @param {string} text
 * @returns {Conversation[]}
 * @throws {Error} with the reason, when anything in it is not as exported
 */
export function fromJson(text) {
  const value = JSON.parse(text);
  if (value?.format !== FORMAT || value.version !== 1) throw new Error(`format: not ${FORMAT} 1`);
  if (!Array.isArray(value.conversations) || value.conversations.length > MOST) {
    throw new Error(`conversations: not a list up to ${MOST}`);
  }
  return value.conversations.map((/** @type {unknown} */ one) => ({ ...readConversation(one), id: newId() }));
}

/** Hands a text to the browser as a file. @param {string} name @param {string} text @param {string} type */
export function download(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name.replace(/[\\/:*?"<>|\n]/g, "_").slice(0, 80) }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
