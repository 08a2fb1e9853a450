/**
 * Requests to the server that gave the page. Takes paths and bodies; gives responses and the parsed
 * events of streams, or a `ServerProblem` that says what went wrong as one of a few kinds, which
 * i18n.js has words for. Knows nothing of the screen.
 *
 * The key lives in sessionStorage: it is gone with the tab, and it is sent in a header only, never
 * in an address.
 */
import { events } from "./sse.js";

/**
 * @typedef
 *   {"unauthorized"|"busy"|"loading"|"notFound"|"tooLarge"|"refused"|"server"|"offline"|"broken"|"storage"}
 *   ProblemKind
 */
/**
 * `code` and `param` are the server's own name of the error and the field of the request at fault.
 * @typedef {{kind: ProblemKind, detail: string, wait: number | null, code: string | null, param:
 *   string | null}} Problem
 */

const KEY = "mengya.key";

/** @type {Object<number, ProblemKind>} */
const KINDS = {
  401: "unauthorized",
  403: "unauthorized",
  404: "notFound",
  405: "notFound",
  413: "tooLarge",
  429: "busy",
  503: "loading",
};

export class ServerProblem extends Error {
  /**
   * @param {ProblemKind} kind
   * @param {string} detail
   * @param {number | null} wait seconds the server asks to wait
   * @param {{code?: unknown, param?: unknown}} [named] of an error in OpenAI's shape
   */
  constructor(kind, detail = "", wait = null, { code, param } = {}) {
    super(`${kind}: ${detail}`);
    /** @type {Problem} */
    this.problem = { kind, detail, wait, code: name(code), param: name(param) };
  }
}

/** @param {unknown} value */
function name(value) {
  return typeof value === "string" ? value.slice(0, 200) : null;
}

/**
 * Asks a person for the key; true when there is one now. Set by `askKeyWhenNeeded` of dialogs.js.
 * @type {{ask: () => Promise<boolean>}}
 */
export const keyHolder = { ask: async () => false };

/** @param {string} key */
export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

/**
 * One request; asks for the key as long as the server wants one and the person gives one.
 * @param {string} path relative to the page, so that a server behind a prefix works
 * @param {object | null} body null: GET
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>}
 */
export async function request(path, body, signal) {
  for (;;) {
    /** @type {Record<string, string>} */
    const headers = body ? { "Content-Type": "application/json" } : {};
    const key = sessionStorage.getItem(KEY);
    if (key) headers["Authorization"] = `Bearer ${key}`;
    let response;
    try {
      response = await fetch(
        path,
        { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal },
      );
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ServerProblem("offline", String(error));
    }
    if (response.ok) return response;
    const problem = await problemOf(response);
    const asked = sessionStorage.getItem(KEY) !== key; // another request has got a new key meanwhile
    if (response.status !== 401 || (!asked && !(await keyHolder.ask()))) throw problem;
  }
}

/** @param {Response} response */
async function problemOf(response) {
  const text = await response.text().catch(() => "");
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const kind = KINDS[response.status] ?? (response.status < 500 ? "refused" : "server");
  return new ServerProblem(kind, detailOf(text), Number.isFinite(wait) ? wait : null, errorOf(text));
}

/** The error of a body in OpenAI's shape, or an empty one. @param {string} text @returns {object} */
function errorOf(text) {
  try {
    return Object(JSON.parse(text).error);
  } catch {
    return {};
  }
}

/** The message of an error in OpenAI's shape, or the text itself. @param {string} text */
function detailOf(text) {
  try {
    const value = JSON.parse(text);
    const message = value.error?.message ?? value.detail ?? value.message;
    return typeof message === "string" ? message.slice(0, 1000) : text.slice(0, 1000);
  } catch {
    return text.slice(0, 1000);
  }
}

/**
 * The parsed events of a streaming request, up to [DONE].
 * @param {string} path
 * @param {object} body which asks for a stream
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any>}
 */
export async function* stream(path, body, signal) {
  const response = await request(path, body, signal);
  let ended = false;
  try {
    if (response.body) {
      for await (const data of events(response.body)) {
        ended = data === "[DONE]";
        if (ended) return;
        const value = JSON.parse(data);
        if (value.error) {
          const detail = String(value.error.message ?? "").slice(0, 1000);
          throw new ServerProblem("server", detail, null, Object(value.error));
        }
        yield value;
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof ServerProblem) throw error;
    throw new ServerProblem("broken", String(error));
  }
  if (!ended) throw new ServerProblem("broken");
}
