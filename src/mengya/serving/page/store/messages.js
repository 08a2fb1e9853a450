/**
 * A conversation as a model gets it: takes turns, gives messages. They come in exchanges, a question
 * with what belongs to it, so that the oldest can be left out when the context is full. Knows nothing
 * of tokens.
 */
import { pathTo } from "./conversation.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./conversation.js").Reply} Reply */
/** @typedef {{role: string, content: string | null, [more: string]: any}} Message */
/** `first` is the turn of the question. @typedef {{first: string, messages: Message[]}} Exchange */

/**
 * The exchanges that a lane's model answers: earlier replies without their thinking, as chat
 * templates want them. A question that got no answer is left out with it: no model has learned what
 * two messages of the user in a row mean.
 * @param {Conversation} conversation
 * @param {Turn | undefined} turn the question to answer, whose own replies are left out
 * @param {number} lane
 * @returns {Exchange[]}
 */
export function exchangesFor(conversation, turn, lane) {
  /** @type {Exchange[]} */
  const exchanges = [];
  const path = turn ? pathTo(conversation, turn) : [];
  path.forEach((asked, index) => {
    if (!asked.results.length) {
      exchanges.push({ first: asked.id, messages: [{ role: "user", content: asked.question }] });
    }
    const messages = exchanges.at(-1)?.messages ?? [];
    for (const { id, content } of asked.results) messages.push({ role: "tool", tool_call_id: id, content });
    if (asked === turn) return;
    const own = Math.min(lane, asked.replies.length - 1);
    const said = replyMessage(asked.replies[own]?.[path[index + 1].after[own]], path[index + 1]);
    if (said) messages.push(said);
    else if (!asked.results.length) exchanges.pop();
  });
  return exchanges;
}

/** @param {Reply | undefined} reply @param {Turn} [next] the turn after it @returns {Message | null} */
export function replyMessage(reply, next) {
  if (reply && next?.results.length) {
    const calls = reply.toolCalls.map((call) => ({
      id: call.id,
      type: "function",
      function: { name: call.name, arguments: call.arguments },
    }));
    return { role: "assistant", content: reply.content || null, tool_calls: calls };
  }
  return reply?.content ? { role: "assistant", content: reply.content } : null;
}

/** @param {Conversation} conversation @param {Exchange[]} exchanges @returns {Message[]} */
export function messagesOf(conversation, exchanges) {
  const { system } = conversation;
  const before = system.trim() ? [{ role: "system", content: system }] : [];
  return [...before, ...exchanges.flatMap(({ messages }) => messages)];
}
