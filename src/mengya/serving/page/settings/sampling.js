/**
 * How the model chooses: the fields of the drawer, and what they become in a request. Takes
 * settings, gives request fields; a field that is not set is not sent, so the server's default
 * holds.
 */

/** @typedef {import("../store/store.js").Settings} Settings */

/** @typedef {{name: string, min: number, max: number, step: number}} Field */
/** @type {Field[]} */
export const FIELDS = [
  { name: "temperature", min: 0, max: 2, step: 0.05 },
  { name: "top_p", min: 0, max: 1, step: 0.01 },
  { name: "top_k", min: 0, max: 100_000, step: 1 },
  { name: "min_p", min: 0, max: 1, step: 0.01 },
  { name: "repetition_penalty", min: 0.5, max: 2, step: 0.05 },
  { name: "max_tokens", min: 1, max: 1_000_000, step: 1 },
  { name: "seed", min: 0, max: 4_294_967_295, step: 1 },
];

/** @param {Settings} settings @returns {Record<string, number>} */
export function samplingFields(settings) {
  const { sampling } = settings;
  const known = FIELDS.filter(({ name, min, max }) => sampling[name] >= min && sampling[name] <= max);
  return Object.fromEntries(known.map(({ name }) => [name, sampling[name]]));
}

/** What of the settings becomes part of a prompt. @param {Settings} settings @returns {object} */
export function promptFields(settings) {
  const asked = { chat_template_kwargs: { enable_thinking: settings.thinking === "on" } };
  const thinking = settings.thinking === "default" ? {} : asked;
  const tools = readTools(settings.tools);
  return { ...thinking, ...(tools.list ? { tools: tools.list } : {}) };
}

/** @param {Settings} settings @returns {object} */
export function chatFields(settings) {
  return { ...samplingFields(settings), ...promptFields(settings) };
}

/**
 * The tools somebody typed.
 * @param {string} text
 * @returns {{list?: object[], reason?: string}} neither when the text is empty
 */
export function readTools(text) {
  if (!text.trim()) return {};
  try {
    const value = JSON.parse(text);
    if (!Array.isArray(value)) return { reason: "[…]" };
    const wrong = value.findIndex(
      (tool) => tool?.type !== "function" || typeof tool.function?.name !== "string",
    );
    if (wrong < 0) return { list: value };
    return { reason: `[${wrong}]: {"type": "function", "function": {"name": …}}` };
  } catch (error) {
    return { reason: /** @type {Error} */ (error).message };
  }
}
