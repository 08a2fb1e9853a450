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
 * to the last token. `since` is the turn that its prompt began with where older ones did not fit
 * into the context; `edited` says that a person wrote it.
 * @typedef {{model: string, content: string, reasoning: string, toolCalls: ToolCall[], finish:
 *   string | null, problem: Problem | null, promptTokens: number | null, completionTokens: number |
 *   null, firstSeconds: number | null, thinkingSeconds: number | null, seconds: number | null,
 *   since: string | null, edited: boolean}} Reply
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
    since: null,
    edited: false,
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
 * A version of a shown reply as a person wants it; it is shown.
 * @param {Turn} turn
 * @param {number} lane
 * @param {string} content
 */
export function editReply(turn, lane, content) {
  const { model = "", since = null } = shownReply(turn, lane) ?? {};
  addReply(turn, lane, { ...newReply(model), content, since, finish: "stop", edited: true });
}

/**
 * Removes the shown reply of a lane, one of several, and what followed it.
 * @param {Conversation} conversation
 * @param {Turn} turn
 * @param {number} lane
 */
export function removeReply(conversation, turn, lane) {
  const index = turn.chosen[lane];
  const follows = (/** @type {Turn} */ one) => one.parent === turn.id && one.after[lane] === index;
  removeTurns(conversation, conversation.turns.filter(follows));
  turn.replies[lane].splice(index, 1);
  turn.chosen[lane] = Math.max(0, index - 1);
  for (const one of conversation.turns) {
    if (one.parent === turn.id && one.after[lane] > index) one.after[lane] -= 1;
  }
}

/**
 * Removes a question with its replies and the results of their calls. What followed follows the turn
 * before it; where there is another version of the question, it goes too.
 * @param {Conversation} conversation
 * @param {Turn} turn
 */
export function removeTurn(conversation, turn) {
  if (siblings(conversation, turn).length > 1) return removeTurns(conversation, [turn]);
  const isResult = (/** @type {Turn} */ one) => one.parent === turn.id && one.results.length > 0;
  for (let next = conversation.turns.find(isResult); next; next = conversation.turns.find(isResult)) {
    takeOut(conversation, next);
  }
  const next = following(conversation, turn).sort((one, other) => other.touched - one.touched)[0];
  takeOut(conversation, turn);
  if (next) showTurn(conversation, next);
}

/** Removes one turn; what followed it follows the turn before it. @param {Conversation} conversation */
function takeOut(conversation, /** @type {Turn} */ turn) {
  for (const one of conversation.turns) {
    if (one.parent === turn.id) Object.assign(one, { parent: turn.parent, after: [...turn.after] });
  }
  conversation.turns = conversation.turns.filter((one) => one !== turn);
}

/** Removes turns and all that followed them. @param {Conversation} conversation @param {Turn[]} turns */
function removeTurns(conversation, turns) {
  const gone = new Set(turns.map(({ id }) => id));
  // Parents come before what follows them.
  for (const { id, parent } of conversation.turns) if (parent !== null && gone.has(parent)) gone.add(id);
  conversation.turns = conversation.turns.filter(({ id }) => !gone.has(id));
}

/**
 * The turns from the first to `turn`.
 * @param {Conversation} conversation
 * @param {Turn} turn
 * @returns {Turn[]}
 */
export function pathTo(conversation, turn) {
  const byId = new Map(conversation.turns.map((other) => [other.id, other]));
  const path = [turn];
  for (let id = turn.parent; id !== null; id = path[0].parent) {
    path.unshift(/** @type {Turn} */ (byId.get(id)));
  }
  return path;
}
