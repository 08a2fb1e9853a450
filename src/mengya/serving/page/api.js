/**
 * The model server's API (OpenAI's). Takes request bodies; gives models, chat deltas and completion
 * tokens. Knows nothing of the screen.
 */
import { request, ServerProblem, stream } from "./kit/server.js";

/**
 * `kind` and `context` are null where the server does not say: it may, once it has loaded the model.
 * `starters` are what it offers to ask or to continue.
 * @typedef {{id: string, kind: "chat"|"base"|null, context: number | null, starters: string[]}} Model
 */
/** @typedef {{prompt: number, completion: number, cached: number}} Usage */
/** @typedef {{index: number, id?: string, name?: string, arguments?: string}} ToolPiece */
/**
 * @typedef {{content?: string, reasoning?: string, tools?: ToolPiece[], finish?: string, usage?:
 *   Usage}} Piece
 */
/** @typedef {{text: string, logprob: number | null, top: [string, number][]}} Token */
/** @typedef {{text: string, tokens: Token[], finish?: string, usage?: Usage}} CompletionPiece */

const MOST_STARTERS = 8;
let canCount = true;

/** @returns {Promise<Model[]>} */
export async function listModels() {
  const list = await (await request("v1/models", null)).json();
  return (Array.isArray(list.data) ? list.data : []).map((/** @type {any} */ entry) => ({
    id: String(entry.id),
    kind: ["chat", "base"].includes(entry.mengya?.kind) ? entry.mengya.kind : null,
    context: positive(entry.mengya?.context ?? entry.max_model_len), // the latter is vLLM's
    starters: startersOf(entry.mengya?.starters),
  }));
}

/** @param {unknown} value */
function positive(value) {
  return typeof value === "number" && value > 0 ? value : null;
}

/** @param {unknown} value @returns {string[]} */
function startersOf(value) {
  const all = Array.isArray(value) ? value : [];
  return all.filter((one) => typeof one === "string" && one.trim()).slice(0, MOST_STARTERS);
}

/**
 * How many tokens a prompt has, or null: not every server can say, and one that cannot is asked once.
 * @param {object} body with `model`, `messages` and what else becomes part of the prompt
 * @returns {Promise<number | null>}
 */
export async function countTokens(body) {
  if (!canCount) return null;
  try {
    const answer = await (await request("tokenize", body)).json();
    return positive(answer.count);
  } catch (error) {
    if (!(error instanceof ServerProblem || error instanceof SyntaxError)) throw error;
    canCount = error instanceof ServerProblem && error.problem.kind !== "notFound";
    return null;
  }
}

/** @param {object} body */
function streamed(body) {
  return { ...body, stream: true, stream_options: { include_usage: true } };
}

/** @param {any} usage @returns {Usage | undefined} */
function usageOf(usage) {
  if (!usage) return undefined;
  const cached = usage.prompt_tokens_details?.cached_tokens;
  return {
    prompt: Number(usage.prompt_tokens),
    completion: Number(usage.completion_tokens),
    cached: Number(cached ?? 0),
  };
}

/**
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Piece>}
 */
export async function* streamChat(body, signal) {
  for await (const value of stream("v1/chat/completions", streamed(body), signal)) {
    const choice = value.choices?.[0];
    const delta = choice?.delta ?? {};
    yield {
      content: delta.content ?? undefined,
      reasoning: delta.reasoning_content ?? delta.reasoning ?? undefined,
      tools: delta.tool_calls?.map((/** @type {any} */ call) => ({
        index: Number(call.index ?? 0),
        id: call.id,
        name: call.function?.name,
        arguments: call.function?.arguments,
      })),
      finish: choice?.finish_reason ?? undefined,
      usage: usageOf(value.usage),
    };
  }
}

/**
 * @param {object} body with `logprobs`, each piece has its tokens; with `echo`, the prompt's come first
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<CompletionPiece>}
 */
export async function* streamCompletion(body, signal) {
  for await (const value of stream("v1/completions", streamed(body), signal)) {
    const choice = value.choices?.[0];
    yield {
      text: choice?.text ?? "",
      tokens: tokensOf(choice?.logprobs),
      finish: choice?.finish_reason ?? undefined,
      usage: usageOf(value.usage),
    };
  }
}

/**
 * OpenAI's four parallel lists of a completion's logprobs, as tokens.
 * @param {any} logprobs
 * @returns {Token[]}
 */
function tokensOf(logprobs) {
  return (logprobs?.tokens ?? []).map((/** @type {unknown} */ text, /** @type {number} */ index) => {
    const logprob = logprobs.token_logprobs?.[index];
    const likely = Object.entries(logprobs.top_logprobs?.[index] ?? {});
    const top = likely.map(([name, value]) => [name, Number(value)]);
    return {
      text: String(text),
      logprob: typeof logprob === "number" ? logprob : null,
      top: /** @type {[string, number][]} */ (top).sort((one, other) => other[1] - one[1]),
    };
  });
}
