/**
 * What the browser keeps: settings and conversations, in localStorage. Takes and gives plain
 * objects; knows nothing of the screen. One entry a conversation, so saving one while it is
 * answered writes only that one.
 */
import { ServerProblem } from "../kit/server.js";
import { readConversation } from "./validate.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

const SETTINGS = "mengya.settings";
const PREFIX = "mengya.conversation.";

/**
 * @typedef {{language: "zh"|"en", theme: "auto"|"light"|"dark", mode: "chat"|"completion", models:
 *   string[], system: string, sampling: Record<string, number>, thinking: "default"|"on"|"off",
 *   tools: string, current: string | null, prompt: string, echo: boolean, length: number}} Settings
 */

/** @type {Settings} */
export const DEFAULTS = {
  language: "zh",
  theme: "auto",
  mode: "chat",
  models: [],
  system: "",
  sampling: {},
  thinking: "default",
  tools: "",
  current: null,
  prompt: "",
  echo: true,
  length: 64,
};

/** @param {string} key @param {string} value */
function write(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch (error) {
    throw new ServerProblem("storage", String(error)); // full, or storage is switched off
  }
}

/**
 * The settings as they were left; a field of another type than its default counts as not set.
 * @returns {Settings}
 */
export function loadSettings() {
  const settings = structuredClone(DEFAULTS);
  try {
    const stored = JSON.parse(localStorage.getItem(SETTINGS) ?? "{}");
    for (const [name, value] of Object.entries(DEFAULTS)) {
      const kept = stored[name];
      const isAlike = typeof kept === typeof value && Array.isArray(kept) === Array.isArray(value);
      const fits = value === null ? typeof kept === "string" : isAlike;
      if (fits && kept !== null) Object.assign(settings, { [name]: kept });
    }
  } catch {
    localStorage.removeItem(SETTINGS); // not JSON: the defaults
  }
  settings.models = settings.models.filter((model) => typeof model === "string");
  return settings;
}

/** @param {Settings} settings */
export function saveSettings(settings) {
  write(SETTINGS, JSON.stringify(settings));
}

/** The conversations, in memory and in the browser's storage. */
export class Conversations {
  constructor() {
    /** @type {Map<string, Conversation>} */
    this.byId = new Map();
    for (const key of Object.keys(localStorage).filter((name) => name.startsWith(PREFIX))) this.load(key);
  }

  /** @param {string} key An entry that cannot be read is left alone: it may be a newer version's. */
  load(key) {
    try {
      const conversation = readConversation(JSON.parse(localStorage.getItem(key) ?? "null"));
      this.byId.set(conversation.id, conversation);
    } catch (error) {
      console.warn(`not read: ${key}`, error);
    }
  }

  /** Latest first. */
  list() {
    return [...this.byId.values()].sort((one, other) => other.updated - one.updated);
  }

  /**
   * @param {Conversation} conversation
   * @throws {ServerProblem} of kind "storage"; it then lives on in memory only
   */
  save(conversation) {
    this.byId.set(conversation.id, conversation);
    write(PREFIX + conversation.id, JSON.stringify(conversation));
  }

  /** @param {string} id */
  remove(id) {
    this.byId.delete(id);
    localStorage.removeItem(PREFIX + id);
  }

  /**
   * Takes over what another tab has written.
   * @param {StorageEvent} event
   * @returns {string | null} the conversation that changed
   */
  follow(event) {
    if (!event.key?.startsWith(PREFIX)) return null;
    const id = event.key.slice(PREFIX.length);
    if (event.newValue === null) this.byId.delete(id);
    else this.load(event.key);
    return id;
  }
}
