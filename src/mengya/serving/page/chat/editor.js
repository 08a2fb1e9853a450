/** A text being edited in its place: takes the text and what to do with it, gives an element. */
import { el } from "../kit/dom.js";
import { t } from "../kit/i18n.js";
import { entersLine } from "../kit/keys.js";

/**
 * @param {string} text
 * @param {{label: string, done: string, finish: (text: string) => void, cancel: () => void, lines?:
 *   boolean}} options `done` is on the button; with `lines`, Enter is a new line and Ctrl+Enter finishes
 */
export function editor(text, { label, done, finish, cancel, lines = false }) {
  const rows = Math.min(14, Math.max(3, text.split("\n").length + 1));
  const area = /** @type {HTMLTextAreaElement} */ (el("textarea", { rows, "aria-label": label }));
  area.value = text;
  const accept = () => area.value.trim() && finish(area.value);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    } else if (entersLine(event, lines)) {
      event.preventDefault();
      accept();
    }
  });
  const buttons = el(
    "div",
    { class: "row end" },
    el("button", { type: "button", class: "quiet", onclick: cancel }, t("cancel")),
    el("button", { type: "button", class: "primary", onclick: accept }, done),
  );
  const element = el("div", { class: "editor" }, area, buttons);
  queueMicrotask(() => area.focus());
  return element;
}
