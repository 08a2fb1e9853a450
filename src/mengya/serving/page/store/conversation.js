/**
 * A conversation is a tree of turns. A turn is one question and, for each lane (one model, or two
 * that are compared), the replies it got. Takes and gives plain JSON objects; knows nothing of the
 * screen, the browser's storage or the server.
 *
 * A turn follows the replies that were shown when it was asked (`after`). So choosing another reply
 * of an earlier turn shows the turns that followed that reply and never one that answered something
 * else; and a question that was edited is a second turn at the same place.
 */

/** @typedef {import("../kit/server.js").Problem} Problem */
/** @typedef {{id: string, name: string, arguments: string}} ToolCall */
/** What somebody says that a call gave. @typedef {{id: string, name: string, content: string}} ToolResult */
/**
 * What one model answered. Times are seconds: to the first token, of the thinking, from the first
 * to the last token.
 * @typedef {{model: string, content: string, reasoning: string, toolCalls: ToolCall[], finish:
 *   string | null, problem: Problem | null, promptTokens: number | null, completionTokens: number |
 *   null, firstSeconds: number | null, thinkingSeconds: number | null, seconds: number | null}}
 *   Reply
 */
/**
 * `replies[lane]` are the replies of a lane, `chosen[lane]` the index of the one that is shown,
 * `after` the parent's `chosen` when this was asked; of turns at the same place the one with the
 * highest `touched` is shown. With `results` the turn answers the calls of the reply before it, and
 * its question is empty.
 * @typedef {{id: string, parent: string | null, after: number[], question: string, results:
 *   ToolResult[], replies: Reply[][], chosen: number[], touched: number}} Turn
 */
/**
 * @typedef {{id: string, title: string, created: number, updated: number, system: string, models:
 *   string[], turns: Turn[]}} Conversation
 */

const TITLE_LENGTH = 28;

export function newId() {
  return Array.from(
    crypto.getRandomValues(new Uint8Array(9)),
    (byte) => byte.toString(36).padStart(2, "0"),
  ).join("");
}

/** @param {string[]} models one, or two to compare @param {string} system @returns {Conversation} */
export function newConversation(models, system) {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, system, models, turns: [] };
}

/** @param {string} model @returns {Reply} */
export function newReply(model) {
  return {
    model,
    content: "",
    reasoning: "",
    toolCalls: [],
    finish: null,
    problem: null,
    promptTokens: null,
    completionTokens: null,
    firstSeconds: null,
    thinkingSeconds: null,
    seconds: null,
  };
}

/** @param {number[]} one @param {number[]} other */
function same(one, other) {
  return one.length === other.length && one.every((value, index) => value === other[index]);
}

/**
 * The turns that follow the shown replies of `parent`, oldest first.
 * @param {Conversation} conversation
 * @param {Turn | null} parent
 */
function following(conversation, parent) {
  const after = parent ? parent.chosen : [];
  return conversation.turns.filter((turn) => turn.parent === (parent?.id ?? null) && same(turn.after, after));
}

/**
 * The turns at the place of `turn`, itself among them.
 * @param {Conversation} conversation
 * @param {Turn} turn
 */
export function siblings(conversation, turn) {
  return conversation.turns.filter((other) => other.parent === turn.parent && same(other.after, turn.after));
}

/** The turns on the screen, first to last. @param {Conversation} conversation @returns {Turn[]} */
export function shownTurns(conversation) {
  const path = [];
  let next = following(conversation, null);
  for (; next.length; next = following(conversation, path[path.length - 1])) {
    path.push(next.reduce((one, other) => (other.touched > one.touched ? other : one)));
  }
  return path;
}

/** @param {Conversation} conversation @param {Turn} turn */
export function showTurn(conversation, turn) {
  turn.touched = Math.max(0, ...conversation.turns.map((other) => other.touched)) + 1;
}

/**
 * Adds a question after what is shown, or, with `place`, as a version of an earlier one.
 * @param {Conversation} conversation
 * @param {string} question
 * @param {Turn} [place]
 * @param {ToolResult[]} [results] of the calls of the reply that is shown last, instead of a question
 * @returns {Turn} without replies yet: one empty list a lane
 */
export function ask(conversation, question, place, results = []) {
  const last = shownTurns(conversation).at(-1);
  const turn = {
    id: newId(),
    parent: place ? place.parent : (last?.id ?? null),
    after: place ? [...place.after] : [...(last?.chosen ?? [])],
    question,
    results,
    replies: conversation.models.map(() => []),
    chosen: conversation.models.map(() => 0),
    touched: 0,
  };
  conversation.turns.push(turn);
  showTurn(conversation, turn);
  if (!conversation.title) conversation.title = titleFrom(question);
  return turn;
}

/** @param {string} question */
export function titleFrom(question) {
  const line = question.trim().split("\n")[0];
  return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH)}…` : line;
}

/** Adds a reply to a lane and shows it. @param {Turn} turn @param {number} lane @param {Reply} reply */
export function addReply(turn, lane, reply) {
  turn.replies[lane].push(reply);
  turn.chosen[lane] = turn.replies[lane].length - 1;
}

/**
 * The shown reply of a lane; a turn of a time with fewer lanes answers for its last.
 * @param {Turn} turn
 * @param {number} lane
 */
export function shownReply(turn, lane) {
  const own = Math.min(lane, turn.replies.length - 1);
  return turn.replies[own]?.[turn.chosen[own]];
}

/**
 * The turns from the first to `turn`.
 * @param {Conversation} conversation
 * @param {Turn} turn
 * @returns {Turn[]}
 */
function pathTo(conversation, turn) {
  const byId = new Map(conversation.turns.map((other) => [other.id, other]));
  const path = [turn];
  for (let id = turn.parent; id !== null; id = path[0].parent) {
    path.unshift(/** @type {Turn} */ (byId.get(id)));
  }
  return path;
}

/** @typedef {{role: string, content: string | null, [more: string]: any}} Message */

/**
 * The messages that a lane's model answers: earlier replies without their thinking, as chat
 * templates want them. A question that got no answer is left out with it: no model has learned what
 * two messages of the user in a row mean.
 * @param {Conversation} conversation
 * @param {Turn} turn the question to answer; its own replies are left out
 * @param {number} lane
 */
export function messagesFor(conversation, turn, lane) {
  /** @type {Message[]} */
  const messages = conversation.system.trim() ? [{ role: "system", content: conversation.system }] : [];
  const path = pathTo(conversation, turn);
  path.forEach((asked, index) => {
    if (!asked.results.length) messages.push({ role: "user", content: asked.question });
    for (const { id, content } of asked.results) messages.push({ role: "tool", tool_call_id: id, content });
    if (asked === turn) return;
    const own = Math.min(lane, asked.replies.length - 1);
    const reply = asked.replies[own]?.[path[index + 1].after[own]];
    if (reply && path[index + 1].results.length) {
      const calls = reply.toolCalls.map((call) => ({
        id: call.id,
        type: "function",
        function: { name: call.name, arguments: call.arguments },
      }));
      messages.push({ role: "assistant", content: reply.content || null, tool_calls: calls });
    } else if (reply?.content) messages.push({ role: "assistant", content: reply.content });
    else if (!asked.results.length) messages.pop();
  });
  return messages;
}

/**
 * The same without the oldest question and what belongs to it; null when only the last one is left.
 * @param {Message[]} messages
 */
export function withoutOldest(messages) {
  const asked = messages.flatMap(({ role }, index) => (role === "user" ? [index] : []));
  if (asked.length < 2) return null;
  return [...messages.slice(0, asked[0]), ...messages.slice(asked[1])];
}
