/**
 * The chat: shows a conversation and lets it grow: ask, stop, answer again, edit, switch between
 * versions. Owns the answers that are being made; they continue when another conversation is
 * opened. Takes settings and the stored conversations; notifies the sidebar.
 */
import { announce, notice } from "../kit/dialogs.js";
import { byId, el } from "../kit/dom.js";
import { problemWords, t } from "../kit/i18n.js";
import { entersLine, growing } from "../kit/keys.js";
import { ServerProblem } from "../kit/server.js";
import { chatFields } from "../settings/sampling.js";
import {
  addReply,
  ask,
  newConversation,
  newReply,
  messagesFor,
  shownTurns,
  showTurn,
  withoutOldest,
} from "../store/conversation.js";
import { answer } from "./answer.js";
import { turnView } from "./turn_view.js";

/** @typedef {import("../store/conversation.js").Conversation} Conversation */
/** @typedef {import("../store/conversation.js").Turn} Turn */
/** @typedef {import("../store/conversation.js").Reply} Reply */
/** @typedef {import("./reply_view.js").ReplyView} ReplyView */

const SAVE_EVERY = 2000; // milliseconds, while an answer grows
const FREE = 0.25; // of the context, for the answer
const NEAR_END = 60; // pixels from the end within which the log follows a growing answer

export class Chat {
  /**
   * @param {import("../store/store.js").Conversations} conversations
   * @param {import("../store/store.js").Settings} settings
   * @param {() => void} changed a conversation was saved, opened or named
   * @param {() => Promise<void>} loadModels asks the server again what it serves
   * @param {(model: string) => number | null} contextOf most tokens of a model, where that is known
   */
  constructor(conversations, settings, changed, loadModels, contextOf) {
    this.loadModels = loadModels;
    this.contextOf = contextOf;
    this.tokensPerCharacter = 0; // of the last prompt; 0: not known yet
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
    this.message = byId("message");
    this.fit = growing(this.message);
    this.wire();
  }

  wire() {
    byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.send();
    });
    this.message.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (!entersLine(event)) return;
      event.preventDefault();
      this.send();
    });
    byId("stop").addEventListener("click", () => this.stop());
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
    const text = this.message.value;
    if (!text.trim() || this.isRunning) return;
    if (!this.current.models.length) await this.loadModels();
    if (!this.current.models.length || this.isRunning) return; // a notice says why; the text stays
    this.message.value = "";
    this.fit();
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
    const conversation = this.current;
    const reply = newReply(model);
    addReply(turn, lane, reply);
    const stop = new AbortController();
    this.running.set(reply, { conversation, stop });
    const full = messagesFor(conversation, turn, lane);
    let messages = this.fitting(full, model);
    let saved = performance.now();
    conversation.updated = Date.now();
    this.save(conversation);
    announce(t("answering"));
    const grown = () => {
      this.views.get(reply)?.schedule();
      if (performance.now() - saved > SAVE_EVERY) {
        saved = performance.now();
        this.save(conversation);
      }
    };
    try {
      for (;;) {
        await answer({ model, messages, ...chatFields(this.settings) }, reply, stop.signal, grown);
        const isFull = reply.problem?.code === "context_length_exceeded";
        const shorter = isFull ? withoutOldest(messages) : null;
        if (!shorter) break;
        messages = shorter;
        reply.problem = null;
      }
      if (reply.promptTokens) this.tokensPerCharacter = reply.promptTokens / lengthOf(messages);
      if (messages.length < full.length) notice(t("slid"));
    } finally {
      this.running.delete(reply);
      this.save(conversation);
      this.views.get(reply)?.draw(false);
      this.drawButtons();
      const ending = stop.signal.aborted ? t("stopped") : `${t("answered")} ${reply.content}`;
      announce(reply.problem ? problemWords(reply.problem) : ending);
    }
  }

  /**
   * The messages without the oldest questions that would leave the answer too little of the context, as
   * far as the last prompt shows how many tokens they make.
   * @param {import("../store/conversation.js").Message[]} messages
   * @param {string} model
   */
  fitting(messages, model) {
    const most = (this.contextOf(model) ?? Infinity) * (1 - FREE);
    let kept = messages;
    while (lengthOf(kept) * this.tokensPerCharacter > most) {
      const shorter = withoutOldest(kept);
      if (!shorter) break;
      kept = shorter;
    }
    return kept;
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
    const turns = shown.map((turn) => {
      // Two models would have called differently.
      const last = turn === shown.at(-1) && this.current.models.length === 1;
      const { element, views } = turnView(this.current, turn, {
        edit: (place, text) => this.isRunning || this.answerAll(ask(this.current, text, place)),
        again: (of, lane) => this.again(of, lane),
        chooseTurn: (one) => this.choose(() => showTurn(this.current, one)),
        chooseReply: (of, lane, index) => this.choose(() => (of.chosen[lane] = index)),
        drawn: () => this.follow && this.scroll(),
        giveResults: last
          ? (results) => this.isRunning || this.answerAll(ask(this.current, "", undefined, results))
          : null,
      });
      for (const [reply, view] of views) {
        this.views.set(reply, view);
        view.draw(this.running.has(reply));
      }
      return element;
    });
    this.log.replaceChildren(...(turns.length ? turns : [this.greeting()]));
    this.log.classList.toggle("wide", this.current.models.length > 1);
    this.drawButtons();
    this.scroll();
  }

  /** @param {Turn} turn @param {number} lane */
  again(turn, lane) {
    if (this.isRunning) return;
    const model = this.current.models[lane] ?? turn.replies[lane].at(-1)?.model ?? this.current.models[0];
    this.answerLane(turn, lane, model);
    this.draw();
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
    const starters = ["starter1", "starter2", "starter3", "starter4"].map((name) =>
      el("button", { type: "button", class: "starter", onclick: () => this.fill(t(name)) }, t(name)),
    );
    const leaf = el("img", { src: "icon.svg", alt: "", width: 44, height: 44 });
    return el(
      "div",
      { class: "greeting" },
      leaf,
      el("h2", {}, t("greeting")),
      el("p", { class: "note" }, t("greetingNote")),
      ...starters,
    );
  }

  /** @param {string} text */
  fill(text) {
    this.message.value = text;
    this.fit();
    this.message.focus();
  }
}

/** Characters of messages, as the server gets them. @param {object[]} messages */
function lengthOf(messages) {
  return JSON.stringify(messages).length;
}
