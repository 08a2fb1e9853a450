/**
 * Completion mode: continues a text and shows how sure the model was of each token, those of the
 * text itself included if asked for. Takes settings and the chosen model; nothing of it is kept but
 * the text.
 */
import { streamCompletion } from "../api.js";
import { announce } from "../kit/dialogs.js";
import { byId, el } from "../kit/dom.js";
import { codeWords, problemWords, short, t } from "../kit/i18n.js";
import { growing } from "../kit/keys.js";
import { ServerProblem } from "../kit/server.js";
import { samplingFields } from "../settings/sampling.js";
import { starterButtons } from "../starters.js";
import { joined, meanBits, promptTokens } from "./tokens.js";
import { TokensView } from "./tokens_view.js";

/** @typedef {import("../api.js").Token} Token */

const ALTERNATIVES = 5;

export class Completion {
  /**
   * @param {import("../store/store.js").Settings} settings
   * @param {() => import("../api.js").Model | undefined} model
   * @param {() => void} changed a setting was changed
   */
  constructor(settings, model, changed) {
    this.settings = settings;
    this.model = model;
    this.changed = changed;
    /** @type {AbortController | null} */
    this.stopper = null;
    /** What the last run was asked and gave. */
    this.run = {
      prompt: "",
      echo: false,
      text: "",
      tokens: /** @type {Token[]} */ ([]),
      words: "",
      problem: false,
    };
    this.prompt = byId("prompt");
    this.result = byId("completion-result");
    this.fit = growing(this.prompt);
    this.wire();
  }

  wire() {
    const { settings } = this;
    this.prompt.value = settings.prompt;
    byId("echo").checked = settings.echo;
    byId("length").value = settings.length;
    const keep = () => {
      settings.prompt = this.prompt.value;
      settings.echo = byId("echo").checked;
      if (byId("length").validity.valid) settings.length = byId("length").valueAsNumber || settings.length;
      this.changed();
      this.drawStarters();
    };
    byId("completion-form").addEventListener("input", keep);
    byId("completion-form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.start();
    });
    this.prompt.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
        event.preventDefault();
        this.start();
      }
    });
    byId("completion-stop").addEventListener("click", () => this.stop());
  }

  stop() {
    this.stopper?.abort();
  }

  /** @param {string} text @param {boolean} [start] */
  setPrompt(text, start = false) {
    this.stop();
    this.prompt.value = text;
    this.settings.prompt = text;
    this.changed();
    this.fit();
    this.drawStarters();
    if (start) this.start();
    else this.prompt.focus();
  }

  async start() {
    const model = this.model()?.id;
    const prompt = this.prompt.value;
    if (!prompt || !model) return;
    this.stop();
    const stopper = new AbortController();
    this.stopper = stopper;
    const { echo, length } = this.settings;
    const run = { prompt, echo, text: "", tokens: /** @type {Token[]} */ ([]), words: "", problem: false };
    this.run = run;
    const view = this.draw();
    const body = {
      model,
      prompt,
      echo,
      ...samplingFields(this.settings),
      max_tokens: length,
      logprobs: ALTERNATIVES,
    };
    let first = 0;
    let speed = "";
    try {
      for await (const piece of streamCompletion(body, stopper.signal)) {
        first ||= performance.now();
        run.text += piece.text;
        run.tokens.push(...piece.tokens);
        this.show(view);
        const seconds = (performance.now() - first) / 1000;
        const count = piece.usage?.completion;
        if (count) {
          const measured = count > 1 && seconds > 0;
          const words = measured && t("speed", { speed: short((count - 1) / seconds) });
          speed = [t("tokens", { count }), words].filter(Boolean).join(" · ");
        }
      }
    } catch (error) {
      if (!stopper.signal.aborted) {
        if (!(error instanceof ServerProblem)) throw error;
        const detail = codeWords(error.problem) ? "" : error.problem.detail;
        run.words = [problemWords(error.problem), detail].filter(Boolean).join(" ");
        run.problem = true;
      }
    }
    if (this.stopper !== stopper) return; // another run has begun
    this.stopper = null;
    if (!run.problem) {
      const stopped = stopper.signal.aborted && t("stoppedHere");
      run.words = [stopped, speed, ...this.means()].filter(Boolean).join(" · ");
    }
    announce(run.problem ? run.words : t("answered"));
    this.draw();
  }

  /** How many of the tokens belong to the prompt. */
  get promptCount() {
    return this.run.echo ? promptTokens(this.run.tokens, this.run.prompt) : 0;
  }

  means() {
    const { tokens } = this.run;
    const parts = [
      ["promptBits", tokens.slice(0, this.promptCount)],
      ["answerBits", tokens.slice(this.promptCount)],
    ];
    return parts.map(([name, part]) => {
      const bits = meanBits(/** @type {Token[]} */ (part));
      return bits !== null && t(/** @type {string} */ (name), { bits: short(bits) });
    });
  }

  /** The text up to a token, the prompt included. @param {number} count */
  textBefore(count) {
    const { prompt, echo, tokens } = this.run;
    return (echo ? "" : prompt) + joined(tokens.slice(0, count).map((token) => token.text));
  }

  /** @param {TokensView} view */
  show(view) {
    if (this.run.tokens.length) view.update(this.run.tokens, this.promptCount);
    else view.ribbon.textContent = this.run.text;
  }

  /** What to begin with, while there is nothing else. */
  drawStarters() {
    const isEmpty = !this.prompt.value && !this.run.text && !this.stopper;
    const buttons = starterButtons(this.model(), (text) => this.setPrompt(text));
    byId("completion-starters").replaceChildren(...(isEmpty ? buttons : []));
  }

  /** Rebuilds the result; gives the ribbon, for tokens to come. */
  draw() {
    const { run } = this;
    const running = this.stopper !== null;
    byId("continue").hidden = running;
    byId("completion-stop").hidden = !running;
    const view = new TokensView((index, alternative) =>
      this.setPrompt(this.textBefore(index) + alternative, true),
    );
    this.show(view);
    const legend = el(
      "div",
      { class: "legend", "aria-hidden": "true" },
      t("likely"),
      ...[0, 1, 2, 3, 4, 5].map((step) => el("i", { class: `surprise-${step}` })),
      t("unlikely"),
    );
    const keep = () => this.setPrompt(run.echo ? run.text : run.prompt + run.text);
    const foot = el(
      "div",
      { class: "row spread" },
      el("p", { class: run.problem ? "problem" : "counts", role: "status" }, run.words),
      el("span", { class: "gap" }),
      !running && run.text && el("button", { type: "button", class: "quiet", onclick: keep }, t("keepText")),
    );
    const unknown = !running && run.text && !run.tokens.length && el("p", { class: "note" }, t("noLogprobs"));
    const all = [run.tokens.length ? legend : null, view.element, unknown, foot];
    const parts = all.filter((part) => part instanceof HTMLElement);
    this.drawStarters();
    this.result.replaceChildren(...(running || run.text || run.words ? parts : []));
    return view;
  }
}
