/**
 * Tokens and their probabilities, as numbers and text. Takes tokens of a completion; gives their
 * text, where a prompt ends, means. A token that is not a complete character comes as
 * `bytes:\xe4\xb8`, OpenAI's way of writing it.
 */

/** @typedef {import("../api.js").Token} Token */

const BYTES = "bytes:";

/** @param {string} text */
export function isBytes(text) {
  return text.startsWith(BYTES) && /^(\\x[0-9a-fA-F]{2})+$/.test(text.slice(BYTES.length, 200));
}

/** @param {string} text @returns {number[] | Uint8Array} */
function bytesOf(text) {
  if (!isBytes(text)) return new TextEncoder().encode(text);
  return text
    .slice(BYTES.length + 2)
    .split("\\x")
    .map((pair) => Number.parseInt(pair, 16));
}

/** The text that tokens stand for; parts of characters are joined. @param {string[]} tokens */
export function joined(tokens) {
  return new TextDecoder().decode(Uint8Array.from(tokens.flatMap((token) => [...bytesOf(token)])));
}

/** How many of the tokens make up the prompt. @param {Token[]} tokens @param {string} prompt */
export function promptTokens(tokens, prompt) {
  const length = new TextEncoder().encode(prompt).length;
  let bytes = 0;
  let count = 0;
  while (count < tokens.length && bytes < length) bytes += bytesOf(tokens[count++].text).length;
  return count;
}

/**
 * What each token is shown as: itself, or, for the parts of a character, the character at its first part.
 * @param {string[]} tokens
 * @returns {string[]}
 */
export function labels(tokens) {
  const shown = [...tokens];
  for (let at = 0; at < tokens.length; at += 1) {
    if (!isBytes(tokens[at])) continue;
    let end = at;
    while (end < tokens.length && isBytes(tokens[end])) end += 1;
    shown[at] = joined(tokens.slice(at, end));
    shown.fill("", at + 1, end);
    at = end - 1;
  }
  return shown;
}

/**
 * Bits of surprise a token, over those that have a probability; null when none has.
 * @param {Token[]} tokens
 */
export function meanBits(tokens) {
  const known = tokens.flatMap(({ logprob }) => (logprob === null ? [] : [-logprob / Math.LN2]));
  return known.length ? known.reduce((sum, bits) => sum + bits, 0) / known.length : null;
}

/** A step from 0 (sure) to 5 (surprised), for the tint. @param {number | null} logprob */
export function surprise(logprob) {
  if (logprob === null) return null;
  const bounds = [0.7, 0.4, 0.15, 0.04, 0.008];
  const step = bounds.findIndex((bound) => Math.exp(logprob) >= bound);
  return step < 0 ? bounds.length : step;
}

/** @param {number} logprob */
export function percent(logprob) {
  const value = Math.exp(logprob) * 100;
  if (value >= 10) return `${value.toFixed(0)}%`;
  return value >= 0.095 ? `${value.toFixed(1)}%` : `${value.toPrecision(1)}%`;
}
