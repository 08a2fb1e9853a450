/**
 * The line under the message box that shows how full the context is, and what to do when it is. Takes
 * a `Context`; asks the server to count once the conversation has stopped changing.
 */
import { byId } from "../kit/dom.js";
import { t } from "../kit/i18n.js";

/** @typedef {import("../store/conversation.js").Conversation} Conversation */

const SETTLED = 400; // milliseconds without a change after which the server is asked

export class Gauge {
  /**
   * @param {import("./context.js").Context} context
   * @param {() => Conversation} conversation the open one
   * @param {() => string} typed
   */
  constructor(context, conversation, typed) {
    this.context = context;
    this.conversation = conversation;
    this.typed = typed;
    this.element = byId("gauge");
    this.meter = /** @type {HTMLMeterElement} */ (byId("gauge-meter"));
    this.words = byId("gauge-words");
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  draw() {
    const typed = this.typed();
    const fill = this.context.fill(this.conversation(), typed);
    this.element.hidden = fill === null || fill.used === 0;
    if (!fill) return;
    const { used, limit, exact } = fill;
    const share = used / limit;
    Object.assign(this.meter, { max: limit, high: limit * 0.75, optimum: 0, value: Math.min(used, limit) });
    const count = t(exact ? "contextUsed" : "contextAbout", { used, limit });
    const isAlone = typed && this.context.estimate(this.conversation().models[0], typed.length) > limit;
    const advice = isAlone ? t("contextTooLong") : share > 0.75 && t("contextNear");
    this.words.textContent = [count, advice].filter(Boolean).join(" · ");
    this.meter.textContent = `${Math.round(100 * share)} %`;
    this.element.classList.toggle("near", share > 0.75);
  }

  /** Draws now, and again when the server has counted. */
  refresh() {
    this.draw();
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      await this.context.count(this.conversation());
      this.draw();
    }, SETTLED);
  }
}
