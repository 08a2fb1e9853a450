/**
 * The message box: takes what is typed, dropped or chosen as a file, and calls back to send it.
 * Knows nothing of conversations.
 */
import { notice } from "../kit/dialogs.js";
import { append, byId, icon } from "../kit/dom.js";
import { t } from "../kit/i18n.js";
import { entersLine, growing, isTouch } from "../kit/keys.js";
import { textBlock } from "./text_file.js";

export class Composer {
  /** @param {{send: () => void, stop: () => void, typed: () => void}} actions */
  constructor(actions) {
    this.box = /** @type {HTMLTextAreaElement} */ (byId("message"));
    this.typed = actions.typed;
    this.fit = growing(this.box);
    const form = byId("composer");
    form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      actions.send();
    });
    this.box.addEventListener("keydown", (event) => {
      if (!entersLine(event)) return;
      event.preventDefault();
      actions.send();
    });
    this.box.addEventListener("input", () => actions.typed());
    byId("stop").addEventListener("click", () => actions.stop());
    this.wireFiles(byId("chat"));
    this.draw();
  }

  /** @param {HTMLElement} target where files may be dropped */
  wireFiles(target) {
    const input = byId("message-file");
    append(byId("attach"), [icon("attach")]);
    byId("attach").addEventListener("click", () => input.click());
    input.addEventListener("change", async () => {
      const files = [...input.files];
      input.value = "";
      await this.addFiles(files);
    });
    target.addEventListener("dragover", (event) => {
      if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
    });
    target.addEventListener("drop", (event) => {
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      this.addFiles([...event.dataTransfer.files]);
    });
  }

  /** @param {File[]} files */
  async addFiles(files) {
    for (const file of files) {
      try {
        const block = await textBlock(file);
        this.text = [this.text.trimEnd(), block].filter(Boolean).join("\n\n");
      } catch (error) {
        notice(/** @type {Error} */ (error).message, "trouble");
      }
    }
    this.box.focus();
  }

  get text() {
    return this.box.value;
  }

  set text(text) {
    this.box.value = text;
    this.fit();
    this.typed();
  }

  /** What is typed next goes here; not on a touch screen, where a keyboard would cover the page. */
  focus() {
    if (!isTouch()) this.box.focus();
  }

  /** The words that depend on the keyboard, in the language of the page. */
  draw() {
    this.box.placeholder = t(isTouch() ? "messageTouch" : "messagePlaceholder");
    this.box.enterKeyHint = isTouch() ? "enter" : "send";
  }
}
