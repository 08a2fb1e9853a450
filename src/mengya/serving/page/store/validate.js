/**
 * Reads conversations out of untrusted JSON (an imported file, an old version's storage). Takes any
 * value, gives a new `Conversation` built field by field, or throws with the reason: nothing of the
 * value but checked strings and numbers is kept.
 */

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./conversation.js").Reply} Reply */

// Characters of one text; more than the browser stores: what was written here can be read back.
const LONGEST = 10_000_000;
const MOST_TURNS = 5_000;
const MOST_REPLIES = 5_000;
const KINDS = "unauthorized busy loading notFound tooLarge refused server offline broken storage".split(" ");

/** @param {unknown} value @param {string} where @param {number} [longest] */
function text(value, where, longest = LONGEST) {
  if (typeof value !== "string") throw new Error(`${where}: not a text`);
  if (value.length > longest) throw new Error(`${where}: longer than ${longest} characters`);
  return value;
}

/** @param {unknown} value @param {string} where */
function number(value, where) {
  if (typeof value !== "number" || !Number.isFinite(value) || value < 0) {
    throw new Error(`${where}: not a number from 0 up`);
  }
  return value;
}

/** @param {unknown} value @param {string} where */
function maybeNumber(value, where) {
  return value === null || value === undefined ? null : number(value, where);
}

/** @param {unknown} value @param {string} where */
function maybeText(value, where) {
  return value === null || value === undefined ? null : text(value, where, 200);
}

/** @param {unknown} value @param {string} where @param {number} most @returns {any[]} */
function list(value, where, most) {
  if (!Array.isArray(value)) throw new Error(`${where}: not a list`);
  if (value.length > most) throw new Error(`${where}: more than ${most}`);
  return value;
}

/** @param {unknown} value @param {string} where @returns {Record<string, unknown>} */
function object(value, where) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error(`${where}: not an object`);
  }
  return /** @type {Record<string, unknown>} */ (value);
}

/** @param {unknown} value @param {string} where @returns {Reply} */
function reply(value, where) {
  const from = object(value, where);
  return {
    model: text(from.model, `${where}.model`),
    content: text(from.content, `${where}.content`),
    reasoning: text(from.reasoning, `${where}.reasoning`),
    toolCalls: list(from.toolCalls, `${where}.toolCalls`, 100).map((call, index) => {
      const inside = object(call, `${where}.toolCalls[${index}]`);
      return {
        id: text(inside.id, where),
        name: text(inside.name, where),
        arguments: text(inside.arguments, where),
      };
    }),
    finish: from.finish === null ? null : text(from.finish, `${where}.finish`),
    problem: (from.problem ?? null) === null ? null : problem(from.problem, `${where}.problem`),
    promptTokens: maybeNumber(from.promptTokens, `${where}.promptTokens`),
    completionTokens: maybeNumber(from.completionTokens, `${where}.completionTokens`),
    firstSeconds: maybeNumber(from.firstSeconds, `${where}.firstSeconds`),
    thinkingSeconds: maybeNumber(from.thinkingSeconds, `${where}.thinkingSeconds`),
    seconds: maybeNumber(from.seconds, `${where}.seconds`),
    since: maybeText(from.since, `${where}.since`),
    edited: from.edited === true,
  };
}

/** @param {unknown} value @param {string} where @returns {import("../kit/server.js").Problem} */
function problem(value, where) {
  const from = object(value, where);
  const kind = text(from.kind, `${where}.kind`, 50);
  if (!KINDS.includes(kind)) throw new Error(`${where}.kind: not one of ${KINDS.join(", ")}`);
  const detail = text(from.detail, `${where}.detail`, 2000);
  return {
    kind: /** @type {import("../kit/server.js").ProblemKind} */ (kind),
    detail,
    wait: maybeNumber(from.wait, `${where}.wait`),
    code: maybeText(from.code, `${where}.code`),
    param: maybeText(from.param, `${where}.param`),
  };
}

/**
 * @param {unknown} value
 * @param {string} where
 * @param {Map<string, Turn>} earlier parents come before what follows them
 * @returns {Turn}
 */
function turn(value, where, earlier) {
  const from = object(value, where);
  const id = text(from.id, `${where}.id`, 100);
  if (earlier.has(id)) throw new Error(`${where}.id: used twice`);
  const parent = from.parent === null ? null : text(from.parent, `${where}.parent`, 100);
  if (parent !== null && !earlier.has(parent)) throw new Error(`${where}.parent: no earlier turn`);
  const replies = list(from.replies, `${where}.replies`, 2).map((lane, at) =>
    list(lane, `${where}.replies[${at}]`, MOST_REPLIES).map((one, index) =>
      reply(one, `${where}.replies[${at}][${index}]`),
    ),
  );
  if (!replies.length) throw new Error(`${where}.replies: empty`);
  const chosen = list(from.chosen, `${where}.chosen`, 2).map((one) => number(one, `${where}.chosen`));
  const isChoice = (/** @type {number} */ one, /** @type {number} */ lane) =>
    Number.isInteger(one) && one < Math.max(1, replies[lane].length);
  const fits = chosen.length === replies.length && chosen.every(isChoice);
  if (!fits) throw new Error(`${where}.chosen: does not fit the replies`);
  return {
    id,
    parent,
    after: list(from.after, `${where}.after`, 2).map((one) => number(one, `${where}.after`)),
    question: text(from.question, `${where}.question`),
    // Conversations of a time before there were results have none.
    results: list(from.results ?? [], `${where}.results`, 100).map((one) => {
      const inside = object(one, `${where}.results`);
      return {
        id: text(inside.id, where),
        name: text(inside.name, where),
        content: text(inside.content, where),
      };
    }),
    replies,
    chosen,
    touched: number(from.touched, `${where}.touched`),
  };
}

/** @param {unknown} value @returns {Conversation} */
export function readConversation(value) {
  const from = object(value, "conversation");
  /** @type {Map<string, Turn>} */
  const turns = new Map();
  list(from.turns, "turns", MOST_TURNS).forEach((one, index) => {
    const read = turn(one, `turns[${index}]`, turns);
    turns.set(read.id, read);
  });
  const models = list(from.models, "models", 2).map((one) => text(one, "models"));
  if (!models.length) throw new Error("models: empty");
  return {
    id: text(from.id, "id", 100),
    title: text(from.title, "title", 500),
    created: number(from.created, "created"),
    updated: number(from.updated, "updated"),
    system: text(from.system, "system"),
    models,
    turns: [...turns.values()],
  };
}
