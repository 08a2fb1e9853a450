/**
 * Server-sent events: takes the body of a response, gives the data of each event as text. Knows
 * nothing of what the data mean.
 */

/**
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<string>}
 */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  /** @type {string[]} */
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      const start = buffer.length; // what was there before holds no line end: a long line is searched once
      buffer += done ? decoder.decode() : decoder.decode(value, { stream: true });
      let line = 0;
      for (let end = buffer.indexOf("\n", start); end >= 0; end = buffer.indexOf("\n", line)) {
        const text = buffer.slice(line, buffer[end - 1] === "\r" ? end - 1 : end);
        line = end + 1;
        if (text.startsWith("data:")) {
          data.push(text.slice(text[5] === " " ? 6 : 5));
        } else if (text === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
      buffer = buffer.slice(line);
      if (done) return;
    }
  } finally {
    // The reader may leave early; a broken stream is already reported by read().
    reader.cancel().catch(() => undefined);
  }
}
