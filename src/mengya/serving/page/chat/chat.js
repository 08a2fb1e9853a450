/**
 * The chat: shows a conversation and lets it grow: ask, stop, continue, answer again, edit, remove,
 * switch between versions. Owns the answers that are being made; they continue when another
 * conversation is opened. Takes settings and the stored conversations; notifies the sidebar.
 */
import { announce, confirmed, notice } from "../kit/dialogs.js";
import { byId, el } from "../kit/dom.js";
import { problemWords, t } from "../kit/i18n.js";
import { ServerProblem } from "../kit/server.js";
import { chatFields } from "../settings/sampling.js";
import { starterButtons } from "../starters.js";
import {
  addReply,
  ask,
  editReply,
  newConversation,
  newReply,
  removeReply,
  removeTurn,
  shownReply,
  shownTurns,
  showTurn,
  siblings,
} from "../store/conversation.js";
import { exchangesFor, messagesOf } from "../store/messages.js";
import { answer } from "./answer.js";
import { Composer } from "./composer.js";
import { Context } from "./context.js";
import { Gauge } from "./gauge.js";
import { turnView } from "./turn_view.js";

/** @typedef {import("../store/conversation.js").Conversation} Conversation */
/** @typedef {import("../store/conversation.js").Turn} Turn */
/** @typedef {import("../store/conversation.js").Reply} Reply */
/** @typedef {import("./reply_view.js").ReplyView} ReplyView */

const SAVE_EVERY = 2000; // milliseconds, while an answer grows
const NEAR_END = 60; // pixels from the end within which the log follows a growing answer
const CONTINUES = { continue_final_message: true, add_generation_prompt: false };

export class Chat {
  /**
   * @param {import("../store/store.js").Conversations} conversations
   * @param {import("../store/store.js").Settings} settings
   * @param {() => void} changed a conversation was saved, opened or named
   * @param {() => Promise<void>} loadModels asks the server again what it serves
   * @param {(id: string) => import("../api.js").Model | undefined} modelOf
   * @param {(id: string) => void} answered by a model, which the server may now know more of
   */
  constructor(conversations, settings, changed, loadModels, modelOf, answered) {
    this.answered = answered;
    this.loadModels = loadModels;
    this.modelOf = modelOf;
    this.conversations = conversations;
    this.settings = settings;
    this.changed = changed;
    /** @type {Map<Reply, {conversation: Conversation, stop: AbortController}>} */
    this.running = new Map();
    /** @type {Map<Reply, ReplyView>} */
    this.views = new Map();
    this.current = newConversation(settings.models, settings.system);
    this.follow = true;
    this.log = byId("log");
    // Formulas are drawn after the text around them, and the gauge takes room from the log.
    this.resizes = new ResizeObserver(() => this.scroll());
    this.context = new Context((model) => modelOf(model)?.context ?? null, settings);
    this.composer = new Composer({
      send: () => this.send(),
      stop: () => this.stop(),
      typed: () => this.gauge.draw(),
    });
    this.gauge = new Gauge(this.context, () => this.current, () => this.composer.text);
    this.wire();
  }

  wire() {
    this.log.addEventListener("scroll", () => {
      this.follow = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR_END;
      byId("to-end").hidden = this.follow;
    });
    byId("to-end").addEventListener("click", () => {
      this.follow = true;
      this.scroll();
    });
    addEventListener("pagehide", () => this.running.forEach(({ conversation }) => this.save(conversation)));
  }

  /** @param {Conversation | null} conversation null: a new one */
  open(conversation) {
    this.current = conversation ?? newConversation([...this.settings.models], this.settings.system);
    this.follow = true;
    this.draw();
    this.changed();
  }

  get isRunning() {
    return [...this.running.values()].some(({ conversation }) => conversation === this.current);
  }

  async send() {
    const { text } = this.composer;
    if (!text.trim() || this.isRunning) return;
    if (!this.current.models.length) await this.loadModels();
    // A notice says why, or a base model has opened completion; the text stays.
    if (!this.current.models.length || this.isRunning || this.settings.mode !== "chat") return;
    this.composer.text = "";
    this.answerAll(ask(this.current, text));
  }

  /** @param {Turn} turn */
  answerAll(turn) {
    this.follow = true;
    for (const lane of turn.replies.keys()) this.answerLane(turn, lane, this.current.models[lane]);
    this.draw();
  }

  /** @param {Turn} turn @param {number} lane @param {string} model */
  async answerLane(turn, lane, model) {
    const reply = newReply(model);
    addReply(turn, lane, reply);
    await this.generate(turn, lane, reply, []);
  }

  /** Continues a reply where it was cut. @param {Turn} turn @param {number} lane */
  async continueLane(turn, lane) {
    const reply = shownReply(turn, lane);
    if (!reply || this.isRunning) return;
    const { content, finish, edited } = reply;
    Object.assign(reply, { finish: null, problem: null, edited: false });
    const generated = this.generate(turn, lane, reply, [{ role: "assistant", content }]);
    this.drawReply(reply);
    await generated;
    if (reply.content !== content || !reply.problem) return;
    const isFull = reply.problem.code === "context_length_exceeded";
    notice(isFull ? t("cannotContinue") : problemWords(reply.problem), "trouble");
    Object.assign(reply, { finish, edited, problem: null });
    this.save(this.current);
    this.drawReply(reply);
  }

  /**
   * @param {Turn} turn
   * @param {number} lane
   * @param {Reply} reply
   * @param {import("../store/messages.js").Message[]} begun what it has already, or nothing
   */
  async generate(turn, lane, reply, begun) {
    const conversation = this.current;
    const stop = new AbortController();
    this.running.set(reply, { conversation, stop });
    conversation.updated = Date.now();
    announce(t("answering"));
    let saved = performance.now();
    const grown = () => {
      this.views.get(reply)?.schedule();
      if (performance.now() - saved <= SAVE_EVERY) return;
      saved = performance.now();
      this.save(conversation);
      if (conversation === this.current) this.gauge.draw();
    };
    try {
      await this.request(conversation, turn, lane, reply, begun, stop.signal, grown);
    } finally {
      this.running.delete(reply);
      this.save(conversation);
      this.drawReply(reply);
      if (reply.promptTokens) this.answered(reply.model);
      const ending = stop.signal.aborted ? t("stopped") : `${t("answered")} ${reply.content}`;
      const said = reply.problem ? problemWords(reply.problem) : ending;
      announce(reply.since ? `${t("slid")} ${said}` : said);
    }
  }

  /**
   * Asks with as many exchanges as fit, with fewer when the server says that they do not.
   * @param {Conversation} conversation
   * @param {Turn} turn
   * @param {number} lane
   * @param {Reply} reply
   * @param {import("../store/messages.js").Message[]} begun
   * @param {AbortSignal} signal
   * @param {() => void} grown
   */
  async request(conversation, turn, lane, reply, begun, signal, grown) {
    const { model } = reply;
    const all = exchangesFor(conversation, turn, lane);
    let kept = this.context.fitting(conversation, all, model, begun);
    for (;;) {
      reply.since = kept.length < all.length ? kept[0].first : null;
      this.save(conversation);
      this.drawCut();
      const messages = [...messagesOf(conversation, kept), ...begun];
      const more = begun.length ? CONTINUES : {};
      await answer({ model, messages, ...chatFields(this.settings), ...more }, reply, signal, grown);
      if (reply.promptTokens && !begun.length) this.context.learn(model, messages, reply.promptTokens);
      if (kept.length < 2 || !this.isTooLong(reply)) return;
      kept = kept.slice(1);
      reply.problem = null;
    }
  }

  /** Whether a shorter prompt would be answered. @param {Reply} reply */
  isTooLong(reply) {
    const asked = this.settings.sampling.max_tokens ?? 0;
    const canHelp = asked < (this.context.limitOf(reply.model) ?? Infinity);
    return reply.problem?.code === "context_length_exceeded" && canHelp;
  }

  stop() {
    for (const { conversation, stop } of this.running.values()) {
      if (conversation === this.current) stop.abort();
    }
  }

  /** @param {Conversation} conversation */
  save(conversation) {
    if (conversation.turns.length === 0) return;
    try {
      this.conversations.save(conversation);
    } catch (error) {
      if (!(error instanceof ServerProblem)) throw error;
      notice(problemWords(error.problem), "trouble");
    }
    this.changed();
  }

  /** Stops what is being made of a conversation and forgets it. @param {Conversation} conversation */
  remove(conversation) {
    for (const one of this.running.values()) if (one.conversation === conversation) one.stop.abort();
    conversation.turns = []; // an answer that still ends must not bring it back
    this.conversations.remove(conversation.id);
    if (conversation === this.current) this.open(null);
    this.changed();
  }

  draw() {
    this.views.clear();
    const shown = shownTurns(this.current);
    const turns = shown.map((turn) => this.turn(turn, turn === shown.at(-1)));
    this.log.replaceChildren(...(turns.length ? turns : [this.greeting()]));
    this.log.classList.toggle("wide", this.current.models.length > 1);
    this.drawCut();
    this.resizes.disconnect();
    for (const element of [this.log, ...this.log.children]) this.resizes.observe(element);
    this.drawButtons();
    this.composer.draw();
    this.gauge.refresh();
    this.scroll();
  }

  /** @param {Reply} reply */
  drawReply(reply) {
    this.views.get(reply)?.draw(this.running.has(reply));
    this.drawButtons();
    this.gauge.refresh();
  }

  /** @param {Turn} turn @param {boolean} isLast */
  turn(turn, isLast) {
    const canGive = isLast && this.current.models.length === 1; // two models would have called differently
    const { element, views } = turnView(this.current, turn, {
      edit: (place, text) => this.isRunning || this.answerAll(ask(this.current, text, place)),
      again: (lane) => this.again(turn, lane),
      more: isLast ? (lane) => this.continueLane(turn, lane) : null,
      rewrite: (lane, text) => this.choose(() => editReply(turn, lane, text)),
      removeTurn: () => this.removeTurn(turn),
      removeReply: (lane) => this.removeReply(turn, lane),
      chooseTurn: (one) => this.choose(() => showTurn(this.current, one)),
      chooseReply: (lane, index) => this.choose(() => (turn.chosen[lane] = index)),
      drawn: () => this.follow && this.scroll(),
      contextOf: this.context.limitOf,
      giveResults: canGive
        ? (results) => this.isRunning || this.answerAll(ask(this.current, "", undefined, results))
        : null,
    });
    element.dataset.turn = turn.id;
    for (const [reply, view] of views) {
      this.views.set(reply, view);
      view.draw(this.running.has(reply));
    }
    return element;
  }

  /** Says between which turns the prompt of the last answer began, where older ones did not fit. */
  drawCut() {
    this.log.querySelector(".cut")?.remove();
    const last = shownTurns(this.current).at(-1);
    const since = last?.replies.map((_, lane) => shownReply(last, lane)?.since).find(Boolean);
    const from = [...this.log.children].find((element) => element.dataset.turn === since);
    if (since && from) from.before(el("p", { class: "cut", role: "note" }, t("slid")));
  }

  /** @param {Turn} turn @param {number} lane */
  again(turn, lane) {
    if (this.isRunning) return;
    const model = this.current.models[lane] ?? turn.replies[lane].at(-1)?.model ?? this.current.models[0];
    this.answerLane(turn, lane, model);
    this.draw();
  }

  /** @param {Turn} turn */
  async removeTurn(turn) {
    const hasVersions = siblings(this.current, turn).length > 1;
    const conversation = this.current;
    if (this.isRunning || !(await confirmed(t(hasVersions ? "removeVersion" : "removeTurn")))) return;
    if (conversation !== this.current || this.isRunning) return;
    if (conversation.turns.length === 1) this.remove(conversation);
    else this.choose(() => removeTurn(conversation, turn));
  }

  /** @param {Turn} turn @param {number} lane */
  async removeReply(turn, lane) {
    const conversation = this.current;
    if (this.isRunning || !(await confirmed(t("removeReply")))) return;
    if (conversation === this.current) this.choose(() => removeReply(conversation, turn, lane));
  }

  /** @param {() => void} change */
  choose(change) {
    if (this.isRunning) return; // the answer being made belongs to the versions that are shown
    change();
    this.save(this.current);
    this.follow = false;
    this.draw();
  }

  drawButtons() {
    const running = this.isRunning;
    byId("send").hidden = running;
    byId("stop").hidden = !running;
  }

  scroll() {
    if (this.follow) this.log.scrollTop = this.log.scrollHeight;
  }

  greeting() {
    const leaf = el("img", { src: "kit/icon.svg", alt: "", width: 44, height: 44 });
    return el(
      "div",
      { class: "greeting" },
      leaf,
      el("h2", {}, t("greeting")),
      el("p", { class: "note" }, t("greetingNote")),
      ...starterButtons(this.modelOf(this.current.models[0]), (text) => this.fill(text)),
    );
  }

  /** @param {string} text */
  fill(text) {
    this.composer.text = text;
    this.composer.focus();
  }
}
