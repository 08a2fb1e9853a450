/**
 * The drawer: system prompt, sampling, thinking, tools. Takes the settings and changes them;
 * `changed` is called after each change.
 */
import { byId, el } from "../kit/dom.js";
import { t } from "../kit/i18n.js";
import { FIELDS, readTools } from "./sampling.js";

/** @typedef {import("../store/store.js").Settings} Settings */

export class Drawer {
  /**
   * @param {Settings} settings
   * @param {{get: () => string, set: (text: string) => void}} system the system prompt of the open
   *   conversation
   * @param {() => void} changed
   */
  constructor(settings, system, changed) {
    this.settings = settings;
    this.system = system;
    this.changed = changed;
    this.panel = byId("settings");
    byId("open-settings").addEventListener("click", () => this.toggle(this.panel.hidden));
    byId("close-settings").addEventListener("click", () => this.toggle(false));
    byId("veil").addEventListener("click", () => this.panel.hidden || this.toggle(false));
    this.draw();
  }

  /** @param {boolean} open */
  toggle(open) {
    this.panel.hidden = !open;
    document.body.classList.toggle("settings-open", open);
    byId("open-settings").setAttribute("aria-expanded", String(open));
    if (open) byId("close-settings").focus();
    else byId("open-settings").focus();
  }

  draw() {
    const reset = () => {
      this.settings.sampling = {};
      this.settings.thinking = "default";
      this.changed();
      this.draw();
    };
    byId("settings-body").replaceChildren(
      el("section", { class: "chat-only" }, ...this.systemField()),
      el(
        "section",
        {},
        el("h3", {}, t("sampling")),
        el("p", { class: "note" }, t("samplingNote")),
        ...FIELDS.map((field) => this.field(field)),
      ),
      el("section", { class: "chat-only" }, this.thinkingField(), ...this.toolsField()),
      el("button", { type: "button", class: "quiet", onclick: reset }, t("resetSettings")),
    );
  }

  systemField() {
    const area = /** @type {HTMLTextAreaElement} */ (el(
      "textarea",
      { id: "system", rows: 4, placeholder: t("systemPlaceholder") },
    ));
    area.value = this.system.get();
    area.addEventListener("input", () => this.system.set(area.value));
    return [el("label", { for: "system" }, t("system")), area, el("p", { class: "note" }, t("systemNote"))];
  }

  /** @param {import("./sampling.js").Field} field */
  field({ name, min, max, step }) {
    const id = `field-${name}`;
    const problem = el(
      "p",
      { class: "note trouble", id: `${id}-problem`, hidden: true },
      t("invalidNumber", { min, max }),
    );
    const attributes = {
      type: "number",
      id,
      min,
      max,
      step: step === 1 ? 1 : "any",
      placeholder: t("byDefault"),
      inputmode: "decimal",
    };
    const input = /** @type {HTMLInputElement} */ (el(
      "input",
      { ...attributes, "aria-describedby": problem.id },
    ));
    if (this.settings.sampling[name] !== undefined) input.value = String(this.settings.sampling[name]);
    input.addEventListener("input", () => {
      problem.hidden = input.validity.valid;
      input.setAttribute("aria-invalid", String(!input.validity.valid));
      if (input.value === "" || !input.validity.valid) delete this.settings.sampling[name];
      else this.settings.sampling[name] = input.valueAsNumber;
      this.changed();
    });
    const label = el("label", { for: id }, t(name), el("small", {}, t(`${name}Note`)));
    return el("div", { class: name === "max_tokens" ? "field chat-only" : "field" }, label, input, problem);
  }

  thinkingField() {
    const options = [
      ["default", t("byDefault")],
      ["on", t("on")],
      ["off", t("off")],
    ].map(([value, words]) => el("option", { value, selected: value === this.settings.thinking }, words));
    const select = /** @type {HTMLSelectElement} */ (el("select", { id: "thinking" }, ...options));
    select.addEventListener("change", () => {
      this.settings.thinking = /** @type {Settings["thinking"]} */ (select.value);
      this.changed();
    });
    return el("div", { class: "field" }, el("label", { for: "thinking" }, t("enableThinking")), select);
  }

  toolsField() {
    const area = /** @type {HTMLTextAreaElement} */ (el(
      "textarea",
      { id: "tools", rows: 3, spellcheck: "false", class: "mono", placeholder: "[]" },
    ));
    const problem = el("p", { class: "note trouble", role: "status" });
    area.value = this.settings.tools;
    const check = () => {
      const { reason } = readTools(area.value);
      problem.textContent = reason === undefined ? "" : t("invalidTools", { reason });
      area.setAttribute("aria-invalid", String(reason !== undefined));
    };
    area.addEventListener("input", () => {
      this.settings.tools = area.value;
      this.changed();
      check();
    });
    check();
    return [
      el("label", { for: "tools" }, t("tools")),
      area,
      el("p", { class: "note" }, t("toolsNote")),
      problem,
    ];
  }
}
