/** The keyboard: which key presses mean what. Takes events, gives answers. */

/**
 * Whether this press of Enter sends: not with Shift, and not while an input method is composing,
 * where Enter chooses the characters. Safari reports the Enter that ends a composition after it,
 * with key code 229.
 * @param {KeyboardEvent} event
 */
export function entersLine(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
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
