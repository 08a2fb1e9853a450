/**
 * One answer being made: takes a request, fills a `Reply` as the pieces arrive, with the times; a
 * reply that has some text already is continued. Knows nothing of the screen; the view of the reply
 * is notified of every change.
 */
import { streamChat } from "../api.js";
import { ServerProblem } from "../kit/server.js";

/** @typedef {import("../store/conversation.js").Reply} Reply */

/**
 * Ends when the answer has ended, was stopped (`finish` stays null) or failed (`problem` says why);
 * never throws for those.
 * @param {object} body
 * @param {Reply} reply
 * @param {AbortSignal} signal
 * @param {() => void} changed
 */
export async function answer(body, reply, signal, changed) {
  const began = performance.now();
  const before = { seconds: reply.seconds ?? 0, tokens: reply.completionTokens ?? 0 };
  let first = 0;
  try {
    for await (const piece of streamChat(body, signal)) {
      const now = performance.now();
      const spoken = piece.content || piece.reasoning || piece.tools;
      if (spoken && !first) {
        first = now;
        reply.firstSeconds ??= (now - began) / 1000;
      }
      if (piece.reasoning) {
        reply.reasoning += piece.reasoning;
        reply.thinkingSeconds = (now - first) / 1000;
      }
      if (piece.content) reply.content += piece.content;
      for (const part of piece.tools ?? []) addToolPiece(reply, part);
      if (spoken) reply.seconds = before.seconds + (now - first) / 1000;
      if (piece.finish) reply.finish = piece.finish;
      if (piece.usage) {
        // What the reply had already was part of the prompt.
        reply.promptTokens = piece.usage.prompt - before.tokens;
        reply.completionTokens = piece.usage.completion + before.tokens;
      }
      changed();
    }
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof ServerProblem)) throw error;
    reply.problem = error.problem;
  }
}

/** @param {Reply} reply @param {import("../api.js").ToolPiece} piece */
function addToolPiece(reply, piece) {
  if (!Number.isInteger(piece.index) || piece.index < 0 || piece.index > 99) return;
  while (reply.toolCalls.length <= piece.index) reply.toolCalls.push({ id: "", name: "", arguments: "" });
  const call = reply.toolCalls[piece.index];
  call.id = piece.id ?? call.id;
  call.name += piece.name ?? "";
  call.arguments += piece.arguments ?? "";
}

/** Tokens a second from the first token on, or null. @param {Reply} reply */
export function speed(reply) {
  if (!reply.completionTokens || reply.completionTokens < 2 || !reply.seconds) return null;
  return (reply.completionTokens - 1) / reply.seconds;
}
