/**
 * Text files that somebody adds to a message: takes a file, gives its text as a block of code under
 * its name, or throws what is wrong with it as words of the page.
 */
import { t } from "../kit/i18n.js";
import { fenced } from "../store/transfer.js";

const MOST_KIB = 256;
const ENCODINGS = ["utf-8", "gb18030"];

/** @param {File} file @returns {Promise<string>} */
export async function textBlock(file) {
  const size = Math.ceil(file.size / 1024);
  if (size > MOST_KIB) throw new Error(t("fileTooLarge", { name: file.name, size, most: MOST_KIB }));
  const text = decoded(new Uint8Array(await file.arrayBuffer()));
  if (text === null) throw new Error(t("fileNotText", { name: file.name }));
  if (!text.trim()) throw new Error(t("fileEmpty", { name: file.name }));
  return `${t("fileNamed", { name: file.name })}\n${fenced(text.replace(/\r\n?/g, "\n").trimEnd())}\n`;
}

/** UTF-8, UTF-16 with its mark, or GB 18030; null for anything else. @param {Uint8Array} bytes */
function decoded(bytes) {
  const mark = (bytes[0] << 8) | bytes[1];
  const utf16 = mark === 0xfffe ? ["utf-16le"] : mark === 0xfeff ? ["utf-16be"] : [];
  for (const encoding of utf16.length ? utf16 : ENCODINGS) {
    try {
      const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
      // A control character is in no text.
      if (!/[\0-\x08\x0e-\x1a\x1c-\x1f]/.test(text)) return text;
    } catch {
      // Not in this encoding: the next one.
    }
  }
  return null;
}
