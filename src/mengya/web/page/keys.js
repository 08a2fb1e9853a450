/** The keyboard: which key presses mean what. Takes events, gives answers. */

/** Whether typing is done on the glass: such a keyboard has no Shift+Enter. */
export function isTouch() {
  return matchMedia("(hover: none) and (pointer: coarse)").matches;
}

/**
 * Whether this press of Enter sends: with Ctrl or Cmd always; alone unless the text has `lines` or the
 * keyboard is a touch screen's, where Enter is a new line; never while an input method is composing,
 * where Enter chooses the characters. Safari reports the Enter that ends a composition after it, with
 * key code 229.
 * @param {KeyboardEvent} event
 * @param {boolean} [lines]
 */
export function entersLine(event, lines = false) {
  if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return false;
  return event.ctrlKey || event.metaKey || !(event.shiftKey || lines || isTouch());
}

/** Whether typing goes into the element that has the focus. @param {EventTarget | null} target */
export function isTyping(target) {
  if (!(target instanceof HTMLElement)) return false;
  return target.matches("input, textarea, select") || target.isContentEditable;
}

/** Lets a textarea grow with its text; its style sheet says how far. @param {HTMLTextAreaElement} area */
export function growing(area) {
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
  };
  area.addEventListener("input", fit);
  return fit;
}
