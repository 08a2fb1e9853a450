/**
 * The list of conversations: open, rename, delete, export, import. Takes the stored conversations
 * and the chat; on a narrow screen it is a panel that opens over the page.
 */
import { askText, confirmed, notice } from "./kit/dialogs.js";
import { append, byId, el, icon, iconButton } from "./kit/dom.js";
import { problemWords, t } from "./kit/i18n.js";
import { ServerProblem } from "./kit/server.js";
import { download, fromJson, toJson, toMarkdown } from "./store/transfer.js";

/** @typedef {import("./store/conversation.js").Conversation} Conversation */

export class Sidebar {
  /**
   * @param {import("./store/store.js").Conversations} conversations
   * @param {import("./chat/chat.js").Chat} chat
   */
  constructor(conversations, chat) {
    this.conversations = conversations;
    this.chat = chat;
    byId("search").addEventListener("input", () => this.draw());
    byId("new-chat").addEventListener("click", () => this.open(null));
    byId("export-all").addEventListener("click", () => this.exportJson(this.conversations.list(), "mengya"));
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", () => this.importFile());
    byId("open-menu").addEventListener("click", () => this.slide(true));
    byId("close-menu").addEventListener("click", () => this.slide(false));
    byId("veil").addEventListener("click", () => this.slide(false));
    append(byId("open-menu"), [icon("menu")]);
    append(byId("close-menu"), [icon("close")]);
    this.draw();
  }

  /** @param {boolean} open whether the panel is over the page; on a wide screen it is always next to it */
  slide(open) {
    document.body.classList.toggle("menu-open", open);
    byId("open-menu").setAttribute("aria-expanded", String(open));
    if (open) byId("close-menu").focus();
  }

  /** @param {Conversation | null} conversation */
  open(conversation) {
    this.chat.open(conversation);
    this.slide(false);
    byId("chat-mode").click();
    this.chat.composer.focus();
  }

  draw() {
    byId("new-chat").replaceChildren(icon("plus"), t("newChat"));
    byId("import").replaceChildren(icon("open"), t("importFile"));
    byId("export-all").replaceChildren(icon("save"), t("exportAll"));
    const sought = byId("search").value.trim().toLowerCase();
    const all = this.conversations.list();
    const shown = all.filter((one) => !sought || holds(one, sought));
    byId("history-empty").hidden = all.length > 0;
    byId("search").hidden = all.length < 2;
    byId("history-none").textContent = sought && !shown.length ? t("noHits", { sought }) : "";
    byId("history-list").replaceChildren(...shown.map((one) => this.entry(one)));
  }

  /** @param {Conversation} conversation */
  entry(conversation) {
    const current = conversation === this.chat.current;
    const title = conversation.title || t("untitled");
    const name = el(
      "button",
      {
        type: "button",
        class: "entry",
        "aria-current": current && "true",
        onclick: () => this.open(conversation),
      },
      el("span", {}, title),
    );
    const markdown = () => download(`${title}.md`, toMarkdown(conversation), "text/markdown");
    const tools = el(
      "span",
      { class: "entry-tools" },
      iconButton("edit", t("rename"), () => this.rename(conversation)),
      iconButton("page", t("exportMarkdown"), markdown),
      iconButton("braces", t("exportJson"), () => this.exportJson([conversation], title)),
      iconButton("trash", t("remove"), () => this.remove(conversation, title)),
    );
    return el("li", { class: current && "current" }, name, tools);
  }

  /** @param {Conversation} conversation */
  async rename(conversation) {
    const title = await askText(t("renameQuestion"), conversation.title);
    if (title === null) return;
    conversation.title = title;
    this.chat.save(conversation);
  }

  /** @param {Conversation} conversation @param {string} title */
  async remove(conversation, title) {
    if (await confirmed(t("removeQuestion", { title }))) this.chat.remove(conversation);
  }

  /** @param {Conversation[]} conversations @param {string} title */
  exportJson(conversations, title) {
    download(`${title}.json`, toJson(conversations), "application/json");
    notice(t("exported"));
  }

  async importFile() {
    const input = byId("import-file");
    const file = input.files[0];
    input.value = "";
    if (!file) return;
    try {
      const read = fromJson(await file.text()); // all of them are checked before the first is kept
      for (const conversation of read) this.conversations.save(conversation);
      notice(t("imported", { count: read.length }));
    } catch (error) {
      const words =
        error instanceof ServerProblem
          ? problemWords(error.problem)
          : t("importFailed", { reason: String(error) });
      notice(words, "trouble");
    }
    this.draw();
  }
}

/**
 * Whether a conversation says something.
 * @param {Conversation} conversation
 * @param {string} sought in lower case
 */
function holds(conversation, sought) {
  const says = (/** @type {string} */ text) => text.toLowerCase().includes(sought);
  return (
    says(conversation.title) ||
    conversation.turns.some(
      (turn) => says(turn.question) || turn.replies.flat().some((reply) => says(reply.content)),
    )
  );
}
