/**
 * Questions to the person: takes words, gives a promise of the answer. The browser's own dialog
 * element keeps the focus inside.
 */
import { byId, el, icon } from "./dom.js";
import { t } from "./i18n.js";
import { keyHolder, setKey } from "./server.js";

/**
 * @param {HTMLElement[]} body
 * @param {() => any} result what the dialog gives when it is confirmed
 * @param {boolean} [dangerous]
 * @returns {Promise<any>} null when it is cancelled
 */
function openDialog(body, result, dangerous = false) {
  return new Promise((resolve) => {
    const cancel = el(
      "button",
      { type: "button", class: "quiet", onclick: () => dialog.close() },
      t("cancel"),
    );
    const accept = el("button", { type: "submit", class: dangerous ? "danger" : "primary" }, t("ok"));
    /** @type {any} */
    let answer = null;
    const form = el(
      "form",
      {
        onsubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          answer = result();
          dialog.close();
        },
      },
      ...body,
      el("div", { class: "row end" }, cancel, accept),
    );
    const dialog = /** @type {HTMLDialogElement} */ (el("dialog", {}, form));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** @param {string} question @returns {Promise<boolean>} */
export async function confirmed(question) {
  return (await openDialog([el("p", {}, question)], () => true, true)) === true;
}

/** @param {string} label @param {string} value @returns {Promise<string | null>} */
export function askText(label, value) {
  const input = /** @type {HTMLInputElement} */ (el(
    "input",
    { type: "text", id: "answer", maxlength: 200, autofocus: true },
  ));
  input.value = value;
  return openDialog([el("label", { for: "answer" }, label), input], () => input.value.trim() || null);
}

/** @returns {Promise<string | null>} */
function askKey() {
  const input = /** @type {HTMLInputElement} */ (
    el("input", { type: "password", id: "answer", autocomplete: "off", autofocus: true, required: true })
  );
  const words = [
    el("h2", {}, t("keyTitle")),
    el("p", { class: "note" }, t("keyNote")),
    el("label", { for: "answer" }, t("keyLabel")),
  ];
  return openDialog([...words, input], () => input.value.trim() || null);
}

/** Lets requests that the server refuses without a key ask for one; two refused at once open one dialog. */
export function askKeyWhenNeeded() {
  /** @type {Promise<boolean> | null} */
  let asking = null;
  keyHolder.ask = () => {
    asking ??= askKey().then((key) => {
      asking = null;
      if (key) setKey(key);
      return key !== null;
    });
    return asking;
  };
}

/**
 * Shows a line at the top until it is closed; the same line is shown once.
 * @param {string} words
 * @param {"note"|"trouble"} [kind]
 */
export function notice(words, kind = "note") {
  const notices = byId("notices");
  for (const old of notices.children) if (old.firstChild?.textContent === words) old.remove();
  const close = el(
    "button",
    { type: "button", class: "icon-button", "aria-label": t("ok"), onclick: () => line.remove() },
    icon("close"),
  );
  const line = el(
    "div",
    { class: `notice ${kind}`, role: kind === "trouble" ? "alert" : "status" },
    el("span", {}, words),
    close,
  );
  notices.append(line);
  if (kind === "note") setTimeout(() => line.remove(), 5000);
}

/** Tells screen readers; seen by nobody. @param {string} words */
export function announce(words) {
  byId("status").textContent = words;
}
