/**
 * How full a model's context is: takes messages and what the server counted, gives how many tokens
 * the next prompt has and which exchanges fit. Between two counts it estimates by characters. Knows
 * nothing of the screen.
 */
import { countTokens } from "../api.js";
import { promptFields } from "../settings/sampling.js";
import { shownReply, shownTurns } from "../store/conversation.js";
import { exchangesFor, messagesOf, replyMessage } from "../store/messages.js";

/** @typedef {import("../store/conversation.js").Conversation} Conversation */
/** @typedef {import("../store/messages.js").Message} Message */
/** @typedef {import("../store/messages.js").Exchange} Exchange */
/**
 * `limit` is the context; `exact` whether the server counted `used` (what is typed is estimated).
 * @typedef {{used: number, limit: number, exact: boolean}} Fill
 */

const FREE = 0.25; // of the context, for the answer
const GUESS = 0.7; // tokens of a character, before anything was counted

export class Context {
  /**
   * @param {(model: string) => number | null} limitOf most tokens of a model, where that is known
   * @param {import("../store/store.js").Settings} settings
   */
  constructor(limitOf, settings) {
    this.limitOf = limitOf;
    this.settings = settings;
    /** Tokens of a character, by model. @type {Map<string, number>} */
    this.ratios = new Map();
    /** What the server counted, by its request. @type {Map<string, number>} */
    this.counted = new Map();
  }

  /** @param {string} model @param {Message[]} messages @param {number} tokens */
  learn(model, messages, tokens) {
    this.ratios.set(model, tokens / lengthOf(messages));
  }

  /** @param {string} model @param {number} characters */
  estimate(model, characters) {
    return Math.ceil(characters * (this.ratios.get(model) ?? GUESS));
  }

  /** How much of the context a prompt may take; null: not known. @param {string} model */
  room(model) {
    const limit = this.limitOf(model);
    if (limit === null) return null;
    const asked = this.settings.sampling.max_tokens ?? Infinity;
    return asked < limit ? limit - asked : Math.floor(limit * (1 - FREE));
  }

  /**
   * The exchanges without the oldest that would leave the answer too little, as far as the last prompt
   * shows how many tokens they make.
   * @param {Conversation} conversation
   * @param {Exchange[]} exchanges
   * @param {string} model
   * @param {Message[]} begun the answer, where it is to be continued
   */
  fitting(conversation, exchanges, model, begun) {
    const room = this.room(model);
    if (room === null || !this.ratios.has(model)) return exchanges; // the server says when it is too much
    const isTooMuch = (/** @type {Exchange[]} */ kept) =>
      this.estimate(model, lengthOf([...messagesOf(conversation, kept), ...begun])) > room;
    let kept = exchanges;
    while (kept.length > 1 && isTooMuch(kept)) kept = kept.slice(1);
    return kept;
  }

  /**
   * What the next prompt will have of the context, in the lane that is fuller; null: no context is known.
   * @param {Conversation} conversation
   * @param {string} typed
   * @returns {Fill | null}
   */
  fill(conversation, typed) {
    const fills = conversation.models.flatMap((model, lane) => {
      const limit = this.limitOf(model);
      if (limit === null) return [];
      const messages = nextMessages(conversation, lane);
      const counted = this.counted.get(JSON.stringify(this.prompt(model, messages)));
      const used = counted ?? this.fromUsage(conversation, model, lane, messages);
      const more = typed ? this.estimate(model, typed.length) : 0;
      return [{ used: used + more, limit, exact: counted !== undefined && !more }];
    });
    return fills.sort((one, other) => other.used / other.limit - one.used / one.limit)[0] ?? null;
  }

  /**
   * @param {Conversation} conversation
   * @param {string} model
   * @param {number} lane
   * @param {Message[]} messages
   */
  fromUsage(conversation, model, lane, messages) {
    const last = shownTurns(conversation).at(-1);
    const reply = last && shownReply(last, lane);
    if (!messages.length) return 0;
    if (!last || !reply?.promptTokens || reply.model !== model) {
      return this.estimate(model, lengthOf(messages));
    }
    if (!this.ratios.has(model)) this.learn(model, promptMessages(conversation, lane), reply.promptTokens);
    // The thinking is not sent again.
    const share = reply.content.length / Math.max(1, reply.content.length + reply.reasoning.length);
    return reply.promptTokens + Math.round((reply.completionTokens ?? 0) * share);
  }

  /** @param {string} model @param {Message[]} messages */
  prompt(model, messages) {
    return { model, messages, ...promptFields(this.settings) };
  }

  /**
   * Asks the server to count what the next prompt has so far. Nothing that is only typed is sent.
   * @param {Conversation} conversation
   */
  async count(conversation) {
    for (const [lane, model] of conversation.models.entries()) {
      const messages = nextMessages(conversation, lane);
      const prompt = this.prompt(model, messages);
      const name = JSON.stringify(prompt);
      if (!messages.length || this.limitOf(model) === null || this.counted.has(name)) continue;
      const tokens = await countTokens(prompt);
      if (tokens === null) continue;
      if (this.counted.size > 50) this.counted.clear();
      this.counted.set(name, tokens);
      this.learn(model, messages, tokens);
    }
  }
}

/** What was sent for the last reply of a lane. @param {Conversation} conversation @param {number} lane */
function promptMessages(conversation, lane) {
  const last = shownTurns(conversation).at(-1);
  const exchanges = exchangesFor(conversation, last, lane);
  const since = (last && shownReply(last, lane)?.since) ?? null;
  const from = exchanges.findIndex(({ first }) => first === since);
  return messagesOf(conversation, exchanges.slice(Math.max(0, from)));
}

/** That and the last reply. @param {Conversation} conversation @param {number} lane */
function nextMessages(conversation, lane) {
  const last = shownTurns(conversation).at(-1);
  const said = replyMessage(last && shownReply(last, lane));
  return [...promptMessages(conversation, lane), ...(said ? [said] : [])];
}

/** Characters of messages, as the server gets them. @param {Message[]} messages */
export function lengthOf(messages) {
  return JSON.stringify(messages).length;
}
