/**
 * A ribbon of tokens tinted by probability, and a card that tells of one of them: its probability
 * and what the model found likely in its place. Takes tokens as they arrive; the card opens under
 * the pointer, stays when a token is pressed, and follows the arrow keys.
 */
import { el } from "../kit/dom.js";
import { t } from "../kit/i18n.js";
import { isBytes, labels, percent, surprise } from "./tokens.js";

/** @typedef {import("../api.js").Token} Token */

/** White space is made visible; a line end also breaks the line. @param {string} text */
function visible(text) {
  return text.replaceAll("\n", "↵\n").replaceAll("\t", "⇥");
}

/** @param {string} text */
function quoted(text) {
  if (isBytes(text)) return text.slice("bytes:".length);
  return visible(text).replaceAll("\n", "").replaceAll(" ", "␣") || "∅";
}

export class TokensView {
  /** @param {(index: number, alternative: string) => void} choose an alternative was pressed */
  constructor(choose) {
    this.choose = choose;
    /** @type {Token[]} */
    this.tokens = [];
    /** @type {HTMLElement[]} */
    this.spans = [];
    this.active = -1;
    this.pinned = false;
    this.ribbon = el(
      "div",
      { class: "ribbon", role: "group", tabindex: 0, "aria-label": t("tokenKeys"), title: "" },
    );
    this.card = el("div", { class: "card", hidden: true, "aria-live": "polite" });
    this.element = el("div", { class: "tokens" }, this.ribbon, this.card);
    this.ribbon.addEventListener("pointerover", (event) => {
      const index = this.indexOf(event.target);
      if (index >= 0 && !this.pinned) this.show(index);
    });
    this.ribbon.addEventListener("click", (event) => {
      const index = this.indexOf(event.target);
      this.pinned = index >= 0 && !(this.pinned && index === this.active);
      if (index >= 0) this.show(index);
      else this.hide();
    });
    this.element.addEventListener("pointerleave", () => this.pinned || this.hide());
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  /** @param {EventTarget | null} target */
  indexOf(target) {
    return target instanceof HTMLElement && target.dataset.index ? Number(target.dataset.index) : -1;
  }

  /**
   * @param {Token[]} tokens all so far
   * @param {number} promptCount how many of them are the prompt
   */
  update(tokens, promptCount) {
    this.tokens = tokens;
    // The last character may have been waiting for its other parts: its first part is drawn again.
    let from = this.spans.length;
    while (from > 0 && isBytes(tokens[from - 1].text)) from -= 1;
    const shown = labels(tokens.slice(from).map((token) => token.text));
    for (const span of this.spans.splice(from)) span.remove();
    const spans = shown.map((text, offset) => this.span(from + offset, text, from + offset < promptCount));
    this.spans.push(...spans);
    this.ribbon.append(...spans);
  }

  /** @param {number} index @param {string} text @param {boolean} prompt */
  span(index, text, prompt) {
    const step = surprise(this.tokens[index].logprob);
    const classes = [
      "token",
      step === null ? "unknown" : `surprise-${step}`,
      prompt && "of-prompt",
      !text && "part",
    ];
    return el("span", { class: classes.filter(Boolean).join(" "), "data-index": index }, visible(text));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (move && this.tokens.length) {
      event.preventDefault();
      this.show(Math.min(this.tokens.length - 1, Math.max(0, this.active + move)));
    } else if (event.key === "Escape" && !this.card.hidden) {
      event.stopPropagation();
      this.hide();
      this.ribbon.focus();
    }
  }

  hide() {
    this.spans[this.active]?.classList.remove("active");
    this.card.hidden = true;
    this.pinned = false;
    this.active = -1;
  }

  /** @param {number} index */
  show(index) {
    this.spans[this.active]?.classList.remove("active");
    this.active = index;
    const token = this.tokens[index];
    const span = this.spans[index];
    span.classList.add("active");
    const head = el(
      "div",
      { class: "card-head" },
      el("code", {}, quoted(token.text)),
      token.logprob !== null && el("span", {}, `${t("probability")} ${percent(token.logprob)}`),
    );
    const others = token.top.map(([text, logprob]) => this.alternative(index, text, logprob));
    const known = token.logprob !== null;
    const note = el("p", { class: "note" }, t(known ? "alternatives" : "firstToken"));
    const rest = known ? [note, ...others] : [note];
    this.card.replaceChildren(head, ...rest);
    this.card.hidden = false;
    this.place(span);
  }

  /** @param {number} index @param {string} text @param {number} logprob */
  alternative(index, text, logprob) {
    const label = t("chooseThis", { token: quoted(text) });
    const bar = el("meter", { min: 0, max: 1, value: Math.exp(logprob), "aria-hidden": "true" });
    const chosen = text === this.tokens[index].text;
    const attributes = {
      type: "button",
      class: chosen ? "alternative chosen" : "alternative",
      title: label,
      disabled: isBytes(text),
    };
    const onclick = () => this.choose(index, text);
    return el(
      "button",
      { ...attributes, onclick },
      el("code", {}, quoted(text)),
      bar,
      el("span", {}, percent(logprob)),
    );
  }

  /** Puts the card right under a token, inside the ribbon's width. @param {HTMLElement} span */
  place(span) {
    const box = this.element.getBoundingClientRect();
    const last = span.getClientRects();
    const at = last[last.length - 1] ?? span.getBoundingClientRect();
    const left = Math.max(0, Math.min(at.left - box.left, box.width - this.card.offsetWidth));
    this.card.style.left = `${left}px`;
    this.card.style.top = `${at.bottom - box.top}px`;
  }
}
